"""Federated rounds: read, described and priced, for two clients or a hundred thousand.

Read `rounds`, `reading` (with `fields` and `cohort_reading`) and `guarantees`; then `cohorts` and
`distributed_noise` at client level, `hidden_rounds` where nobody sees who joins, and
`many_clients`, `batched_bounds` and `batched_losses` for very many. Offers `price_federation` and
`read_federation`.
"""
