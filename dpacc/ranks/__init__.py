"""Many processes that act as one: what they agree on, what they add up, where a model stands.

Read `collectives` first, then `fingerprints`, which sees that ranks have the same code and data,
and `reduction`, by which the clipped sum crosses the network. `backends` places the model. Offers
`join_ranks` and `reduction_for`.
"""
