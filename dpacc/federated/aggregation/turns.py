"""Who may take part in a round: nobody again before `min_separation` rounds are over.

A round's participants are on the disk before its release is charged, in `took_part.jsonl` beside
the ledger: a line of the round's number, the nodes and the names that they gave. Whoever reads it
learns who took part when, so that it is the server's alone. Rounds are counted by the ledger, over
all restarts, a round that was charged and lost included.

A client is its node, which Flower gives to a registered key. A name that it gives decides nothing:
if it did, one that says another's would be in or out as that one is, and both together would move a
round by 2C. Where the server has a list of its clients, a node must say its own name, and that name
must have waited, too, so that a key that was changed shortens no wait. A node's first turn is due
in one of the first `min_separation` rounds, by its number, so that turns are spread; who was asked
and gave nothing is asked again in the next round. So a client's turns depend on itself alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import sync_file

from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.federated.aggregation.listed_clients import ListedClients


class Turns:
    """Whose turn it is in the next round that the ledger charges.

    Args:
        path: `took_part.jsonl`.
        separation: b: who took part in round t may again from round t + b on.
        charged: how many rounds the ledger holds.
        listed: who is who, if the server has a list.

    Raises:
        ConfigurationError: the file is damaged, lacks rounds that the ledger holds, or knows a node
            by another name than the list.
    """

    def __init__(
        self, *, path: Path, separation: int, charged: int, listed: ListedClients | None = None
    ) -> None:
        self._path = path
        self._separation = separation
        self._round = charged
        self._listed = listed
        self._last: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._joining: list[tuple[int, str]] = []
        covered = set()
        for number, nodes, names in self._lines():
            covered.add(number)
            self._note(number, nodes, names)
        missing = sorted({*range(charged)} - covered)
        if missing or max(covered, default=0) > charged:
            raise ConfigurationError(
                f"{path} and the ledger beside it do not belong together: the ledger holds "
                f"{charged} rounds, and the file {self._told(covered)}; a client could be asked "
                "again too soon. Restore both as they were last, or start a new federation in a "
                "folder of its own"
            )
        self._require_same_names()

    def is_due(self, node: int) -> bool:
        """Whether a node is to be asked in this round; one that is on no list never is."""
        if self._listed is not None and node not in self._listed.names:
            return False
        last = self._last_of(node)
        if last is None:
            return self._round >= node % self._separation
        return self._round - last >= self._separation

    def join(self, node: int, name: str) -> None:
        """Let a client's update into this round.

        Raises:
            ConfigurationError: it took part too few rounds before, or in this one, or says another
                name than its own.
        """
        self._require_own_name(node, name)
        last = self._last_of(node)
        if last is not None and self._round - last < self._separation:
            raise ConfigurationError(
                f"it took part {self._round - last} rounds before, and min_separation is "
                f"{self._separation}; its update is not used"
            )
        if any(node == other for other, _ in self._joining):
            raise ConfigurationError("it is in this round already; its second update is not used")
        self._joining.append((node, name))

    def keep(self, *, number: int, updates: int) -> None:
        """Write this round's participants to the disk; called before anything of it is released.

        Args:
            number: the round that is about to be charged.
            updates: how many updates are in its sum.

        Raises:
            PrivacyError: the round is another one, or an update's client was not let in.
        """
        if number != self._round or updates != len(self._joining):
            raise PrivacyError(
                f"round {number} with {updates} updates is to be released, and "
                f"{len(self._joining)} clients were let into round {self._round}; release nothing"
            )
        nodes = [node for node, _ in self._joining]
        names = [name for _, name in self._joining]
        self._write(json.dumps({"round": number, "nodes": nodes, "names": names}))
        self._note(number, nodes, names)
        self._joining = []
        self._round += 1

    def _last_of(self, node: int) -> int | None:
        """The round in which a client took part last, under this key or an earlier one."""
        name = None if self._listed is None else self._listed.names.get(node)
        known = [_of_node(node)] if name is None else [_of_node(node), _of_name(name)]
        return max((self._last[each] for each in known if each in self._last), default=None)

    def _require_own_name(self, node: int, name: str) -> None:
        """Refuse a name that is not the node's, by the list, or else by what it said before."""
        if self._listed is not None:
            self._listed.require(node, name)
        elif (before := self._names.get(node, name)) != name:
            raise ConfigurationError(
                f"node {node} says that it is {name}, and was {before} before; its update is not "
                "used"
            )

    def _require_same_names(self) -> None:
        """Refuse a list by which a node that took part was somebody else."""
        listed = {} if self._listed is None else self._listed.names
        for node, before in self._names.items():
            if listed.get(node, before) != before:
                raise ConfigurationError(
                    f"node {node} took part as {before} by {self._path}, and is {listed[node]} by "
                    "the list of clients, so who must wait is not known; mend the list, or start a "
                    "new federation in a folder of its own"
                )

    def _note(self, number: int, nodes: list[int], names: list[str]) -> None:
        self._names |= dict(zip(nodes, names, strict=True))
        for known in (*map(_of_node, nodes), *map(_of_name, names)):
            self._last[known] = number

    def _lines(self) -> Iterator[tuple[int, list[int], list[str]]]:
        """What the file says; a last line that a crash cut short was followed by no charge."""
        if not self._path.exists():
            return
        before = 0
        for at, line in enumerate(self._path.read_bytes().split(b"\n")[:-1], start=1):
            try:
                said: Any = json.loads(line)
                number, nodes, names = said["round"], said["nodes"], said["names"]
                if not (type(number) is int and number >= before and len(nodes) == len(names)):
                    raise ValueError("rounds out of order")
                before = number
                yield number, [int(node) for node in nodes], [str(name) for name in names]
            except (ValueError, KeyError, TypeError) as error:
                raise ConfigurationError(
                    f"{self._path}, line {at}, is damaged, so who must wait is not known; restore "
                    "the file as it was last, or start a new federation in a folder of its own"
                ) from error

    def _write(self, line: str) -> None:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            known = file.read()
            # A line that a crash has torn ends before this one.
            file.truncate(known.rfind(b"\n") + 1)
            file.seek(0, os.SEEK_END)
            file.write(line.encode() + b"\n")
            file.flush()
            sync_file(file.fileno())

    def _told(self, covered: set[int]) -> str:
        if not self._path.exists():
            return "is missing"
        return f"{len(covered)}, up to round {max(covered)}" if covered else "none"


def _of_node(node: int) -> str:
    return f"node {node}"


def _of_name(name: str) -> str:
    return f"name {name}"
