"""The federation's recipe: private rounds, a ledger a client, and an honest comparison."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import yaml
from click.testing import CliRunner
from dpacc_accounting import read_ledger
from matplotlib.axes import Axes
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification

from dpacc.cli.main import dpacc
from dpacc.federated.server.held_out import HeldOut
from dpacc.layers.dynamic_rank import DrawnRanks
from tests.dpacc.artifacts.test_written_files import unknown_files
from tests.dpacc.federated.federations import classifier_folder, opinions
from tests.dpacc.layers.computed_activations import counted
from tests.recipes.training import refusal
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
CLIENTS = {"films-east": 20.0, "films-west": 50.0, "books": 20.0}


@pytest.fixture(scope="module")
def federate() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(ROOT / "recipes/federate.py")


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, three clients' files, two kinds of held-out text, and budgets."""
    folder = tmp_path_factory.mktemp("federation")
    classifier_folder(folder)
    (folder / "data").mkdir()
    for seed, name in enumerate([*CLIENTS, "held_out_films", "held_out_books"]):
        path = opinions(folder / f"data/{name}.jsonl", count=16, seed=seed)
        if name not in CLIENTS:  # a word more, so that no client has the same text
            path.write_text(path.read_text().replace('{"text": "', '{"text": "warm '))
    budgets = {
        "delta": 1e-3,
        "defaults": {"expected_batch_size": 8},
        "clients": {name: {"epsilon": epsilon} for name, epsilon in CLIENTS.items()},
    }
    (folder / "budgets.yaml").write_text(yaml.safe_dump(budgets))
    return folder


def arguments(material: Path, runs: Path, **changes: object) -> list[str]:
    settings: dict[str, object] = {
        "model": material / "classifier",
        "data": material / "data",
        "budgets": material / "budgets.yaml",
        "labels": "bad,good",
        "max_length": 16,
        "output_dir": runs,
        "rounds": 2,
        "lora_rank": 2,
        "lora_target_modules": "query,dense",
    }
    return [f"--{name}={value}" for name, value in {**settings, **changes}.items()]


def test_a_federation_may_have_one_rank_a_round(
    federate: ModuleType, material: Path, tmp_path: Path
) -> None:
    """With dylora A learns, too, in as many rows as the public seed draws for the round."""
    asked = {"lora_method": "dylora", "lora_rank": 4, "rounds": 1, "compare": False, "seed": 17}
    federate.main(arguments(material, tmp_path, **asked))
    trained = load_file(tmp_path / "federation/adapter/adapter_model.safetensors")
    upper = [values for name, values in trained.items() if "lora_B" in name]
    assert upper
    assert DrawnRanks(seed=17, largest=4).of(1) == 2
    for values in upper:
        assert (values[:, :2] != 0).all()
        assert not values[:, 2:].any()


def test_a_federation_is_compared_with_training_alone_and_pooled(
    federate: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each round is shown, each ledger keeps its client's ε, and `compose` prices the same; for
    all twelve models of it the base is read once and what lies beneath their adapters computed
    once, and the picture has each figure's error.
    """
    computed = counted(monkeypatch)
    reads, bars = [], []
    read, draw = AutoModelForSequenceClassification.from_pretrained, Axes.errorbar
    monkeypatch.setattr(
        AutoModelForSequenceClassification,
        "from_pretrained",
        lambda *given, **named: reads.append(given) or read(*given, **named),
    )
    monkeypatch.setattr(
        Axes,
        "errorbar",
        lambda *given, **named: bars.extend(named["yerr"]) or draw(*given, **named),
    )
    federate.main(arguments(material, tmp_path))
    assert len(reads) == 1
    assert all(computed[:3])
    assert computed[3:] == [0, 0, 0, 0]
    assert len(bars) == 3 + 2 * len(CLIENTS)
    assert max(bars) > 5.0  # points, of sixteen sentences a kind
    folder = tmp_path / "federation"
    out = capsys.readouterr().out
    assert "Round 2: 3 clients asked, 3 survived, 0 filtered" in out
    assert "guessing finds 50%" in out
    for name, epsilon in CLIENTS.items():
        for place in (folder / name, folder / "alone" / name / name):
            record = read_ledger(path=place / "ledger.jsonl")
            assert len(record.releases) == 4
            assert record.plan["target_epsilon"] == epsilon
        assert name in out
    pooled = read_ledger(path=folder / "pooled/everything/ledger.jsonl").plan
    assert (pooled["dataset_size"], pooled["target_epsilon"]) == (48, 20.0)
    assert pooled["expected_batch_size"] == 24
    assert (folder / "privacy_utility.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "adapter/adapter_model.safetensors").is_file()
    priced = CliRunner().invoke(dpacc, ["compose", str(folder / "rounds.yaml")])
    assert priced.exit_code == 0
    assert "films-west" in priced.output


def test_a_federation_that_brought_nothing_fails_and_keeps_its_books(
    federate: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every round is given up: exit code 2 with the reason; what was spent is in rounds.yaml."""
    found = iter([0.9, 0.1])
    monkeypatch.setattr(HeldOut, "__call__", lambda *_: {"films": next(found)})
    asked = arguments(material, tmp_path, compare="false", rounds=1, tolerated_drop=0.1)
    assert "fell from 0.9 to 0.1" in refusal(federate.main, asked, capsys)
    priced = CliRunner().invoke(dpacc, ["compose", str(tmp_path / "federation/rounds.yaml")])
    assert "films-west" in priced.output


def test_without_comparison_there_is_the_federation_alone(
    federate: ModuleType, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a defence may filter: nobody trains alone, nothing is drawn."""
    federate.main(
        arguments(material, tmp_path, compare="false", rounds=1, defence="median", attackers=1)
    )
    folder = tmp_path / "federation"
    assert {path.name for path in folder.iterdir()} == {
        *CLIENTS,
        "server",
        "adapter",
        "rounds.yaml",
        "history.json",
    }
    assert unknown_files(folder) == []
    assert folder.stat().st_mode & 0o077 == (folder / "rounds.yaml").stat().st_mode & 0o077 == 0
    shown = capsys.readouterr()
    assert "largest ε of a client" in shown.out
    assert "spent on its data" not in shown.err
    federate.main(arguments(material, tmp_path, compare="false", rounds=1))
    again = capsys.readouterr().err
    assert all(f"{name}: 1 ledger of earlier runs" in again for name in CLIENTS)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": "nowhere.yaml"}, "nowhere.yaml cannot be read"),
        ({"data": "nowhere"}, "nowhere has no books.jsonl"),
        ({"defence": "bulyan", "attackers": 1}, "7"),
        ({"rounds": 0}, "at least 1"),
        ({"round": 3}, "did you mean rounds?"),
    ],
)
def test_a_mistake_is_one_line(
    federate: ModuleType,
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, what is wrong, and no client has spent anything."""
    wrong = arguments(material, tmp_path, **changes)
    assert words in refusal(federate.main, wrong, capsys)
    assert not list(tmp_path.rglob("ledger.jsonl"))


def test_the_shipped_budgets_are_for_the_clients_that_are_fetched(federate: ModuleType) -> None:
    """Every client of the configuration has a file, and every file a client."""
    from dpacc.federated import read_budgets
    from dpacc.recipe.settings import read_settings

    path = ROOT / "recipes/configs/federation/sentiment.yaml"
    config = read_settings(kind=federate.FederationConfig, arguments=["--config", str(path)])
    budgets = read_budgets(path=ROOT / config.budgets)
    fetch = (ROOT / "recipes/fetch_federation.py").read_text()
    assert len(budgets) == 6
    assert all(f'"{name}"' in fetch for name in budgets)
    assert {federate.kind_of(name) for name in budgets} == {"movies", "products", "news", "tweets"}
