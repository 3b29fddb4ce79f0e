"""How the rounds of a federation are run, as one object."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from dpacc.federated.aggregation.averaging import AggregationName
from dpacc.federated.aggregation.client_level import ClientPrivacy, require_central
from dpacc.federated.aggregation.robust import Defence, require_fitting
from dpacc.federated.secure_sum.settings import SecureSum, require_summable
from dpacc.federated.server.fedask_strategy import require_sketchable
from dpacc.federated.server.history import RoundReport
from dpacc.federated.setting_limits import require_kind, require_positive
from dpacc.federated.settings import LoraSettings
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
        round_timeout: seconds after which a round goes on without who has not answered.
        connect_timeout: seconds that clients have to connect in, before the first round.

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
    round_timeout: float = 3600.0
    connect_timeout: float = 600.0

    def __post_init__(self) -> None:
        require_positive("client_sampling_rate", self.client_sampling_rate, at_most=1)
        for name in ("local_epochs", "round_timeout", "connect_timeout"):
            require_positive(name, getattr(self, name))
        require_kind("defence", self.defence, Defence)
        require_kind("compression", self.compression, Compression)


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
