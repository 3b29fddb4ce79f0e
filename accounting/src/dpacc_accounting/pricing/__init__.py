"""The one door to a price, and what it asks.

Read `price`, then `certified_bounds` (by privacy loss distributions), `outright_claims` (pure ε)
and `lower_bounds`; `small_delta` says when δ promises anything. Offers `epsilon` and `delta`.
"""
