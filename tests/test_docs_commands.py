"""Every page: its commands name what exists, with options that it takes, and its blocks are read.

Pages have tests of their own, which run what can be run. Here is the guard that no page, and no
line of one, was forgotten.
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PUBLIC = json.loads((ROOT / "tests/public_names.json").read_text())
TARGETS = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
_BLOCK = re.compile(r"^ *```(\w+)[^\n]*\n(.*?)^ *```$", flags=re.MULTILINE | re.DOTALL)
_SETTING = re.compile(r"--([a-z][\w-]*)")
_FIELDS = {
    node.target.id
    for folder in ("dpacc", "recipes")
    for path in (ROOT / folder).rglob("*.py")
    for kind in ast.walk(ast.parse(path.read_text()))
    if isinstance(kind, ast.ClassDef)
    for node in kind.body
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
}
"""What settings can be: fields of a recipe's configuration, wherever it is defined."""

ELSEWHERE = {
    *("cd", "chown", "mkdir", "head", "eval", "source", "docker", "kubectl", "openssl", "pip"),
    *("ssh-keygen", "cyclonedx-py", "flwr", "flower-superlink", "llama-cli", "llama-server"),
    "ollama",
}
"""Programs that are not ours; what they are given is read by the tests of their pages."""


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, block in _BLOCK.findall(page.read_text()):
        if language in languages:
            yield block


def commands(page: Path) -> Iterator[list[str]]:
    """The words of each command, without what is set for it and what becomes of its output."""
    for shell in ("sh", "console"):
        for block in blocks(page, shell):
            for line in block.replace("\\\n", " ").splitlines():
                if shell == "console" and not line.startswith("$ "):
                    continue  # what it prints
                line = re.sub(r" > \S+", "", line.removeprefix("$ "))
                for part in re.split(r" (?:&&|\|) ", line):
                    words = shlex.split(part, comments=True)
                    while words and (words[0] == "sudo" or re.match(r"\w+=", words[0])):
                        words = words[1:]
                    if words:
                        yield words


def complaint(words: Sequence[str]) -> str:
    """What a command asks for that is not there, or nothing."""
    program, *rest = words
    if program == "make":
        return "" if rest and rest[0] in TARGETS else f"no target of {words}"
    if program == "dpacc":
        return _of_dpacc(rest)
    scripts = [word for word in rest if word.endswith((".py", ".sbatch")) and "/" in word]
    if program in ("python", "accelerate", "sbatch"):
        if "-m" in rest:
            return _of_module(rest[rest.index("-m") + 1])
        return _of_script(scripts[0], rest) if scripts else f"nothing is started by {words}"
    if program.startswith("./"):
        return "" if (ROOT / "deploy" / program).is_file() else f"no {program}"
    return "" if program in ELSEWHERE else f"unknown program {program}"


def _of_dpacc(words: Sequence[str]) -> str:
    known = PUBLIC["commands"]
    name = next((n for n in (" ".join(words[:2]), *words[:1]) if n in known), None)
    if name is None:
        return "" if words in ([], ["--help"]) else f"no command dpacc {words}"
    words = words[: words.index("--")] if "--" in words else words  # what follows is a script's
    asked = [word.split("=")[0] for word in words if word.startswith("--")]
    missing = [each for each in asked if each not in (*known[name], "--help", "--json")]
    if name in ("plan", "init"):  # of a run, by the run's own settings
        missing = [each for each in missing if each[2:] not in _FIELDS]
    recipe = f"recipes/{name}.py"
    return _of_script(recipe, missing) if (ROOT / recipe).exists() else " ".join(missing)


def _of_module(name: str) -> str:
    path = ROOT / name.replace(".", "/")
    there = path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    return "" if there or name == "pytest" else f"no module {name}"


def _of_script(script: str, words: Sequence[str]) -> str:
    """Its file, the configurations it names, and each setting, by config or in its own source."""
    if not (ROOT / script).is_file():
        return f"no {script}"
    source = (ROOT / script).read_text()
    start = words.index(script) + 1 if script in words else 0
    for word, value in pairwise(words):
        is_file = word in ("--config", "--config_file") and "/" in value
        if is_file and not (ROOT / value).is_file():
            return f"no {value}"
    for word in words[start:]:
        named = _SETTING.match(word)
        if named and not {named[1].replace("-", "_"), named[1]} & _FIELDS and word not in source:
            return f"{script} takes no {word}"
    return ""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_block_of_a_page_is_read(page: Path) -> None:
    """Commands name what exists; programs and settings are of their language."""
    assert [said for words in commands(page) if (said := complaint(words))] == []
    for block in blocks(page, "python"):
        ast.parse(block)
    for block in blocks(page, "yaml"):
        list(yaml.safe_load_all(block))
    for block in blocks(page, "toml"):
        tomllib.loads(block)
    for block in blocks(page, "json"):
        json.loads(block)


def test_there_is_much_to_read() -> None:
    """Most pages show commands, and no block is of a language that nothing above reads."""
    shown = {page.name: list(commands(page)) for page in PAGES}
    assert sum(map(len, shown.values())) > 100
    assert {"README.md", "CONTRIBUTING.md", "multi_gpu.md", "benchmarks.md"} <= {
        name for name, found in shown.items() if found
    }
    languages = {name for page in PAGES for name, _ in _BLOCK.findall(page.read_text())}
    assert languages == {"sh", "console", "python", "yaml", "toml", "json", "text", "bibtex"}


@pytest.mark.parametrize(
    "line",
    [
        "make everything",
        "dpacc no-such-command",
        "dpacc calibrate --no-such-option 3",
        "python recipes/no_such_recipe.py",
        "python recipes/train.py --no_such_setting 3",
        "python recipes/train.py --config recipes/configs/none.yaml",
        "accelerate launch --config_file launch_configs/none.yaml recipes/train.py",
        "python -m dpacc.no_such_module",
        "./no_such_script.sh",
        "no-such-program",
    ],
)
def test_what_is_not_there_is_found(line: str) -> None:
    """Each kind of command can be wrong, and is told."""
    assert complaint(shlex.split(line))
