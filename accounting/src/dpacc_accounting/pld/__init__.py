"""Privacy loss distributions: what an adversary learns, put on a grid, composed and bounded.

Read `dominating_pairs` and `connect_the_dots` for one release, `privacy_losses` for what is known
by its probabilities alone, `event_losses` for which of these an event is (`mechanism_losses`,
`finite_losses`, `mixtures`, `truncation`, `random_allocation`, `fixed_batches`, `group_pairs`),
then `saddlepoint`, `convolution` and `composed_loss`, which bounds a composition. `amplification`
takes away what sampling hides. Offers `ComposedLoss` and `dominating_pairs`.
"""
