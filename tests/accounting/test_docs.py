"""What docs/accounting.md shows is what the commands do."""

import re
import shlex
from pathlib import Path

import pytest
from dpacc_accounting import Ledger, read_federation

from dpacc.cli.documents import read_document
from dpacc.cli.main import COMMANDS
from tests.accounting.test_merging import PLAN, QUIET, STEP
from tests.cli.conftest import dpacc  # noqa: F401

PAGE = (Path(__file__).parents[2] / "docs" / "accounting.md").read_text()


def _blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    assert found
    return found


def _commands() -> list[list[str]]:
    lines = "".join(_blocks("console")).splitlines()
    return [shlex.split(line.removeprefix("$ dpacc ")) for line in lines]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, each under the name in its first line, and two ledgers."""
    for block in _blocks("yaml"):
        (tmp_path / block.splitlines()[0].removeprefix("# ")).write_text(block)
    for name, event in (("ledger.jsonl", STEP), ("other.jsonl", QUIET)):
        with Ledger.open(path=tmp_path / name, plan=PLAN) as ledger:
            for step in range(5):
                ledger.charge(step=step, event=event)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_on_the_page_runs(dpacc, folder: Path, words: list[str]) -> None:  # noqa: F811
    """Each line exits with 0, and writes the figure that it names."""
    outcome = dpacc(*words)
    assert outcome.code == 0, outcome.err
    for word in words:
        if word.endswith(".png"):
            assert (folder / word).read_bytes().startswith(b"\x89PNG")


def test_every_command_is_on_the_page() -> None:
    """No command is left out of the table or of the examples."""
    assert {words[0] for words in _commands()} == set(COMMANDS)
    assert set(re.findall(r"^\| `dpacc (\w+)`", PAGE, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_federations_on_the_page_name_every_field(folder: Path) -> None:
    """A reader of the page has seen every field that a federation may have."""
    from dpacc_accounting import reading

    for name in ("hospitals.yaml", "phones.yaml", "wards.yaml"):
        read_federation(document=read_document(path=folder / name))
    known = {*reading._EXAMPLE_LEVEL, *reading._CLIENT, *reading.CLIENT_LEVEL}
    assert len(known) > 25
    assert {field for field in known if f"{field}:" not in PAGE} == set()


def test_the_wrong_rate_on_the_page_is_what_it_says() -> None:
    """The page's figures for multiplied rates are those of the events that it describes."""
    from dpacc_accounting import Gaussian, PoissonSampled, Repeated, epsilon

    wrong = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=4.0))
    right = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=4.0 / 10))
    claimed = epsilon(event=Repeated(event=wrong, times=2000), delta=1e-6).epsilon
    true = epsilon(event=Repeated(event=right, times=20), delta=1e-6)
    assert f"claims ε = {claimed:.1f} at" in PAGE.replace("\n", " ")
    assert f"truth is {true.epsilon - true.slack:.1f}" in PAGE
