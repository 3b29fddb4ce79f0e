"""One number an example, which owes nothing to its neighbours.

Read `per_example`, then `token_losses`, which never holds the logits of a whole micro-batch, and
`decoupled_losses`, what the losses of the library's own heads should have been. Offers
`causal_lm_losses` and `batch_losses_of`.
"""
