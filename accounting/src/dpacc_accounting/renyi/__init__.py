"""Rényi divergences: an independent, looser price of any event that has a bound.

Read `sampled_gaussian`, then `divergence`. Offers `rdp_epsilon` and `event_rdp_epsilon`.
"""
