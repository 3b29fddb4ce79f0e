"""Writing that can be stopped anywhere: each batch is on the disk before the next begins.

Which requests a batch holds follows from what came of those before it, and what it draws from its
number; so a call that goes on writes what one that was never stopped writes.
"""

from __future__ import annotations

import json
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from dpacc_accounting.ledger.disk import sync_file

from dpacc.artifacts.synthetic.records import line_of
from dpacc.errors import ConfigurationError, disk_refusals_told

Outcome = dict[str, Any] | str


class BatchFile:
    """What has been written, and what is to be written next.

    A record that is dropped is asked for again, behind all others, until it was tried `tries`
    times.

    Args:
        path: of the file that is kept meanwhile; one that is there is gone on with.
        made_from: all that the records follow from; the file must have been begun with the same.
        records: how many are asked for.
        tries: how often each at most.

    Raises:
        ConfigurationError: the file was begun with something else, or is damaged.
        DpaccError: it cannot be written.
    """

    def __init__(
        self, *, path: Path, made_from: Mapping[str, Any], records: int, tries: int
    ) -> None:
        self.path = path
        self.batches = 0
        self.dropped: Counter[str] = Counter()
        self.given_up = 0
        self._tries = tries
        self._tried: Counter[int] = Counter()
        self._waiting = deque(range(records))
        self._kept: dict[int, dict[str, Any]] = {}
        self._seen: set[str] = set()
        opening = json.dumps({"made_from": made_from}, sort_keys=True, default=str)
        try:
            for line in self._begun(opening):
                self._take(json.loads(line))
        except (UnicodeDecodeError, json.JSONDecodeError, TypeError, IndexError) as error:
            raise ConfigurationError(f"{path} is damaged: remove it to begin anew") from error

    @property
    def kept(self) -> int:
        """How many records there are."""
        return len(self._kept)

    def records(self) -> list[dict[str, Any]]:
        """The records in the order in which they were asked for, without those that are missing."""
        return [self._kept[at] for at in sorted(self._kept)]

    def next_batch(self, size: int) -> list[int]:
        """The places of the requests that are next; none when all is written or given up."""
        return [*islice(self._waiting, size)]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take what came of the next batch, in its order, once that is on the disk."""
        line = json.dumps(outcomes, ensure_ascii=False)
        self._append(line)
        self._take(outcomes)

    def _take(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            place = self._waiting.popleft()
            self._tried[place] += 1
            reason = self._reason(outcome)
            if reason is None:
                assert isinstance(outcome, dict)
                self._kept[place] = outcome
                self._seen.add(line_of(outcome))
                continue
            self.dropped[reason] += 1
            if self._tried[place] < self._tries:
                self._waiting.append(place)
            else:
                self.given_up += 1
        self.batches += 1

    def _reason(self, outcome: Outcome) -> str | None:
        """Why a record is dropped; duplicates are sought among synthetic records alone."""
        if isinstance(outcome, str):
            return outcome
        return "duplicated" if line_of(outcome) in self._seen else None

    def _begun(self, opening: str) -> list[str]:
        """What an earlier call left, whole lines alone; a new file begins with `opening`."""
        with disk_refusals_told(self.path):
            old = self.path.read_bytes() if self.path.exists() else b""
            whole = old[: old.rfind(b"\n") + 1]
            if not whole:
                self.path.write_bytes(b"")
                self._append(opening)
                return []
            # Not at other ends of lines, which a text may hold.
            first, *lines = whole.decode().removesuffix("\n").split("\n")
            if first != opening:
                raise ConfigurationError(
                    f"{self.path} was begun with other settings, prompts or another adapter: give "
                    "the same to go on with it, or remove it to begin anew"
                )
            os.truncate(self.path, len(whole))
            return lines

    def _append(self, line: str) -> None:
        with disk_refusals_told(self.path), self.path.open("ab") as file:
            file.write(f"{line}\n".encode())
            file.flush()
            sync_file(file.fileno())
