"""What docs/accounting.md shows is what the commands do."""

import re
import shlex
from pathlib import Path

import pytest
from dpacc_accounting import Event, Ledger, read_federation
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli.documents import read_document
from dpacc.cli.main import COMMANDS
from tests.accounting.ledger.test_merging import PLAN, QUIET, STEP
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
    """No command is left out of the table or of the examples, here or under assurance."""
    elsewhere = {"attack", "audit", "doctor"}
    others = elsewhere | {"dashboard", "federate", "init", "report"}
    assert {words[0] for words in _commands()} == set(COMMANDS) - others
    assurance = (Path(__file__).parents[2] / "docs" / "assurance.md").read_text()
    assert set(re.findall(r"dpacc (\w+)", assurance)) >= elsewhere
    federated = (Path(__file__).parents[2] / "docs" / "federated.md").read_text()
    assert "$ dpacc federate tune" in federated
    dashboard = (Path(__file__).parents[2] / "docs" / "dashboard.md").read_text()
    assert "$ dpacc dashboard" in dashboard
    assert "$ dpacc init" in (Path(__file__).parents[2] / "docs" / "plan.md").read_text()
    assert set(re.findall(r"^\| `dpacc ([\w-]+)`", PAGE, flags=re.MULTILINE)) == set(COMMANDS)


def test_the_federations_on_the_page_name_every_field(folder: Path) -> None:
    """A reader of the page has seen every field that a federation may have."""
    from dpacc_accounting.federation import reading

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


def test_the_table_of_events_names_every_event_and_its_figures_are_priced() -> None:
    """No kind of event is left out, and the figures below the table are not below the price."""
    from dpacc_accounting import (
        Gaussian,
        PoissonSampled,
        RandomlyAllocated,
        Repeated,
        Selected,
        TruncatedPoissonSampled,
        epsilon,
    )
    from dpacc_accounting.events.documents import _KINDS

    names = {kind.__name__ for kind in _KINDS.values()} - {"Repeated", "Composed"}
    assert {name for name in names if f"`{name}`" not in PAGE} == set()

    def shown(event: Event, delta: float = 1e-5, method: str = "pld") -> str:
        price = epsilon(event=event, delta=delta, method=method).epsilon
        return rounded_up(price, digits=2)

    page = PAGE.replace("\n", " ")
    noisy = Gaussian(noise_multiplier=1.0)
    for most, words in (
        (40, "batch of 40 costs"),
        (16, "one of 16 costs"),
        (10, "one of 10 costs"),
    ):
        cut = TruncatedPoissonSampled(
            probability=0.01, largest_batch=most, dataset_size=1000, event=noisy
        )
        price = shown(Repeated(event=cut, times=300))
        assert re.search(rf"{words} (ε = )?{price}", page), (words, price)
    step = PoissonSampled(probability=0.01, event=noisy)
    assert f"cost ε = {shown(RandomlyAllocated(steps=100, event=noisy), 1e-6)} an epoch" in page
    assert f"sampling costs {shown(Repeated(event=step, times=100), 1e-6)}" in page
    run = Repeated(event=step, times=1000)
    chosen = [Selected(event=run, mean_runs=10, shape=shape) for shape in (0, 1)]
    tight, loose = ([shown(e, method=m) for e in chosen] for m in ("pld", "rdp"))
    assert f"each ε = {rounded_up(epsilon(event=run, delta=1e-5).epsilon, digits=3)} at" in page
    assert f"costs {tight[0]} with a logarithmic and {tight[1]} with a geometric" in page
    assert f"bounds are {loose[0]} and {loose[1]}." in page


def test_the_python_on_the_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Every Python block, in a namespace of its own, prints what it says."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "docs/accounting.md", "exec"), {})
        assert "(ε = 1.5, δ = 1e-05)-DP" in capsys.readouterr().out
