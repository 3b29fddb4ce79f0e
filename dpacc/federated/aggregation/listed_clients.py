"""Which client each node is, as whoever runs the server has it from the clients themselves."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dpacc_accounting.guarantee import Note

from dpacc.errors import ConfigurationError

UNLISTED = Note(
    "unlisted clients",
    "whoever holds a registered key counts as one client: a client that holds two takes part, and "
    "pays, as two would; the server had no list of its clients",
)
"""What a ledger says of turns that nothing but keys tells apart."""


@dataclass(frozen=True, kw_only=True)
class ListedClients:
    """The nodes that may take part, a name each; drawn up before any of them answers.

    A node's place in a round then hangs on this list and on itself, never on who else is there, and
    a name that is not its own gets it nothing.

    Args:
        names: by node, which is the number that Flower gives to a registered key.

    Raises:
        ConfigurationError: the list is empty, or holds a name twice.

    >>> listed = ListedClients(names={7: "north", 9: "south"})
    >>> listed.require(7, "north")
    >>> listed.require(9, "north")
    Traceback (most recent call last):
    ...
    dpacc.errors.ConfigurationError: node 9 says that it is north, and is south by the server's \
list; its update is not used
    """

    names: Mapping[int, str]

    def __post_init__(self) -> None:
        nodes: dict[str, int] = {}
        for node, name in self.names.items():
            if name in nodes:
                raise ConfigurationError(
                    f"nodes {nodes[name]} and {node} are both called {name}: who took part waits, "
                    "and is told apart by its name; give each client a name of its own"
                )
            nodes[name] = node
        if not nodes:
            raise ConfigurationError("the server's list of clients names none")

    def require(self, node: int, said: str) -> None:
        """Refuse a node that is on no list, or says another's name.

        Raises:
            ConfigurationError: naming it.
        """
        name = self.names.get(node)
        if name is None:
            raise ConfigurationError(
                f"node {node} is not on the server's list of clients; its update is not used"
            )
        if said != name:
            raise ConfigurationError(
                f"node {node} says that it is {said}, and is {name} by the server's list; its "
                "update is not used"
            )


def read_listed_clients(path: Path) -> ListedClients:
    """The list in a TOML file of lines `north = 4815162342`: a client's name and its node.

    Raises:
        ConfigurationError: it cannot be read, or a node is no number or there twice.
    """
    try:
        nodes = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"client_nodes={path} cannot be read: {error}") from error
    if wrong := [name for name, node in nodes.items() if type(node) is not int]:
        raise ConfigurationError(
            f"client_nodes={path}: {wrong[0]} has no number; write NAME = NODE, as "
            "`flwr supernode list` prints it"
        )
    names = {node: name for name, node in nodes.items()}
    if len(names) < len(nodes):
        raise ConfigurationError(f"client_nodes={path} gives one node two names")
    return ListedClients(names=names)
