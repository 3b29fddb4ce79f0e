"""The `dpacc` command: what its subcommands, a file each in the room `commands`, are made of.

Read `main` and `lazy_commands`, which load a subcommand when it is called, then `terminal`, which
alone talks to rich (`encoding`, `plain_warnings` and `last_word` see that everything can be read),
and what several share: `options`, `sources`, `documents`, `guarantee_table`. `free_quantity`,
`sampled_over_steps` and `sweep` are parts of `calibrate`, `recommendation` of `plan`; the room
`report` is what `report` and `verify` find out and say. Offers `dpacc`.
"""
