"""The same app under Flower's simulation: a node's number stands for its operator's file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.federated.deployment.node_client import require_readable
from dpacc.federated.deployment.simulated_nodes import own_config
from tests.dpacc.federated.deployment.shipped_app import run_config, shipped
from tests.dpacc.federated.federations import DELTA, node_settings, texts

NODE = """
client-id = "site-{{partition}}"
data-path = "{folder}/said-{{partition}}.jsonl"
folder = "{folder}/site-{{partition}}"
model = "{folder}/model"
task = "causal-lm"
max-length = 16
epsilon = 20.0
delta = {delta}
expected-batch-size = 4
most-rounds = 1
"""


def numbered(number: int) -> UserConfig:
    """What Flower's engine tells a node."""
    return {"partition-id": number, "num-partitions": 3}


def test_numbers_map_to_files(folder: Path) -> None:
    """Three simulated nodes train on three files, each on a ledger of its own."""
    (folder / "node.toml").write_text(NODE.format(folder=folder, delta=DELTA))
    for number in range(3):
        texts(folder / f"said-{number}.jsonl", seed=number)
    simulated: dict[str, Any] = {"simulated_node": str(folder / "node.toml")}
    config = run_config(folder, rounds=1, num_clients=3, **simulated)
    run = shipped(config, lambda node: numbered(node - 1))
    assert sorted(run.history.rounds[0].survivors) == ["site-0", "site-1", "site-2"]
    assert all((folder / f"site-{number}/ledger.jsonl").exists() for number in range(3))


def test_a_node_with_settings_of_its_own_reads_no_file_of_the_run(tmp_path: Path) -> None:
    """Numbers beside settings are no simulation either: what the run names is not opened."""
    own = node_settings(tmp_path, "north")
    run: UserConfig = {"simulated-node": str(tmp_path / "not-there.toml")}
    assert own_config(own, run) == own
    assert own_config(own | numbered(1), run) == own | numbered(1)


def test_a_deployed_node_is_never_a_number(tmp_path: Path) -> None:
    """Its own program asks for settings before it connects."""
    with pytest.raises(ConfigurationError, match="unknown setting partition_id"):
        require_readable(numbered(0))
    with pytest.raises(ConfigurationError, match="node 0 of a simulation has no settings"):
        own_config(numbered(0), {})
    with pytest.raises(ConfigurationError, match="cannot be read as TOML"):
        own_config(numbered(0), {"simulated-node": str(tmp_path)})
