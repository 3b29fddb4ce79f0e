"""One total for a data set: what every run on it may spend together, granted before it starts.

Read `fingerprint` and `key_file` (which data is meant, and what the registry's head was), `record`
(the file and its lines), `creation`, `grants` (what is within the total), `matching` (whether a
ledger and a budget go together) and `registry` (who may write a line). Offers `Budget`,
`create_budget`, `read_budget` and `data_fingerprint`.
"""
