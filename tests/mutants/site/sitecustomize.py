"""Plant the bug that the environment names in every Python process that starts with this path."""

import os

if os.environ.get("DPACC_PLANTED_BUG"):
    from tests.mutants.bugs import BUGS
    from tests.mutants.planting import plant

    name = os.environ["DPACC_PLANTED_BUG"]
    plant(next(bug.patches for bug in BUGS if bug.name == name), name=name)
