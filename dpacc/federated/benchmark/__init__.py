"""Federations compared on public data: a grid of cells, each a training by the real engine.

Read `settings` and `data_sets`, then `partitions`, which deals records to clients, and `cells` with
`kept_cells`; `lab` makes clients and a server for one cell, `measuring` says what its model is
worth, `training` trains it in one of three ways; `outcomes` are what is compared, `charts` and
`report` show it, and `suite` puts all of it together. Offers `FederatedBenchmark` and
`BenchmarkConfig`.
"""
