"""Solve for the one quantity that was not given.

Read `training_runs` for what is given, then `noise`, `banded_noise`, `allocated_noise`,
`separated_noise`, `phased_noise`, `unit_sampling`, `compute_budget`, `event_scale`, `affordable`
and `attack_targets`; `accountant` counts as a run goes. Offers `calibrate_noise` and its kin.
"""
