"""Secure sums without a model: clients that give what they were made to give."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.secure_sum.fixed_point import Words
from dpacc.federated.secure_sum.keys import add_pair_mask, mask, pair_key, self_key
from dpacc.federated.secure_sum.messages import KEYS, OPEN, RECORD, SHARES
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shamir import combined
from dpacc.federated.secure_sum.shared_noise import SharedNoiseLedger
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.history import History, RoundReport
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.secure_sum_strategy import SecureFederatedLoRA
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import Arrays, flat, to_record

WIDTH = 37
STAGES = (f"query.{KEYS}", f"query.{SHARES}", "train", f"query.{OPEN}")


class Fixed:
    """Moves the adapter by what it was told, and counts how often it was asked."""

    def __init__(self, client_id: str, moved: np.ndarray) -> None:
        self.client_id = client_id
        self._place = tempfile.TemporaryDirectory()
        self.folder = Path(self._place.name)
        self.moved = moved
        self.asked = 0
        self.config: dict[str, Any] = {}

    def answer(self, message: Message) -> Message:
        self.asked += 1
        self.config = dict(message.content.config_records["config"])
        start = message.content.array_records["arrays"]["B"].numpy()
        update = {"B": (start + self.moved).astype(np.float32)}
        named = ConfigRecord({"client": self.client_id})
        return Message(RecordDict({"arrays": to_record(update), "config": named}), reply_to=message)


class LossyGrid(LocalGrid):
    """Loses what some nodes say, from a stage on; keeps every message."""

    def __init__(self, apps: Mapping[int, ClientApp], *, lost: Mapping[str, Iterable[int]]) -> None:
        super().__init__(apps)
        self._lost = {stage: set(nodes) for stage, nodes in lost.items()}
        self._gone: set[int] = set()
        self.seen: list[tuple[str, int, Message]] = []
        self.late: list[tuple[str, int, Message]] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        sent = list(messages)
        replies = list(super().send_and_receive(sent, timeout=timeout))
        stage = sent[0].metadata.message_type if sent else ""
        self._gone |= self._lost.get(stage, set())
        for each in replies:
            node = each.metadata.src_node_id
            (self.late if node in self._gone else self.seen).append((stage, node, each))
        return [each for each in replies if each.metadata.src_node_id not in self._gone]


class Federation:
    """A server's strategy and its clients, one round at a time."""

    def __init__(
        self,
        updates: Sequence[np.ndarray],
        settings: SecureSum,
        *,
        lost: Mapping[str, Iterable[int]] | None = None,
        privacy: ClientPrivacy | None = None,
        ledger: SharedNoiseLedger | None = None,
        folder: Path | None = None,
        compression: Compression | None = None,
        **client: Any,
    ) -> None:
        self.fixed = [Fixed(f"site-{n}", update) for n, update in enumerate(updates, start=1)]
        self.clients = [
            SecureClient(
                client=each,
                secure_sum=settings,
                privacy=privacy,
                folder=None if folder is None else folder / each.client_id,
                **client,
            )
            for each in self.fixed
        ]
        apps = {n: each.app for n, each in enumerate(self.clients, start=1)}
        self.grid = LossyGrid(apps, lost=lost or {})
        self.history = History()
        self.start: Arrays = {"B": np.zeros(len(updates[0]), np.float32)}
        self.settings = settings
        self.asking = {} if compression is None else {"compression": compression.words}
        self.level = "example" if privacy is None else "client"
        self.strategy = SecureFederatedLoRA(
            secure_sum=settings,
            privacy=privacy,
            ledger=ledger,
            start=self.start,
            aggregation=None,
            budget=None,
            clients=len(updates),
            sampling_rate=1.0,
            history=self.history,
            connect_timeout=60.0,
            measure=lambda arrays: {},
            after_round=lambda arrays, history: None,
        )

    def round(self) -> RoundReport:
        """One round; its report."""
        self.strategy.start(
            grid=self.grid,
            initial_arrays=to_record(self.start),
            num_rounds=1,
            train_config=ConfigRecord({"run": "a run", "privacy": self.level, **self.asking}),
        )
        return self.history.rounds[-1]

    @property
    def moved(self) -> np.ndarray:
        """By how much the shared adapter moved."""
        return flat(self.strategy.arrays).astype(np.float32)

    def masked(self) -> dict[int, np.ndarray]:
        """What each client sent for the sum, in time or too late."""
        return {
            node: reply.content.array_records["arrays"][RECORD].numpy()
            for stage, node, reply in self.grid.seen + self.grid.late
            if stage == "train" and not reply.has_error()
        }

    def learned(self) -> dict[int, bytes]:
        """The one secret of each client that a curious server learns."""
        found: dict[int, list[bytes]] = defaultdict(list)
        for stage, _, reply in self.grid.seen:
            if stage == STAGES[3]:
                told = reply.content.config_records[RECORD]
                for node, share in zip(told["nodes"], told["shares"], strict=True):
                    found[int(node)].append(share)
        return {
            node: combined(each, threshold=self.settings.fewest) for node, each in found.items()
        }

    def without_self_mask(self, node: int) -> np.ndarray:
        """What such a server makes of one client's numbers, once it knows its seed."""
        sent, seed = self.masked()[node], self.learned()[node]
        key = self_key(seed=seed, session=self.session, words=self.words)
        return sent - mask(key, count=len(sent), words=self.words)

    def without_pair_masks(self, node: int) -> np.ndarray:
        """What it makes of numbers that came too late, once it knows their client's key."""
        sent, key = self.masked()[node].copy(), self.learned()[node]
        for peer, public in self.keys().items():
            if peer != node:
                pair = {str(node), str(peer)}
                drawn = pair_key(
                    private=key,
                    public=public,
                    session=self.session,
                    pair=pair,
                    words=self.words,
                )
                add_pair_mask(sent, drawn, node=str(node), peer=str(peer), taken=True)
        return sent

    def keys(self) -> dict[int, bytes]:
        """Every client's public key for masks."""
        return {
            node: bytes(reply.content.config_records[RECORD]["mask-key"])  # type: ignore[arg-type]
            for stage, node, reply in self.grid.seen
            if stage == STAGES[0]
        }

    @property
    def words(self) -> Words:
        """In which the last sum's masked numbers crossed."""
        return self.strategy._summands.words

    @property
    def session(self) -> str:
        """The last sum's."""
        return str(self.strategy._exchange.session)


def updates(count: int, *, width: int = WIDTH, seed: int = 0) -> list[np.ndarray]:
    """Random updates, fp32."""
    draw = np.random.default_rng(seed)
    return [draw.normal(size=width).astype(np.float32) for _ in range(count)]


def context(node: int) -> Context:
    """A node's own memory."""
    return Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
