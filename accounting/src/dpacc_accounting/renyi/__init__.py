"""Rényi divergences: an independent, looser price of any event that has a bound.

Read `sampled_gaussian`, then `divergence` with `random_amounts` and `selected_runs`. Offers
`rdp_epsilon` and `event_rdp_epsilon`.
"""
