"""A whole benchmark on a tiny model: trained, killed, gone on with, and reported."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpacc.cli.report.any_kind import report_on
from dpacc.errors import ConfigurationError
from dpacc.federated.benchmark import suite
from dpacc.federated.benchmark.kept_cells import CELLS
from dpacc.federated.benchmark.suite import FederatedBenchmark
from tests.dpacc.federated.benchmark.grids import grid, told, told_by_a_process
from tests.dpacc.federated.federations import WORDS, classifier_folder, opinions, texts
from tests.tiny_models import save_tiny_llama

KILLED = """
import os, signal, sys
from dpacc.federated.benchmark import suite
from tests.dpacc.federated.benchmark.grids import grid, told, told_by_a_process

def train(cell, *, config, scratch):
    if cell.way == "federated":
        os.kill(os.getpid(), signal.SIGKILL)
    return told(cell)

suite._train = train
suite.FederatedBenchmark(config=grid(sys.argv[1])).run()
"""


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT, texts of six owners to learn, and others to measure on."""
    folder = tmp_path_factory.mktemp("benchmark")
    classifier_folder(folder)
    for seed, (name, count) in enumerate({"mine": 48, "held": 24}.items()):
        path = opinions(folder / f"{name}.jsonl", count=count, seed=seed)
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        owned = [json.dumps({**line, "owner": f"o{n % 6}"}) for n, line in enumerate(lines)]
        path.write_text("\n".join(owned))
    return folder


def test_three_ways_are_trained_by_real_clients_and_reported(
    material: Path, tmp_path: Path
) -> None:
    """ε is that of the ledgers, for owners; a page, a PDF and `dpacc report` show every cell."""
    benchmark = FederatedBenchmark(config=grid(material, unit="owner", output_dir=str(tmp_path)))
    seen: list[str] = []
    results = benchmark.run(on_cell=lambda cell, _: seen.append(cell.way))
    assert seen == ["central", "local", "federated"]
    for found in results:
        stated = found["guarantee"]
        assert 0 < stated["epsilon"] <= 20.0
        assert (stated["unit"], stated["adjacency"]) == ("owner", "add-or-remove")
        assert 0 <= found["quality"] <= 1
        assert found["error"] < 0.2
    assert len(results[2]["rounds"]) == 1
    assert not list(benchmark.folder.rglob("ledger.jsonl"))
    page, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    document = benchmark.generate_report(html=page, pdf=pdf)
    assert document.verdict.standing == "unclaimed"
    assert "unit: owner" in page.read_text()
    assert pdf.read_bytes().startswith(b"%PDF")
    assert page.read_text().count("data:image/svg+xml") == 2
    assert "3 cells" in report_on(paths=[benchmark.folder]).subtitle


def test_texts_are_modelled_by_rules_with_adapters_of_their_own(tmp_path: Path) -> None:
    """Perplexity of a causal model; under `fedex` both factors are trained, under `ffa` one."""
    save_tiny_llama(tmp_path / "model", words=WORDS)
    for seed, name in enumerate(("mine", "held")):
        texts(tmp_path / f"{name}.jsonl", count=12, seed=seed)
    config = grid(
        tmp_path,
        models=(f"{tmp_path}/model",),
        labels=None,
        owner_field=None,
        partition="quantity",
        alpha=5.0,
        aggregations=("ffa", "fedex"),
        baselines=(),
        lora_target_modules=("q_proj", "v_proj"),
    )
    ffa, fedex = FederatedBenchmark(config=config).run()
    for found in (ffa, fedex):
        assert found["metric"] == "perplexity"
        assert 1 < found["quality"] < 200
        assert 0 < found["error"] < found["quality"]
    assert fedex["bytes_received"] > ffa["bytes_received"]


def test_a_killed_benchmark_goes_on(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a process trained before it was killed is not trained again; the rest is."""
    runs = Path(tmp_path / "material")
    runs.symlink_to(material)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sys.path))}
    done = subprocess.run([sys.executable, str(script), str(runs)], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    trained: list[str] = []

    def train(cell: Any, **_: Any) -> dict[str, Any]:
        trained.append(cell.way)
        return told(cell)

    monkeypatch.setattr(suite, "_train", train)
    again = FederatedBenchmark(config=grid(runs))
    assert [each["cell"]["way"] for each in again.results] == ["central", "local"]
    assert len(again.run()) == 3
    assert trained == ["federated"]
    longer = FederatedBenchmark(config=grid(runs, epsilons=(20.0, 30.0)))
    assert len(longer.run()) == 6
    assert len(trained) == 4
    assert (longer.folder / CELLS).read_text().count("\n") == 6


def test_cells_are_trained_side_by_side(
    material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By processes of their own; each result is kept by the process that asked, once."""
    monkeypatch.setattr(suite, "_train", told_by_a_process)
    # Another test may have put a script in its place, which each process would begin with.
    monkeypatch.setitem(sys.modules, "__main__", ModuleType("__main__"))
    config = grid(material, workers=2, epsilons=(1.0, 2.0), output_dir=str(tmp_path))
    results = FederatedBenchmark(config=config).run()
    assert len(results) == 6
    trainers = {each["process"] for each in results}
    assert os.getpid() not in trainers
    assert (tmp_path / "benchmark" / CELLS).read_text().count("\n") == 6


def test_activations_are_those_beneath_one_adapter_of_one_base() -> None:
    """Known again in the next cell, and forgotten where base, data or depth is another."""
    known = suite._activations("base", "data", 1)
    assert suite._activations("base", "data", 1) is known
    for other in (("base", "data", 2), ("base", "others", 1), ("changed", "data", 1)):
        assert suite._activations(*other) is not known
        known = suite._activations("base", "data", 1)


def test_an_owner_at_two_clients_is_refused_as_a_unit(material: Path) -> None:
    """For each ledger tells of its own client alone."""
    with pytest.raises(ConfigurationError, match="at two clients would lose more"):
        grid(material, unit="owner", partition="quantity")


def test_what_cannot_be_dealt_is_told_before_anything_is_trained(material: Path) -> None:
    """Seven clients and six owners."""
    with pytest.raises(ConfigurationError, match="more than the 6 owners"):
        FederatedBenchmark(config=grid(material, clients=(2, 7)))
