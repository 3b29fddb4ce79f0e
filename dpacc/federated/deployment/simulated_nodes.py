"""Nodes of Flower's simulation, which gives each a number where an operator would write a file.

One file stands for all nodes' own: `{partition}` in any of its texts becomes the node's number,
from 0. A node whose operator wrote settings is never simulated, so no run can name its file.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError

NUMBERED = frozenset({"partition-id", "num-partitions"})
"""All that a simulated node is told of itself."""


def own_config(node_config: UserConfig, run_config: UserConfig) -> UserConfig:
    """A node's own settings: as its operator wrote them, or a simulated one's, by its number.

    >>> own_config({"client-id": "north"}, {"simulated-node": "node.toml"})
    {'client-id': 'north'}

    Raises:
        ConfigurationError: a simulated node without a file, or one that cannot be read.
    """
    if set(node_config) != NUMBERED:
        return node_config
    number, path = node_config["partition-id"], str(run_config.get("simulated-node", "null"))
    if path == "null":
        raise ConfigurationError(
            f"node {number} of a simulation has no settings: name a file for all nodes, "
            'simulated-node = "node.toml", in which {partition} is a node\'s number'
        )
    try:
        written = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"simulated-node={path} cannot be read as TOML") from error
    return {
        name: value.replace("{partition}", str(number)) if isinstance(value, str) else value
        for name, value in written.items()
    }
