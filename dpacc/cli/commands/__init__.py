"""One file a subcommand of `dpacc`, loaded when it is called; each takes `--json`.

Plan: `init`, `calibrate`, `plan` and `federate`. Account: `spend`, `explain`, `verify`,
`merge_ledgers`, `budget`, `compose`, `plot`. Watch: `dashboard`. Assure: `report`, `audit`,
`attack`, `doctor`. Offers a command of the file's name.
"""
