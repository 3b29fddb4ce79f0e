"""Sums of updates of which the server sees the sum alone.

Read `settings` and `protocols`, then `messages` and `summing_client`. Masks: `masking` at a client,
`unmasking` at the server, of `keys` and `shamir`'s shares, among `neighbourhoods` where clients are
many; `ciphertexts` instead of masks. `summands` and `fixed_point` make whole numbers of an update,
`shared_noise` lets clients add the noise, `exchange` asks all for a stage, `rounds_summed` sees
that none is summed twice; `signed` has who is who. Offers `SecureSum`, `SecureClient` and
`SigningKeys`.
"""
