"""Many processes that act as one: what they agree on, what they add up, where a model stands.

Read `collectives` first, then `fingerprints`, which sees that ranks have the same code and data,
`reduction`, by which the clipped sum crosses the network, and `preemption`, by which all leave a
machine after the same step. `backends` places the model. Offers `join_ranks` and `reduction_for`.
"""
