"""The benchmark's recipe: a table and two pages of what its cells found, and mistakes in a line."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from dpacc.federated.benchmark import suite
from dpacc.federated.benchmark.data_sets import NAMED
from dpacc.federated.benchmark.settings import BenchmarkConfig
from dpacc.recipe.settings import read_settings
from tests.dpacc.artifacts.test_written_files import unknown_files
from tests.dpacc.federated.benchmark.grids import told
from tests.recipes.training import refusal
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "recipes/configs/benchmark").glob("*.yaml"))


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(ROOT / "recipes/benchmark.py")


def arguments(folder: Path, **changes: object) -> list[str]:
    for name in ("mine", "held"):
        lines = [json.dumps({"text": f"{name} {n}", "who": str(n % 4)}) for n in range(12)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    settings: dict[str, object] = {
        "models": "some/model",
        "data_sets": folder / "mine.jsonl",
        "held_out": folder / "held.jsonl",
        "owner_field": "who",
        "epsilons": "1,8",
        "clients": "2,3",
        "output_dir": folder / "runs",
    }
    return [f"--{name}={value}" for name, value in {**settings, **changes}.items()]


def test_every_cell_is_in_the_table_and_on_both_pages(
    recipe: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two ε in one place, and of two numbers of clients alone and federated; and the notes."""
    noted = "ε of clients is qualified: some fact"

    def train(cell: Any, **_: Any) -> dict[str, Any]:
        found = told(cell)
        return found | {"guarantee": found["guarantee"] | {"qualified_by": [noted]}}

    monkeypatch.setattr(suite, "_train", train)
    recipe.main(arguments(tmp_path))
    shown = capsys.readouterr()
    assert shown.out.count("75.0% ± 2.0") == 10
    assert "δ = 0.001, add-or-remove, unit: example" in shown.out
    assert noted in shown.err
    folder = tmp_path / "runs/benchmark"
    page = (folder / "report.html").read_text()
    assert page.count("75.0% ± 2.0") == 10
    assert noted in page
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    assert unknown_files(folder) == []
    recipe.main(arguments(tmp_path))
    assert "10 cells, 10 of them known" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epsilons": "1,1"}, "must name each value once"),
        ({"epsilons": "one"}, "must be a list of numbers"),
        ({"clients": "0"}, "at least 1"),
        ({"aggregations": "krum"}, "aggregations"),
        ({"partition": "label"}, "do not say their label"),
        ({"clients": "5"}, "more than the 4 owners"),
        ({"model": "m"}, "did you mean models?"),
    ],
)
def test_a_mistake_is_one_line(
    recipe: ModuleType,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2, what is wrong, and nothing was trained."""
    assert words in refusal(recipe.main, arguments(tmp_path, **changes), capsys)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_are_read(path: Path) -> None:
    """And their first lines say how they are run."""
    config = read_settings(kind=BenchmarkConfig, arguments=["--config", str(path)])
    assert f"recipes/benchmark.py --config {path.relative_to(ROOT)}" in path.read_text()
    assert {*config.data_sets} <= {"sentences", "tweets", "shakespeare"}
    assert dataclasses.replace(config, workers=2) != config


def test_the_page_names_files_and_data_sets_that_there_are() -> None:
    """Each of its commands starts a recipe with a configuration that is there."""
    page = (ROOT / "docs/federated_benchmarks.md").read_text()
    (block,) = re.findall(r"```sh\n(.*?)```", page, flags=re.DOTALL)
    for line in block.splitlines():
        files = [word for word in line.split() if word.startswith("recipes/")]
        assert line.startswith("python recipes/")
        assert all((ROOT / name).is_file() for name in files)
    assert all(f"`{name}`" in page for name in NAMED)
