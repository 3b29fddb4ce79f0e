"""The tutorials run, each as the script that its page and its notebook are made of."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import matplotlib as mpl
import numpy as np
import pytest
from dpacc_accounting import epsilon, read_ledger
from dpacc_accounting.guarantee import rounded_up
from scipy import stats

from dpacc.artifacts.hub import PUBLISHED
from dpacc.cli.main import dpacc
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.superlink import superlink_arguments
from dpacc.federated.supernode import supernode_arguments
from tests.dpacc.federated.federations import WORDS, texts
from tests.tiny_models import save_tiny_llama

ROOT = Path(__file__).parents[1]
TUTORIALS = ROOT / "docs/tutorials"
_LETTERS = (TUTORIALS / "secure_aggregation.py").read_text()
LETTERS = re.findall(r"\w+", _LETTERS.partition("subjects = {")[2].partition("def write")[0])


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


def test_lora(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file to a report: the ε that it ends with is the ledger's, below its budget."""
    save_tiny_llama(tmp_path / "model", words=WORDS)
    texts(tmp_path / "train.jsonl", count=100)
    texts(tmp_path / "held_out.jsonl", count=3, seed=1)
    names = run("lora", MODEL=str(tmp_path / "model"), REVIEWS=str(tmp_path), RECORDS=100)
    printed = capsys.readouterr().out
    folder = names["folder"].resolve()
    ledger = read_ledger(path=folder / "ledger.jsonl")
    assert len(ledger.releases) == 8
    spent = epsilon(event=ledger.event, delta=1e-3)
    assert 7.99 < spent.epsilon <= 8.0
    assert names["course"][-1]["epsilon"] == pytest.approx(spent.epsilon)
    assert rounded_up(spent.epsilon, digits=6) in printed
    assert "ledger.jsonl" in printed.partition("README.md")[2]
    assert Path("report.pdf").read_bytes().startswith(b"%PDF")
    assert "config.yaml" not in PUBLISHED


def test_secure_aggregation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each clinic is known by its update and none by masked words, whose sum opens and is paid."""
    save_tiny_llama(tmp_path / "model", words=LETTERS)
    names = run("secure_aggregation", MODEL=str(tmp_path / "model"))
    printed = capsys.readouterr().out
    for kind in (("north", "hearts"), ("east", "lungs"), ("south", "bones")):
        assert "{}: the server believes it treats {}".format(*kind) in printed
    numbers = names["masked"].shape[1]
    assert np.abs(names["found_masked"]).max() < 6 / numbers**0.5
    assert stats.kstest(names["masked"].ravel() / 2**32, "uniform").pvalue > 1e-9
    assert names["history"].rounds[0].survivors == ("north", "east", "south")
    assert "sum:  23" in printed
    spent = epsilon(event=read_ledger(path="run/hidden/ledger.jsonl").event, delta=1e-5)
    assert spent.epsilon <= names["price"].server.epsilon < 1.1 * spent.epsilon
    assert f"{names['price'].server}" in printed


def lines_of(program: str, **known: str) -> list[list[str]]:
    """The words of every line that a page hands to `run` or `start`."""
    found = []
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("run", "start"):
            line = ast.Expression(node.args[-1])
            found.append(shlex.split(eval(compile(line, "line", "eval"), dict(known))))
    return found


def subcommand(words: list[str]) -> tuple[click.Command, list[str]]:
    """What `dpacc` runs, and with what."""
    command: click.Command = dpacc
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words[0])
        assert found is not None, words
        command, words = found, words[1:]
    return command, words


def test_production() -> None:
    """Its programs take every line of it, and its settings are whole; the page itself runs it."""
    program = (TUTORIALS / "production.py").read_text()
    told: dict[str, Any] = {"PORT": 8443, "APP": str(ROOT / "recipes/federation"), "MODEL": "base"}
    told |= {"name": "north", "port": 9094, "free_port": lambda: 9094, "Path": Path}
    for name in ("NEW", "LINK", "NODE"):
        (value,) = re.findall(rf"^{name} = (\(.*?\n\)|\".*?\")$", program, re.M | re.S)
        told[name] = eval(value, dict(told))
    lines = lines_of(program, **told)
    started = {words[2]: words[3:] for words in lines if words[0] == "python"}
    assert superlink_arguments(started["dpacc.federated.superlink"])[-1] == "server.key"
    folder, rest = supernode_arguments(started["dpacc.federated.supernode"])
    assert (folder / "client_app.py").is_file()
    assert rest[rest.index("--node-config") + 1] == "north.toml"
    for words in lines:
        if words[0] in ("openssl", "ssh-keygen"):
            subprocess.run(words, check=True, capture_output=True)
        elif words[0] == "dpacc":
            command, arguments = subcommand(words[1:])
            command.make_context(words[1], arguments, resilient_parsing=True)
        else:
            assert " ".join(words[:2]) in ("flwr supernode", "flwr run", f"python {words[1]}")
    assert Path("server.crt").read_text().startswith("-----BEGIN CERTIFICATE")
    assert Path("north.key.pub").is_file()
    link, clinic, run_of = (
        tomllib.loads(eval(f'f"""{text}"""', dict(told)))
        for text in re.findall(r'f"""(.*?)"""', program, re.S)
    )
    assert link["superlink"]["federation"]["address"] == "127.0.0.1:8443"
    assert read_config(NodeSettings, clinic).budget == "north.budget.jsonl"
    project = tomllib.loads((ROOT / "recipes/federation/pyproject.toml").read_text())
    shipped = project["tool"]["flwr"]["app"]["config"]
    assert set(run_of) <= set(shipped)
    assert read_config(RunSettings, shipped | run_of).rounds < clinic["most-rounds"]


def test_every_tutorial_is_in_the_menu_and_run_here() -> None:
    """Each has a place on the site, and a test of its name."""
    menu = (ROOT / "mkdocs.yml").read_text()
    written = sorted(path.stem for path in TUTORIALS.glob("*.py"))
    assert written
    for name in written:
        assert f"tutorials/{name}.py" in menu
        assert f"test_{name}" in globals()
