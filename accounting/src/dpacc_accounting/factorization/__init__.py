"""Noise that is correlated between steps, so that it cancels in what a run adds up.

Read `workload`, what a run makes of its steps' sums and so of their noise, then `banded`, the
banded Toeplitz C that leaves least of it, and `buffered`, one that needs little memory. Prices are
elsewhere: `events` says what such a run releases, `calibration` how many bands pay. Offers
`Workload`, `optimal_coefficients` and `optimal_buffers`.
"""
