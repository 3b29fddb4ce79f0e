"""How the rounds of a federation are run, as one object."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flwr.app import ConfigRecord
from torch import nn

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import CORRECTING, AggregationName
from dpacc.federated.aggregation.client_level import ClientPrivacy, require_central
from dpacc.federated.aggregation.listed_clients import ListedClients
from dpacc.federated.aggregation.robust import Defence, require_fitting
from dpacc.federated.aggregation.rollback import Rollback
from dpacc.federated.aggregation.rule_choice import require_known
from dpacc.federated.aggregation.sketch_messages import SKETCH
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.ranks.tuning import update_signal
from dpacc.federated.secure_sum.settings import SecureSum, require_summable
from dpacc.federated.server.fedask_strategy import require_sketchable
from dpacc.federated.server.history import RoundReport
from dpacc.federated.setting_limits import require_callable, require_kind, require_positive
from dpacc.federated.settings import LoraSettings, PrivacyBudget
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.packing import require_packable

Measure = Callable[[nn.Module], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class RoundSettings:
    """What [`FederatedServer.train`][dpacc.federated.server.federated_server.FederatedServer.train]
    and `app` are told.

    Args:
        aggregation: how adapters become one.
        client_sampling_rate: the chance with which each client is asked in a round.
        local_epochs: a client's expected passes over its data in one round.
        defence: what to do about hostile clients; by default nothing.
        measure: what to measure of the model after each round.
        on_round: is told of each round once its state is kept.
        compression: of what clients send; by default none.
        sketch_size: for "fedask", the rank of the mean that is caught for certain.
        rollback: when a round is given up for what `measure` finds; by default never.
        round_timeout: seconds after which a round goes on without who has not answered.
        connect_timeout: seconds that clients have to connect in, before the first round.
        listed: who is who, where clients must wait.

    Raises:
        ConfigurationError: a number, a chance, a defence or a compression that is none.
    """

    aggregation: AggregationName
    client_sampling_rate: float
    local_epochs: float
    defence: Defence | None
    measure: Measure | None
    on_round: Callable[[RoundReport], None] | None
    compression: Compression | None
    sketch_size: int | None
    rollback: Rollback | None = None
    round_timeout: float = 3600.0
    connect_timeout: float = 600.0
    listed: ListedClients | None = None

    def __post_init__(self) -> None:
        require_known(self.aggregation)
        require_positive("client_sampling_rate", self.client_sampling_rate, at_most=1)
        for name in ("local_epochs", "round_timeout", "connect_timeout"):
            require_positive(name, getattr(self, name))
        require_kind("defence", self.defence, Defence)
        require_kind("compression", self.compression, Compression)
        require_kind("rollback", self.rollback, Rollback)
        require_kind("client_nodes", self.listed, ListedClients)
        if self.rollback is not None and self.measure is None:
            raise ConfigurationError(
                "rollback without measure: the server has nothing to compare; give measure, a "
                "function of the model that returns figures of public examples"
            )
        require_callable("measure", self.measure)
        require_callable("on_round", self.on_round)


def measured(measure: Measure, model: nn.Module) -> dict[str, float]:
    """What the server's own function finds.

    Raises:
        ConfigurationError: it returns anything but names and numbers.

    >>> measured(lambda model: {"accuracy": 1}, nn.Identity())
    {'accuracy': 1.0}
    """
    found: Any = measure(model)
    try:
        return {str(name): float(value) for name, value in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationError(
            f"measure returned {found!r}; it must return a mapping of names to numbers, such as "
            "{'accuracy': 0.8}"
        ) from None


def require_clients(
    clients: Sequence[Any],
    *,
    number: int,
    local_epochs: float,
    budget: PrivacyBudget | None,
) -> None:
    """Refuse clients that would fail in the first round, when others have paid for it.

    Args:
        clients: who takes part, in this process.
        number: how many were announced.
        local_epochs: that each is asked for.
        budget: the most that any may spend, where each has its own.

    Raises:
        ConfigurationError: too many or few, something else, two in one folder, a client that allows
            fewer passes or spends more than was promised, or one whose records cannot be read.
    """
    if len(clients) != number:
        raise ConfigurationError(
            f"num_clients={number} and {len(clients)} clients given; name as many as take part"
        )
    homes: dict[str, str] = {}
    for client in clients:
        if not hasattr(client, "require_readable"):
            raise ConfigurationError(
                f"clients holds {client!r}: each must be a DPLoRAClient, TrustingClient or "
                "SecureClient"
            )
        most, home = client.most_local_epochs, str(client.folder.resolve())
        if local_epochs > most:
            raise ConfigurationError(
                f"local_epochs={local_epochs:g} and {client.client_id}'s most_local_epochs is "
                f"{most:g}: ask for fewer, or let its owner raise that in dp_config"
            )
        if home in homes:
            raise ConfigurationError(
                f"{homes[home]} and {client.client_id} have one folder, {client.folder}: a ledger "
                "is one client's; give each a folder of its own"
            )
        homes[home] = client.client_id
        own = getattr(client, "dp_config", None)
        if budget is not None and own is not None:
            budget.require_covered(client.client_id, epsilon=own.epsilon, delta=own.delta)
    for client in clients:
        client.require_readable()


def listed_in(clients: Sequence[Any], *, privacy: ClientPrivacy | None) -> ListedClients | None:
    """Which client each node of this process is, from 1, where clients must wait.

    Raises:
        ConfigurationError: two are called the same.
    """
    if privacy is None or privacy.correlated is None or not clients:
        return None
    names = {n: str(getattr(each, "client_id", n)) for n, each in enumerate(clients, start=1)}
    return ListedClients(names=names)


def request_to_all(
    settings: RoundSettings, *, run: str, layout: str, rounds: int, level: str
) -> ConfigRecord:
    """What every client is told of each round.

    Args:
        settings: of every round.
        run: the federation's own name.
        layout: what averaging takes for granted.
        rounds: R.
        level: whose noise an update holds, "example" its client's, "client" none.
    """
    compression, sketch_size = settings.compression, settings.sketch_size
    return ConfigRecord(
        {
            "run": run,
            "layout": layout,
            "rounds": rounds,
            "local-epochs": float(settings.local_epochs),
            "corrected": settings.aggregation in CORRECTING,
            "privacy": level,
            **({} if compression is None else {"compression": compression.words}),
            **({} if sketch_size is None else {SKETCH: sketch_size}),
        }
    )


def with_signal(
    settings: RoundSettings, *, clients: Iterable[object], trained: int, rounds: int
) -> RoundSettings:
    """The same, and how much of an update is noise, where a defence asks for it.

    Args:
        settings: of every round.
        clients: who takes part.
        trained: d, numbers of the shared adapter.
        rounds: R.
    """
    defence, compression = settings.defence, settings.compression
    known = [
        each.participant(rounds=rounds, local_epochs=settings.local_epochs)
        for each in clients
        if isinstance(each, DPLoRAClient) and defence is not None and defence.asks_for_signal
    ]
    if defence is None or not known:
        return settings
    if compression is not None and (compression.sends_places or compression.limit is not None):
        compression = None
    signal = update_signal(known, trained=trained, compression=compression)
    return replace(settings, defence=replace(defence, signal_to_noise=signal))


def require_consistent(
    settings: RoundSettings,
    *,
    clients: int,
    lora: LoraSettings,
    client_privacy: ClientPrivacy | None,
    secure_sum: SecureSum | None,
) -> None:
    """Refuse what a federation's other settings contradict, before anybody is asked.

    Args:
        settings: of every round.
        clients: how many take part.
        lora: the shared adapter.
        client_privacy: the noise at client level, if it is that.
        secure_sum: how updates are hidden, if they are.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    named, is_defended = settings.aggregation, settings.defence is not None
    require_packable(settings.compression, aggregation=named, secure=secure_sum is not None)
    require_sketchable(settings.sketch_size, aggregation=named, defended=is_defended)
    if secure_sum is not None:
        require_summable(
            settings=secure_sum,
            clients=clients,
            aggregation=named,
            lora=lora,
            defended=is_defended,
            sampled=settings.client_sampling_rate < 1,
            privacy=client_privacy,
            compressed=settings.compression is not None,
        )
    elif client_privacy is not None:
        require_central(
            privacy=client_privacy,
            aggregation=named,
            lora=lora,
            defended=is_defended,
            sampled=settings.client_sampling_rate < 1,
        )
    if settings.defence is not None:
        require_fitting(settings.defence, aggregation=named, clients=clients)
    waits = client_privacy is not None and client_privacy.correlated is not None
    if settings.listed is not None and not waits:
        raise ConfigurationError(
            "client_nodes without min_separation: nobody waits here, so that a client's name "
            "decides nothing; leave it out, or take ClientPrivacy.calibrate(min_separation=...)"
        )
