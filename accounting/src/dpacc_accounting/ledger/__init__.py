"""What was really released: written before it leaves, read back, added up, put into words.

Read `record` and `writer` (with `locks` and `disk`), then `merging`, `plan_settings`, `claims` and
`statement`, which puts together what `mechanism` and `limits` say. Offers `Ledger`, `read_ledger`,
`merge_ledgers` and `statement`.
"""
