"""The `dpacc` command: what its subcommands, a file each in the room `commands`, are made of.

Read `main` and `lazy_commands`, which load a subcommand when it is called (those of `federate`, and
those that start recipes, from `subcommands`), then `terminal`, which alone talks to rich
(`encoding`, `plain_warnings` and `last_word` see that everything can be read, `notebook` draws a
bar in a cell), and what several share: `options`, `sources`, `documents`, `guarantee_table`. The
room `calibration` is what `calibrate` and `plan` solve for, `report` what `report` and `verify`
find out and say, `dashboard` what `dashboard` shows. Offers `dpacc`.
"""
