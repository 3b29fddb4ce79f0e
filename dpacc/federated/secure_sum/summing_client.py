"""A client that takes part in secure sums: what trains it stays as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpacc.errors import BudgetExhausted, ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.ranks.round_ranks import ROUND_RANK, ranks_of_update
from dpacc.federated.requests import RequestRefused, answered
from dpacc.federated.secure_sum.exchange import to_array
from dpacc.federated.secure_sum.fixed_point import Doubles, Integers, OutOfRange
from dpacc.federated.secure_sum.messages import (
    CONFIRM,
    KEYS,
    OPEN,
    RECORD,
    SHARES,
    Party,
    Request,
    session_of,
    text,
)
from dpacc.federated.secure_sum.protocols import client_side
from dpacc.federated.secure_sum.rounds_summed import RoundsSummed, SumsBegun
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoise, SharedNoiseLedger
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from dpacc.federated.secure_sum.summands import Summands
from dpacc.federated.setting_limits import require_count, require_kind
from dpacc.federated.updates.layout import flat, from_record
from dpacc.randomness.run_secret import RunSecret


class TrainingClient(Protocol):
    """What answers a training message with an adapter."""

    client_id: str

    def answer(self, message: Message) -> Message:
        """One round's update, or why there is none."""


class SecureClient:
    """One organisation whose updates leave only inside a sum.

    Args:
        client: what trains: a `DPLoRAClient`, whose updates are private already and are hidden
            besides, or with `privacy` a `TrustingClient`, which then need trust nobody.
        secure_sum: what its owner agreed to; a server that asks otherwise is refused. Without
            `privacy` the server may ask for compressed updates, if their codes can be added.
        privacy: client level: the clipping norm, and the noise of which this client adds a share.
        most_rounds: client level: in how many sums it will ever be; needed with `privacy`.
        folder: where its own ledger of sums is kept, and at example level which rounds were
            summed; by default that of `client`.
        keys: of signed sums: its own signing key, and whom it knows.
    """

    def __init__(
        self,
        *,
        client: TrainingClient,
        secure_sum: SecureSum,
        privacy: ClientPrivacy | None = None,
        most_rounds: int | None = None,
        folder: Path | str | None = None,
        keys: SigningKeys | None = None,
    ) -> None:
        if not hasattr(client, "answer"):
            raise ConfigurationError(f"client={client!r} must be a DPLoRAClient or TrustingClient")
        require_kind("secure_sum", secure_sum, SecureSum)
        require_kind("privacy", privacy, ClientPrivacy)
        self.client_id, self._client = client.client_id, client
        _require_keys(secure_sum, keys)
        self._settings, self._keys = secure_sum, keys
        self._side = client_side(secure_sum.protocol)
        self._agreed = secure_sum.agreed(privacy)
        own = getattr(client, "folder", None) or Path("federation") / self.client_id
        self.folder = place = Path(folder) if folder is not None else Path(own)
        self._rounds, self._begun = RoundsSummed(place), SumsBegun(place)
        self._noise: OwnShare | None = None
        if privacy is not None:
            if most_rounds is None:
                raise ConfigurationError(
                    "privacy without most_rounds: say in how many rounds this client may ever take "
                    "part, so that no server can ask for more"
                )
            require_count("most_rounds", most_rounds)
            self._noise = OwnShare(
                privacy=privacy,
                settings=secure_sum,
                most_rounds=most_rounds,
                path=place / "ledger.jsonl",
            )

    @property
    def most_local_epochs(self) -> float:
        """Of what trains; no bound where it has none."""
        return float(getattr(self._client, "most_local_epochs", math.inf))

    @property
    def app(self) -> ClientApp:
        """This client as Flower runs it, in process or on a SuperNode."""
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            return self._guarded(self._train, message, context)

        @app.query(KEYS)
        def keys(message: Message, context: Context) -> Message:
            return self._guarded(self._begin, message, context)

        @app.query(SHARES)
        def shares(message: Message, context: Context) -> Message:
            return self._guarded(self._answer(SHARES), message, context)

        @app.query(CONFIRM)
        def confirm(message: Message, context: Context) -> Message:
            return self._guarded(self._answer(CONFIRM), message, context)

        @app.query(OPEN)
        def unmask(message: Message, context: Context) -> Message:
            return self._guarded(self._answer(OPEN), message, context)

        return app

    def require_readable(self) -> None:
        """Read the model and every record once, before any server asks.

        Raises:
            ConfigurationError: one cannot be read as its owner's settings say.
        """
        require = getattr(self._client, "require_readable", None)
        if require is not None:
            require()

    def close(self) -> None:
        """Let go of its ledgers."""
        if self._noise is not None:
            self._noise.close()
        close = getattr(self._client, "close", None)
        if close is not None:
            close()

    def _guarded(
        self, stage: Callable[[Message, Context], Message], message: Message, context: Context
    ) -> Message:
        return answered(lambda: stage(message, context), message=message, client=self.client_id)

    def _begin(self, message: Message, context: Context) -> Message:
        """A new sum; whatever was left of another is forgotten."""
        asked = _asked(message)
        if text(asked, "agreed") != self._agreed:
            raise RequestRefused(
                "the server's secure_sum or client_privacy differs from this client's; give both "
                "the same"
            )
        words = {"session": text(asked, "session"), "agreed": self._agreed, "next": ""}
        fresh = ConfigRecord({**words})
        context.state.config_records[RECORD] = fresh
        return self._answer(KEYS)(message, context)

    def _answer(self, stage: str) -> Callable[[Message, Context], Message]:
        def answer(message: Message, context: Context) -> Message:
            query = self._side.queries.get(stage)
            if query is None:
                raise RequestRefused(f"protocol={self._settings.protocol!r} knows no {stage!r}")
            told = query(_asked(message), self._party(context))
            if stage == SHARES and self._settings.neighbourhood is not None:
                self._begun.count()
            return Message(RecordDict({RECORD: ConfigRecord(told)}), reply_to=message)

        return answer

    def _train(self, message: Message, context: Context) -> Message:
        """Train, and let nothing leave but protected numbers, what the books say, and a name."""
        asked, party = _asked(message), self._party(context)
        level = "example" if self._noise is None else "client"
        if message.content.config_records["config"]["privacy"] != level:
            raise RequestRefused(f"this client takes part in {level}-level federations alone")
        summands = self._summands(message)
        packing = summands.packing
        if not party.session.startswith(session_of(packing.run, packing.number)):
            raise RequestRefused("the sum that was begun is of another run or round; begin anew")
        self._side.require(asked, party)
        if self._noise is None:
            self._rounds.refuse_second(packing.run, packing.number)
        else:
            self._noise.require_rounds_left()
        reply = self._client.answer(_uncompressed(message))
        if reply.has_error():
            return reply
        whole = self._whole(_moved(message, reply), summands)
        sent = self._side.protect(whole, asked, replace(party, words=summands.words))
        if self._noise is None:  # else every sum holds noise, and a charge, of its own
            self._rounds.keep(packing.run, packing.number)
        self._begun.clear()
        kept = {name: r for name, r in reply.content.items() if name in ("config", "metrics")}
        arrays = ArrayRecord({RECORD: to_array(sent)})
        return Message(RecordDict({**kept, "arrays": arrays}), reply_to=message)

    def _summands(self, message: Message) -> Summands:
        try:
            return Summands.asked(
                message.content.config_records["config"],
                settings=self._settings,
                client_level=self._noise is not None,
            )
        except (ConfigurationError, ValueError) as error:
            raise RequestRefused(str(error)) from error

    def _whole(self, moved: Doubles, summands: Summands) -> Integers:
        if self._noise is not None:
            return self._noise.add(moved)
        try:
            return summands.whole(moved, client=self.client_id)
        except OutOfRange as error:  # of an update that holds its noise already
            raise RequestRefused(str(error)) from error

    def _party(self, context: Context) -> Party:
        state = context.state.config_records.get(RECORD)
        if state is None:
            raise RequestRefused("the server never began a secure sum with this client")
        node = str(context.node_id)
        return Party(node=node, settings=self._settings, state=state, keys=self._keys)


class OwnShare:
    """A client's share of the noise, and its own ledger of the sums it was part of.

    Args:
        privacy: σ, C and δ.
        settings: n, t and how many collude.
        most_rounds: how many sums are ever charged.
        path: the ledger; σ of its entries is that of the fewest survivors, for a client does not
            know how many there will be.
    """

    def __init__(
        self,
        *,
        privacy: ClientPrivacy,
        settings: SecureSum,
        most_rounds: int,
        path: Path,
    ) -> None:
        self._privacy = privacy
        self._settings = settings
        self._most_rounds = most_rounds
        self._path = path
        self._ledger: SharedNoiseLedger | None = None

    def require_rounds_left(self) -> None:
        """Stop before training where nothing may be sent afterwards.

        Raises:
            BudgetExhausted: `most_rounds` sums are charged.
        """
        if self._ledger is not None and self._ledger.rounds_charged >= self._most_rounds:
            raise BudgetExhausted(f"all {self._most_rounds} rounds of this client are spent")

    def add(self, moved: Doubles) -> Integers:
        """Charge one sum, then clip, round and noise the update.

        Raises:
            BudgetExhausted: `most_rounds` sums are charged.
            LedgerError: the charge could not be written; nothing may leave.
        """
        ledger = self._opened(len(moved))
        self.require_rounds_left()
        step = ledger.charge(survivors=self._settings.fewest)
        return ledger.noise.share(moved, secret=RunSecret.generate(), step=step)

    def close(self) -> None:
        """Let go of the ledger."""
        if self._ledger is not None:
            self._ledger.close()
            self._ledger = None

    def _opened(self, dimension: int) -> SharedNoiseLedger:
        if self._ledger is None:
            noise = SharedNoise(privacy=self._privacy, settings=self._settings, dimension=dimension)
            self._ledger = SharedNoiseLedger(noise=noise, path=self._path)
        return self._ledger


def _require_keys(settings: SecureSum, keys: SigningKeys | None) -> None:
    """Refuse signed sums without keys, keys without them, and too few whom the client knows.

    Raises:
        ConfigurationError: with the remedy.
    """
    require_kind("keys", keys, SigningKeys)
    if settings.signed != (keys is not None):
        raise ConfigurationError(
            f"secure_sum signed={settings.signed} and keys={keys!r}: a signed sum takes "
            "keys=SigningKeys(own=..., pinned=...), another takes none"
        )
    if keys is not None and keys.count < settings.fewest:
        raise ConfigurationError(
            f"{keys.pinned} holds {keys.count} keys, and no sum of fewer than {settings.fewest} "
            "clients is opened; pin every client's"
        )


def _asked(message: Message) -> Request:
    asked = message.content.config_records.get(RECORD)
    if asked is None:
        raise RequestRefused("this client's updates leave only inside a secure sum; use secure_sum")
    return asked


def _uncompressed(message: Message) -> Message:
    """The same request for an update as it is, of which codes are made afterwards."""
    content, config = message.content, message.content.config_records["config"]
    plain = ConfigRecord({name: said for name, said in config.items() if name != "compression"})
    request = copy(message)
    request.content = RecordDict({**content, "config": plain})
    return request


def _moved(message: Message, reply: Message) -> Doubles:
    """By how much training moved the shared adapter, of which a client may train a part."""
    sent = message.content.array_records["arrays"]
    start = {name: array.numpy() for name, array in sent.items()}
    round_rank = message.content.config_records["config"].get(ROUND_RANK)
    ranks = ranks_of_update(
        reply.content.config_records["config"],
        adapter=start,
        round_rank=None if round_rank is None else int(str(round_rank)),
    )
    before = ranks.narrow(start)
    update = from_record(reply.content.array_records["arrays"], like=before)
    return flat(ranks.widen(update)) - flat(ranks.widen(before))
