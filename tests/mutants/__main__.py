"""Plant every bug, one after the other, and write down which check catches which.

    python -m tests.mutants              all of them, and the table in docs/assurance.md
    python -m tests.mutants --quick      those whose checks are quick, and no table
    python -m tests.mutants --only NAME  one

Exits with 1 when a bug goes unnoticed, or a check fails without any bug.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.mutants.bug import Bug
from tests.mutants.bugs import BUGS
from tests.mutants.catching import (
    ROOT,
    Outcomes,
    load_what_no_bug_changes,
    outcomes,
    refuse_late_start,
)

PAGE = ROOT / "docs/assurance.md"
BEGIN, END = "<!-- planted bugs: begin -->", "<!-- planted bugs: end -->"


def main() -> int:
    """Run, print a line a bug, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", action="append")
    chosen = parser.parse_args()
    refuse_late_start()
    load_what_no_bug_changes()
    bugs = [bug for bug in BUGS if _is_wanted(bug, chosen.quick, chosen.only)]
    if not bugs:
        parser.error(f"no bug is named {chosen.only}")
    healthy = _without_bug(bugs)
    caught = {bug.name: _try(bug) for bug in bugs}
    escaped = [name for name, found in caught.items() if not any(found.values())]
    print(f"{len(bugs) - len(escaped)} of {len(bugs)} planted bugs caught", flush=True)
    if not (chosen.quick or chosen.only):
        write_table(PAGE, caught)
    return 0 if healthy and not escaped else 1


def write_table(page: Path, caught: dict[str, Outcomes]) -> None:
    """Exchange what stands between the marks of the page for the table of this run."""
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{table(caught)}\n{END}{after}")


def table(caught: dict[str, Outcomes]) -> str:
    """A line a bug: where it is from, what goes wrong, and the checks that failed."""
    lines = ["| planted bug | what goes wrong | caught by |", "|---|---|---|"]
    for bug in BUGS:
        found = sorted({_short(check) for check, failed in caught[bug.name].items() if failed})
        mark = " *" if bug.known else ""
        lines.append(f"| {bug.name}{mark} | {bug.story} | {', '.join(found) or '**nothing**'} |")
    total = sum(any(found.values()) for found in caught.values())
    lines += ["", f"{total} of {len(BUGS)} caught. * was found in published tools."]
    return "\n".join(lines) + "\n"


def _short(check: str) -> str:
    file, _, name = check.partition("::")
    return f"`{Path(file).stem}::{name.partition('[')[0].rpartition('::')[2]}`"


def _is_wanted(bug: Bug, quick: bool, only: list[str] | None) -> bool:
    return (not only or bug.name in only) and not (quick and not bug.quick)


def _without_bug(bugs: list[Bug]) -> bool:
    """Whether all checks pass when nothing is wrong."""
    checks = tuple(dict.fromkeys(check for bug in bugs for check in bug.checks))
    failed = [check for check, bad in outcomes(None, checks).items() if bad]
    print(f"without a bug: {len(failed)} of {len(checks)} checks fail {failed}", flush=True)
    return not failed


def _try(bug: Bug) -> Outcomes:
    started = time.monotonic()
    try:
        found = outcomes(bug, bug.checks)
    except RuntimeError as error:
        print(f"{bug.name} could not be planted: {error}", file=sys.stderr)
        return {}
    failed = sorted({_short(check) for check, bad in found.items() if bad})
    took = time.monotonic() - started
    print(f"{took:5.1f} s  {bug.name}: {', '.join(failed) or 'NOT CAUGHT'}", flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
