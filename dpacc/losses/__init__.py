"""One number an example, which owes nothing to its neighbours.

Read `per_example`, then `token_losses`, which never holds the logits of a whole micro-batch,
`decoupled_losses`, what the losses of the library's own heads should have been, and `preferences`,
which compares two answers. Offers `causal_lm_losses`, `batch_losses_of` and `preference_losses`.
"""
