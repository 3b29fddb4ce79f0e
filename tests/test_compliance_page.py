"""docs/compliance.md is what the data file says, and every place that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
from dpacc_accounting.ledger.statement import statement

from dpacc.artifacts.compliance import Row, documents
from dpacc.cli.main import dpacc
from dpacc.plan import PrivacyPlan
from tests.compliance_page import BEGIN, END, PAGE, page

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text()
ROWS = [row for document in documents() for row in document.rows]
PLACES = sorted({place for row in ROWS for place in row.where})
COMMANDS = [place for place in PLACES if place.startswith("dpacc ")]
PATHS = [place for place in PLACES if not place.startswith(("dpacc ", "run/"))]


def anchors(path: Path) -> set[str]:
    """Each heading as a link names it."""
    heads = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def unknown_words(line: str) -> set[str]:
    """What of a command line the command does not know: options, and names of arguments."""
    command: click.Command = dpacc
    _, *words = line.split()
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, line
        command, words = found, words[1:]
    known = {word for each in command.params for word in (*each.opts, (each.name or "").upper())}
    return {word for word in words if word.startswith("-") or word.isupper()} - known


def test_the_page_shows_the_data_file() -> None:
    """`python -m tests.compliance_page` wrote its tables, with a line for each row."""
    shown = TEXT.split(BEGIN)[1].split(END)[0].strip()
    assert shown == page().strip()
    lines = [line for line in shown.splitlines() if line.startswith("| ")]
    assert len(lines) == len(ROWS) + len(documents())
    assert all(line.count(" | ") == 4 for line in lines)


def test_the_page_says_what_it_is_not() -> None:
    """No legal advice, and no de-identification."""
    assert "**Differential privacy is not de-identification.**" in TEXT
    assert "**This is no legal advice**" in TEXT


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_takes_what_is_written(line: str) -> None:
    """It exists, and so do its options and arguments."""
    assert unknown_words(line) == set()


def test_a_command_that_is_not_there_is_found() -> None:
    """A made-up option, argument or command."""
    assert unknown_words("dpacc spend LEDGER --gamma 1") == {"--gamma"}
    assert unknown_words("dpacc spend FOLDER") == {"FOLDER"}
    with pytest.raises(AssertionError, match="certify"):
        unknown_words("dpacc certify RUN")


@pytest.mark.parametrize("place", PATHS)
def test_every_file_and_heading_exists(place: str) -> None:
    """Links lead somewhere."""
    name, _, anchor = place.partition("#")
    assert (ROOT / name).is_file()
    assert not anchor or anchor in anchors(ROOT / name)


def test_files_of_a_run_are_among_those_that_it_writes() -> None:
    """As the table of all written files has them."""
    table = (ROOT / "tests/dpacc/artifacts/test_written_files.py").read_text()
    named = {place.removeprefix("run/") for place in PLACES if place.startswith("run/")}
    assert named == {"README.md", "ledger.jsonl", "privacy.json"}
    assert all(f'r"{re.escape(name)}": "public: ' in table for name in named)


def test_the_numbers_are_those_of_the_readmes_run() -> None:
    """Its bound on attackers, and its ε where draws are known, as the statement has them."""
    plan = PrivacyPlan(
        dataset_size=9603,
        expected_batch_size=96,
        steps=20,
        noise_multiplier=0.384934,
        max_grad_norm=1.0,
        target_delta=4.163e-05,
    )
    words = statement(plan=plan.to_json())
    found = re.search(
        r"false-positive rate of 1%, a true-positive rate of at most ([\d.]+)%", words
    )
    assert found is not None
    assert 5.81 < float(found[1]) <= 5.82
    assert (
        "every sample, or had they not been drawn that way, the same noise gives ε = 112.4" in words
    )
    shown = [f"{row.answer} {row.not_covered}" for row in ROWS]
    assert sum("5.82%" in cell for cell in shown) == 2
    assert sum("ε = 112.4" in cell for cell in shown) == 1


def test_the_example_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """It prints the rows of a run whose unit is an owner, under discrete noise."""
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(compile(code, PAGE.name, "exec"), {})
    printed = capsys.readouterr().out
    assert "under discrete noise" in printed
    assert "not covered: No. Nothing is unlearned" in printed
    assert "event-level" not in printed


def test_unsupported_rows_are_shown_as_such() -> None:
    """Rows without an answer name no place, so that none looks like evidence."""
    bare: list[Row] = [row for row in ROWS if not row.answer]
    assert len(bare) >= 5
    assert all(row.not_covered and not row.where for row in bare)
