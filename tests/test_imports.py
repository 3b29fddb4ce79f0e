"""Imports point one way, never in circles, and planning never loads the training stack."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    "dpacc_accounting": ROOT / "accounting/src/dpacc_accounting",
    "dpacc": ROOT / "dpacc",
    "recipes": ROOT / "recipes",
}
TRAINING = {"torch", "transformers", "accelerate", "peft", "bitsandbytes", "datasets"}
HEAVY = TRAINING | {"dp_accounting", "matplotlib"}
PLANNING = ("plan", "errors", "data.privacy_units", "randomness.sampling", "recipe.config", "cli")
WITHOUT_TORCH = (
    "dpacc_accounting, dpacc, dpacc.cli.main, dpacc.plan, "
    "dpacc.randomness.sampling, dpacc.recipe.config, "
    "dpacc.artifacts.run_folder, dpacc.artifacts.earlier_runs, "
    "dpacc.federated.benchmark.suite, dpacc.federated.monitoring"
)

ASK_DP_ACCOUNTING = ("dpacc_accounting.events.conversion", "dpacc.cli.report.agreement")

Imports = Mapping[str, set[str]]


def read_imports(
    sources: Mapping[str, Path], *, for_the_type_checker: bool = False
) -> dict[str, set[str]]:
    """For each module, the dotted names that it imports when it runs, in or out of functions.

    Args:
        sources: packages and their folders.
        for_the_type_checker: whether what is imported for it alone counts, too.
    """
    files = {
        _module_name(package, folder, file): file
        for package, folder in sources.items()
        for file in sorted(folder.rglob("*.py"))
    }
    found = {
        name: _imported(ast.parse(file.read_text()), for_the_type_checker)
        for name, file in files.items()
    }
    return {
        name: {_resolve(each, files) for each in names} - {name} for name, names in found.items()
    }


def _module_name(package: str, folder: Path, file: Path) -> str:
    parts = file.relative_to(folder).with_suffix("").parts
    return ".".join((package, *(part for part in parts if part != "__init__")))


def _imported(node: ast.AST, for_the_type_checker: bool) -> Iterator[str]:
    match node:
        case ast.If(test=ast.Name(id="TYPE_CHECKING"), orelse=alternative) if (
            not for_the_type_checker
        ):
            for child in alternative:
                yield from _imported(child, for_the_type_checker)
        case ast.Import(names=names):
            yield from (each.name for each in names)
        case ast.ImportFrom(module=module, names=names, level=level):
            assert module is not None, "write imports in full, so that readers can follow them"
            assert level == 0, "write imports in full, so that readers can follow them"
            yield from (f"{module}.{each.name}" for each in names)
        case _:
            for child in ast.iter_child_nodes(node):
                yield from _imported(child, for_the_type_checker)


def _resolve(name: str, files: Mapping[str, Path]) -> str:
    owner = name.rpartition(".")[0]
    return owner if name not in files and owner in files else name


def violations(imports: Imports) -> list[str]:
    """Every import that points the wrong way, as `importer -> imported`."""
    return sorted(
        f"{importer} -> {imported}"
        for importer, names in imports.items()
        for imported in names
        if _is_wrong(importer, imported)
    )


def _is_wrong(importer: str, imported: str) -> bool:
    home, _, room = importer.partition(".")
    target = imported.partition(".")[0]
    if target == "recipes":
        return True
    # Conversions to its events, and the second opinion, load dp-accounting inside their functions.
    if importer in ASK_DP_ACCOUNTING and target == "dp_accounting":
        return False
    if home == "dpacc_accounting":
        return target in HEAVY | {"dpacc", "click", "rich", "yaml"}
    if home == "dpacc":
        shows = target == "rich" and importer != "dpacc.cli.terminal"
        plans = any(f"{room}.".startswith(f"{each}.") for each in PLANNING)
        return shows or (plans and target in HEAVY)
    return False


def circle(imports: Imports) -> list[str]:
    """A chain of modules that import each other in a circle, or nothing."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def forbidden_after(code: str, *, path: Path | None = None) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after running `code`."""
    report = f"{code}\nimport sys; print(*sorted({HEAVY!r} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", report], cwd=path, check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


@pytest.fixture(scope="module")
def imports() -> Imports:
    """What the three packages really import."""
    return read_imports(SOURCES)


def test_there_is_something_to_guard(imports: Imports) -> None:
    """The modules that the rules are about exist and were found, with imports in them."""
    found = imports.keys()
    assert {"dpacc_accounting.ledger.writer", "dpacc.plan", "dpacc.cli.terminal"} <= found
    assert {"dpacc.randomness.sampling", "dpacc.step.engine", "dpacc.cli.main"} <= found
    assert "dpacc_accounting.ledger.record" in imports["dpacc_accounting.ledger.writer"]
    assert "dpacc.cli.terminal" in imports["dpacc.cli.commands.calibrate"]
    assert "torch" in imports["dpacc.step.engine"]
    assert any(name.startswith("rich.") for name in imports["dpacc.cli.terminal"])
    assert any(name.startswith("recipes.") for name in found)


def test_imports_point_one_way(imports: Imports) -> None:
    """recipes -> dpacc -> dpacc_accounting; one file talks to rich; planning needs no torch."""
    assert violations(imports) == []


def test_no_circles(imports: Imports) -> None:
    """The modules can be read in an order in which each relies on earlier ones only."""
    assert circle(imports) == []


@pytest.mark.parametrize(
    ("file", "line", "violation"),
    [
        (
            "dpacc_accounting/ledger/writer.py",
            "import dpacc",
            "dpacc_accounting.ledger.writer -> dpacc",
        ),
        (
            "dpacc_accounting/renyi/sampled_gaussian.py",
            "from torch import nn",
            "dpacc_accounting.renyi.sampled_gaussian -> torch.nn",
        ),
        (
            "dpacc_accounting/pricing/certified_bounds.py",
            "import dp_accounting",
            "dpacc_accounting.pricing.certified_bounds -> dp_accounting",
        ),
        (
            "dpacc/randomness/gaussian_noise.py",
            "from rich import print",
            "dpacc.randomness.gaussian_noise -> rich.print",
        ),
        ("dpacc/plan.py", "def f():\n    import torch", "dpacc.plan -> torch"),
        (
            "dpacc/cli/commands/spend.py",
            "from torch.nn import Linear",
            "dpacc.cli.commands.spend -> torch.nn.Linear",
        ),
        (
            "dpacc/step/engine.py",
            "from recipes.train import main",
            "dpacc.step.engine -> recipes.train",
        ),
    ],
)
def test_the_guard_can_fail(tmp_path: Path, file: str, line: str, violation: str) -> None:
    """Each rule finds a violation planted in otherwise clean packages."""
    planted = {package: tmp_path / package for package in SOURCES}
    for each in ("dpacc/cli/terminal.py", "recipes/train.py", file):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).write_text("import rich\nfrom dpacc.recipe.config import load\n")
    (tmp_path / file).write_text("import json\n")
    assert violations(read_imports(planted)) == []
    (tmp_path / file).write_text(f"import json\n{line}\n")
    assert violations(read_imports(planted)) == [violation]


def test_the_circle_guard_can_fail(tmp_path: Path) -> None:
    """A circle through a function's import is found; one for the type checker alone is none."""
    loop = {
        "a": "from loop import b",
        "b": "def f():\n    from loop.c import x",
        "c": "import loop.a",
    }
    for name, code in loop.items():
        (tmp_path / f"{name}.py").write_text(code)
    assert set(circle(read_imports({"loop": tmp_path}))) == {"loop.a", "loop.b", "loop.c"}
    (tmp_path / "c.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import loop.a"
    )
    assert circle(read_imports({"loop": tmp_path})) == []


def test_planning_loads_no_training_stack() -> None:
    """Accountant, command line, plan, and what compares runs or writes files load no torch, nor
    its friends.
    """
    files = (ROOT / "dpacc/cli").rglob("*.py")
    rooms = sorted(".".join(each.relative_to(ROOT).with_suffix("").parts) for each in files)
    assert {"dpacc.cli.commands.calibrate", "dpacc.cli.terminal"} <= {*rooms}
    commands = "\n".join(f"import {each.removesuffix('.__init__')}" for each in rooms)
    everything = "for name in dpacc_accounting.__all__: getattr(dpacc_accounting, name)"
    assert forbidden_after(f"import {WITHOUT_TORCH}\n{commands}\n{everything}") == set()


def test_the_loading_guard_can_fail(tmp_path: Path) -> None:
    """A module that imports torch, however deep, is caught by the same check."""
    (tmp_path / "torch.py").write_text("")
    (tmp_path / "outer.py").write_text("import inner")
    (tmp_path / "inner.py").write_text("import json, torch")
    assert forbidden_after(f"import {WITHOUT_TORCH}, outer", path=tmp_path) == {"torch"}
