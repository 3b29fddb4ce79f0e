"""The federation as a Flower strategy that sees the sum of a round's updates alone."""

from __future__ import annotations

import secrets
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.central_noise import CentralNoise
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.listed_clients import ListedClients
from dpacc.federated.secure_sum.exchange import Exchange, SumNotOpened
from dpacc.federated.secure_sum.fixed_point import Doubles, Integers
from dpacc.federated.secure_sum.messages import (
    RECORD,
    WRONG_SHARE,
    Payload,
    ProtectedNumbers,
    session_of,
)
from dpacc.federated.secure_sum.protocols import ServerSide, server_side
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoise, SharedNoiseLedger
from dpacc.federated.secure_sum.summands import Summands
from dpacc.federated.server.replies import Reply
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.updates.layout import Arrays, flat, read_array, to_record, unflat
from dpacc.federated.updates.packing import wire_bytes

QUERY_TIMEOUT = 600.0
"""Seconds that a client has for a stage without training."""


class SecureFederatedLoRA(FederatedLoRA):
    """`FederatedLoRA` whose updates arrive inside a secure sum.

    Before training, keys and shares are exchanged; after it the sum is opened, if enough clients'
    numbers arrived, and charged before that where the clients share the noise. The mean of an
    opened sum counts every client alike.

    Args:
        secure_sum: the protocol.
        privacy: client level: what the clients' noise is for.
        ledger: client level: the server's ledger.
        common: what `FederatedLoRA` takes.
    """

    def __init__(
        self,
        *,
        secure_sum: SecureSum,
        privacy: ClientPrivacy | None,
        ledger: SharedNoiseLedger | None,
        **common: Any,
    ) -> None:
        super().__init__(**common)
        self._settings = secure_sum
        self._agreed = secure_sum.agreed(privacy)
        self._shared_ledger = ledger
        self._sum: ServerSide | None = None
        self._exchange: Exchange | None = None
        self._stopped = ""
        self._surplus: list[int] = []
        self._complaints: dict[int, set[int]] = defaultdict(set)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Exchange keys with all that are asked, then ask those that are still there to train."""
        super().configure_train(server_round, arrays, config, grid)
        self._leave_out_surplus()
        of_round = session_of(self._packing.run, self._packing.number)
        session = of_round + secrets.token_hex(16)
        self._exchange = Exchange(grid=grid, session=session, timeout=QUERY_TIMEOUT)
        self._summands = Summands(settings=self._settings, packing=self._packing)
        self._sum = server_side(
            settings=self._settings,
            exchange=self._exchange,
            count=self._summands.count(flat(self.arrays).size),
            words=self._summands.words,
        )
        self._stopped = ""
        try:
            invited = self._sum.invite(self._asked, self._agreed)
        except SumNotOpened as stopped:
            self._stopped = str(stopped)
            invited = {}
        self._sent = [self._invitation(node, told, config) for node, told in invited.items()]
        self._bytes_sent = sum(wire_bytes(message) for message in self._sent)
        return self._sent

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Add what arrived, open the sum, and move the adapter by its mean."""
        del server_round
        assert self._exchange is not None
        refused = self._exchange.refused
        self._complaints.clear()
        answers = self._read(
            replies,
            self._take,
            unheard=lambda node: refused.get(node, self._stopped or "no answer"),
        )
        self._sent = []  # they hold every sealed share
        self._weigh_complaints()
        survivors = [*answers.taken]
        try:
            self.arrays = self._settled(self._opened())
        except SumNotOpened as stopped:
            nodes = self._history.nodes
            answers.failed.update({n: refused.get(nodes[n], str(stopped)) for n in survivors})
            survivors = []
        self._bytes_sent += self._exchange.bytes_sent
        self._received += self._exchange.bytes_received
        self._history.expelled.update(self._exchange.culprits)
        surplus = f"not asked: this sum is for {self._settings.clients} clients"
        answers.failed.update({self._name(node): surplus for node in self._surplus})
        self._report(answers=answers, survivors=survivors)
        return to_record(self.arrays), None

    def _leave_out_surplus(self) -> None:
        """Ask as many as the sum is for, those first that took part before: clients refuse more."""
        known = set(self._history.nodes.values())
        ordered = sorted(self._asked, key=lambda node: (node not in known, node))
        self._asked = sorted(ordered[: self._settings.clients])
        self._surplus = ordered[self._settings.clients :]

    def _hear(self, node: int, reply: Message) -> None:
        """Write down whose share it complains of, if it does."""
        dealer = self._accused(reply)
        if dealer is not None:
            self._complaints[dealer].add(node)

    def _weigh_complaints(self) -> None:
        """Blame who dealt wrong shares to more clients than may collude: one of them is honest."""
        assert self._exchange is not None
        for dealer, by in self._complaints.items():
            if len(by - {dealer}) > self._settings.colluding:
                self._exchange.blame(dealer, "it dealt others what it had not committed to")

    def _accused(self, reply: Message) -> int | None:
        """Of whose share a refusal complains, if it does."""
        reason = str(reply.error.reason) if reply.has_error() else ""
        named = reason.removeprefix(WRONG_SHARE).partition(":")[0]
        known = {str(node): node for node in self._asked}
        return known.get(named) if reason.startswith(WRONG_SHARE) else None

    def _invitation(self, node: int, told: Payload, config: ConfigRecord) -> Message:
        assert self._exchange is not None
        content = RecordDict({**self._request(config, node), RECORD: self._exchange.record(told)})
        return Message(content, dst_node_id=node, message_type=MessageType.TRAIN)

    def _take(self, node: int, reply: Reply) -> None:
        """Add one reply's numbers to the sum."""
        assert self._sum is not None
        self._sum.take(node, _protected_numbers(reply.arrays))

    def _opened(self) -> Arrays:
        """The next adapter. The ledger holds the sum before any client helps to open it."""
        assert self._sum is not None
        if self._stopped:
            raise SumNotOpened(self._stopped)
        self._sum.require_openable()
        count, before = self._sum.arrived, flat(self.arrays)
        if self._shared_ledger is not None:
            self._shared_ledger.charge(survivors=count)
            moved = self._shared_ledger.noise.values(self._sum.open()) / self._settings.clients
        else:
            moved = self._mean(self._sum.open(), clients=count, numbers=before.size)
        return unflat(before + moved, like=self.arrays)

    def _mean(self, total: Integers, *, clients: int, numbers: int) -> Doubles:
        try:
            return self._summands.mean(total, clients=clients, numbers=numbers)
        except ConfigurationError as error:  # whoever sent numbers too large chose them
            raise SumNotOpened(f"the sum is not one of updates: {error}") from error


def ledger_noise(
    *,
    privacy: ClientPrivacy | None,
    secure_sum: SecureSum | None,
    clients: int,
    sampling_rate: float,
    numbers: int,
    ledger: Path,
    listed: ListedClients | None,
) -> CentralNoise | SharedNoiseLedger | None:
    """What a server's ledger is for: noise of its own, that of a sum's survivors, or none.

    Args:
        privacy: at client level.
        secure_sum: how updates are hidden, if they are.
        clients: n.
        sampling_rate: p.
        numbers: d, of the shared adapter.
        ledger: its file.
        listed: who is who, where clients must wait.
    """
    if privacy is None:
        return None
    if secure_sum is not None:
        shared = SharedNoise(privacy=privacy, settings=secure_sum, dimension=numbers)
        return SharedNoiseLedger(noise=shared, path=ledger)
    return CentralNoise(
        privacy=privacy,
        clients=clients,
        sampling_rate=sampling_rate,
        ledger=ledger,
        listed=listed,
    )


def _protected_numbers(arrays: ArrayRecord) -> ProtectedNumbers:
    if set(arrays) != {RECORD}:
        raise ConfigurationError("the reply's arrays are not a part of a secure sum")
    return read_array(RECORD, arrays[RECORD])
