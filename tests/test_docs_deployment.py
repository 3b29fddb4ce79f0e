"""docs/deployment.md: its commands name what exists, and settings that programs take."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import yaml

from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import given_settings

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/deployment.md").read_text()
_BLOCKS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [
    shlex.split(line)
    for block in _BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip()
]


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def documents() -> list[dict[str, Any]]:
    paths = (ROOT / "deploy/kubernetes").rglob("*.yaml")
    return [each for path in paths for each in yaml.safe_load_all(path.read_text())]


def test_every_image_that_is_built_is_a_target() -> None:
    """By the name under which compose and manifests start it."""
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    builds = [words for words in COMMANDS if words[:2] == ["docker", "build"]]
    assert len(builds) == 3
    for words in builds:
        target = option(words, "--target")
        assert f" AS {target}\n" in dockerfile
        assert option(words, "--tag") == f"dpacc-{target}"
        assert (ROOT / option(words, "--file")).is_file()


def test_training_in_a_container_is_given_settings_that_it_takes() -> None:
    """Those that a container may be started again with."""
    (words,) = [words for words in COMMANDS if words[:2] == ["docker", "run"]]
    told = words[words.index("dpacc-train") + 1 :]
    assert told[:2] == ["--config", "/data/train.yaml"]
    found = given_settings(kind=TrainingConfig, arguments=told[2:])
    assert found == {"resume": "auto", "checkpoint_every": 50}


def test_compose_services_and_scripts_that_are_called_exist() -> None:
    """And what is registered is what make_keys.sh writes for the clients that are started."""
    services = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"]
    for words in COMMANDS:
        if words[:3] == ["docker", "compose", "exec"]:
            assert words[3] in services
    registered = [words[-2] for words in COMMANDS if "register" in words and words[0] == "docker"]
    assert registered == [f"/registered/{name}.pub" for name in services if name != "server"]
    (made,) = [words for words in COMMANDS if words[0] == "./make_keys.sh"]
    assert {*made[3:], "server"} == {*services}
    assert (ROOT / "deploy/make_keys.sh").stat().st_mode & 0o100


def test_secrets_have_the_names_and_keys_that_the_manifests_mount() -> None:
    """Each object that a pod needs and no manifest holds is made by a command here."""
    made = {words[words.index(kind) + 1 + (kind == "secret")]: words for words in COMMANDS
            for kind in ("secret", "configmap") if kind in words}  # fmt: skip
    pods = [each for each in documents() if "template" in each.get("spec", {})]
    volumes = [v for each in pods for v in each["spec"]["template"]["spec"].get("volumes", [])]
    secrets = {v["secret"]["secretName"] for v in volumes if "secret" in v}
    maps = {v["configMap"]["name"] for v in volumes if "configMap" in v}
    assert secrets <= set(made)
    assert maps - set(made) == {"train-settings"}
    assert "`train-settings`" in PAGE
    clients = [word for word in made["client-keys"] if word.startswith("client-")]
    names = {word.partition("=")[0] for word in clients} - {"client-keys"}
    (replicas,) = [e["spec"]["replicas"] for e in pods if e["kind"] == "StatefulSet"]
    assert names == {f"client-{n}.{kind}" for n in range(replicas) for kind in ("key", "toml")}
    for words in COMMANDS:
        if "--kustomize" in words:
            assert (ROOT / option(words, "--kustomize") / "kustomization.yaml").is_file()


def test_every_file_on_the_page_exists() -> None:
    """Those of the project."""
    named = set(re.findall(r"\b((?:deploy|benchmarks)/[\w./]+\.\w+)", PAGE))
    assert named
    assert {name for name in named if not (ROOT / name).exists()} == set()
