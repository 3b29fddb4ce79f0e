"""One document on runs for whoever reads no code.

Read `gathered`, which reads and prices a run's folder (`agreement` asks independent accountants,
`audits` reads what audits proved), `words` and `sections`, which say it in plain words, `figures`,
and `one_run`, which puts them in order as a document (`dpacc.artifacts.document`, which renders it,
too); then `several` runs, a `federation` and the `trials` of a sweep, and `any_kind`, which tells
them apart and appends the `data_set_budget` and `questions`. Offers `report_on`.
"""
