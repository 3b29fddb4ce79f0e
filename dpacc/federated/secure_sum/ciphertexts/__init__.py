"""Sums of what nobody can read but one client, who opens the total.

Read `homomorphic`, a client's side, and `encrypted`, the server's. Offers `CKKS` and
`EncryptedSum`.
"""
