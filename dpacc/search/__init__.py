"""Choosing settings, at a price.

Read `private_search`, which prices and draws trials, then `trials`, which runs them on one base,
and `trials_chart`. Offers `PrivateSearch` and `Bench`.
"""
