"""The private step behind an ordinary training loop, which keeps its three lines.

Read `drop_in`, then what it hands out: `private_loss`, `private_optimizer` and the loader, of
`plain_loader` and `virtual_batches`. `restarts` sees a program that begins again. Offers
`PrivacyEngine`, which has a method make_private.
"""
