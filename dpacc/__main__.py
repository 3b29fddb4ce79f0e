"""`python -m dpacc` is the `dpacc` command."""

from dpacc.cli.main import main

main()
