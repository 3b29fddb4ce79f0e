"""The tutorials run, each as the script that its page and its notebook are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs/tutorials"


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In a folder of its own, drawing on no screen."""
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    with mpl.rc_context({"backend": "Agg"}):
        yield
        pyplot.close("all")


def run(name: str, **changed: object) -> dict[str, Any]:
    """What a tutorial leaves behind, with other values at the names that it assigns once."""
    program = (TUTORIALS / f"{name}.py").read_text()
    for variable, value in changed.items():
        assigned = re.compile(rf"^{variable} = .*$", re.MULTILINE)
        assert len(assigned.findall(program)) == 1, variable
        program = assigned.sub(lambda _, line=f"{variable} = {value!r}": line, program)
    names: dict[str, Any] = {}
    exec(compile(program, f"{name}.py", "exec"), names)
    return names


def test_differential_privacy(capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints are its plan's and its federations' guarantees, and learning worked."""
    names = run("differential_privacy")
    printed = capsys.readouterr().out
    assert f"{names['plan'].guarantee} by Poisson sampling" in printed
    assert 0.999 < names["plan"].guarantee.epsilon <= 1.0
    assert "the server:              (ε = inf" in printed
    assert names["share_right"](names["private"]) > 0.9
    assert all(a < b for a, b in zip(names["hidden"], names["seen"], strict=True))
    assert names["exact"][-1] < 0.2 * 100 * names["exact"][0]


def test_every_tutorial_is_in_the_menu_and_run_here() -> None:
    """Each has a place on the site, and a test of its name."""
    menu = (ROOT / "mkdocs.yml").read_text()
    written = sorted(path.stem for path in TUTORIALS.glob("*.py"))
    assert written
    for name in written:
        assert f"tutorials/{name}.py" in menu
        assert f"test_{name}" in globals()
