"""Solve for the one quantity that was not given.

Read `noise`, then `event_scale`, `affordable` and `attack_targets`; `accountant` counts as a run
goes. Offers `calibrate_noise` and its kin.
"""
