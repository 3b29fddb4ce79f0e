"""The federation's server: a thin hand on Flower's ServerApp and strategy."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from dpacc.errors import ConfigurationError, errors_alone_from, names_what_is_unknown
from dpacc.federated.aggregation.averaging import CORRECTING, AggregationName
from dpacc.federated.aggregation.central_noise import CentralNoise
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.factors import CorrectedBase
from dpacc.federated.aggregation.listed_clients import ListedClients
from dpacc.federated.aggregation.robust import Defence, defended
from dpacc.federated.aggregation.rollback import Rollback
from dpacc.federated.aggregation.rule_choice import aggregation_named
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.clients.trusting_client import TrustingClient
from dpacc.federated.ranks.round_ranks import require_one_rank, round_ranks
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoiseLedger
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.adapter_card import adapter_card
from dpacc.federated.server.fedask_strategy import strategy_for
from dpacc.federated.server.history import History, RoundReport
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.kept_state import KeptState, State
from dpacc.federated.server.published_adapter import forbid_saving, write_adapter
from dpacc.federated.server.reply_stream import StreamingGrid
from dpacc.federated.server.round_settings import (
    Measure,
    RoundSettings,
    listed_in,
    measured,
    request_to_all,
    require_clients,
    require_consistent,
    with_signal,
)
from dpacc.federated.server.secure_sum_strategy import SecureFederatedLoRA, ledger_noise
from dpacc.federated.server.shared_model import shared_model
from dpacc.federated.server.strategy import FederatedLoRA
from dpacc.federated.setting_limits import require_count, require_kind
from dpacc.federated.settings import LoraSettings, PrivacyBudget, Task, lora_settings
from dpacc.federated.settings import privacy_budget as budget_of
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import (
    Arrays,
    flat,
    load_arrays,
    to_record,
    trainable_arrays,
)


class FederatedServer:
    """Coordinates a federation, in process or as the ServerApp of a deployed one.

    Args:
        model_name: folder or hub id of the base that all share.
        num_clients: how many must be connected before the first round.
        rounds: R.
        privacy_budget: example level: the most that any client may spend; updates of others are
            refused.
        client_privacy: client level: the noise that this server adds, or with `secure_sum` the
            clients. Give one of the two.
        secure_sum: how updates are added up so that this server sees the sum alone.
        lora_config: the adapter that all share; like privacy_budget, a mapping will do.
        task: fields of `TrainingConfig` about data; of them, `task` and `labels` shape the model.
        folder: where the state of the run is kept, from which a restarted server goes on.

    ```python
    server = FederatedServer(model_name="model", num_clients=2, rounds=5,
                             privacy_budget=PrivacyBudget(epsilon=8.0, delta=1e-5))
    history = server.train(clients=clients, local_epochs=1)
    ```
    """

    @names_what_is_unknown(of="FederatedServer")
    def __init__(
        self,
        *,
        model_name: str,
        num_clients: int,
        rounds: int,
        privacy_budget: PrivacyBudget | Mapping[str, float] | None = None,
        client_privacy: ClientPrivacy | None = None,
        secure_sum: SecureSum | None = None,
        lora_config: LoraSettings | Mapping[str, Any] | None = None,
        task: Mapping[str, Any] | None = None,
        folder: Path | str = "federation/server",
    ) -> None:
        self._model_name = model_name
        self._num_clients, self._rounds = num_clients, rounds
        if (privacy_budget is None) == (client_privacy is None):
            raise ConfigurationError(
                "give privacy_budget, for clients that add their own noise, or client_privacy, for "
                "a server that adds it: the two are never mixed"
            )
        require_count("num_clients", num_clients)
        require_count("rounds", rounds)
        require_kind("client_privacy", client_privacy, ClientPrivacy)
        require_kind("secure_sum", secure_sum, SecureSum)
        self._budget = None if privacy_budget is None else budget_of(privacy_budget)
        self._client_privacy = client_privacy
        self._secure_sum = secure_sum
        self._lora = lora_settings({} if lora_config is None else lora_config)
        self._folder = Path(folder)
        self._kept = KeptState(self._folder)
        self._history, self._run = History(), secrets.token_hex(16)
        shared = shared_model(name=model_name, lora=self._lora, task=Task(fields=task or {}))
        self.model, self.tokenizer, self._layout = shared
        self._arrays, self._rule = trainable_arrays(self.model), "none"

    @names_what_is_unknown(of="train")
    def train(
        self,
        *,
        clients: Sequence[DPLoRAClient | TrustingClient | SecureClient],
        aggregation: AggregationName = "ffa",
        client_sampling_rate: float = 1.0,
        local_epochs: float = 1.0,
        defence: Defence | None = None,
        measure: Measure | None = None,
        compression: Compression | None = None,
        sketch_size: int | None = None,
        rollback: Rollback | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
    ) -> History:
        """Run all rounds in this process.

        Args:
            clients: who takes part.
            aggregation: how adapters become one.
            client_sampling_rate: the chance with which each client is asked in a round.
            local_epochs: a client's expected passes over its data in one round.
            defence: what to do about hostile clients; by default nothing.
            measure: what to measure of the model after each round, on data of the server's own.
            compression: of what clients send; by default none.
            sketch_size: for "fedask", the rank of the mean that is caught for certain; by default
                num_clients · rank, which is exact.
            rollback: when a round is given up for what `measure` finds; by default never.
            on_round: is told of each round once its state is kept.

        Raises:
            ConfigurationError: settings that contradict each other, another run's state, or a
                client whose records cannot be read.
        """
        settings = RoundSettings(
            aggregation=aggregation,
            client_sampling_rate=client_sampling_rate,
            local_epochs=local_epochs,
            defence=defence,
            measure=measure,
            on_round=on_round,
            compression=compression,
            sketch_size=sketch_size,
            rollback=rollback,
            listed=listed_in(clients, privacy=self._client_privacy),
        )
        require_clients(
            clients, number=self._num_clients, local_epochs=local_epochs, budget=self._budget
        )
        trained = flat(trainable_arrays(self.model)).size
        app = self._app(
            with_signal(settings, clients=clients, trained=trained, rounds=self._rounds)
        )
        grid = LocalGrid({node: client.app for node, client in enumerate(clients, start=1)})
        context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
        with errors_alone_from("flwr"):  # The history tells what Flower's log would.
            app(grid, context)
        return self._history

    def app(
        self,
        *,
        aggregation: AggregationName = "ffa",
        client_sampling_rate: float = 1.0,
        local_epochs: float = 1.0,
        defence: Defence | None = None,
        measure: Measure | None = None,
        on_round: Callable[[RoundReport], None] | None = None,
        round_timeout: float = 3600.0,
        connect_timeout: float = 600.0,
        compression: Compression | None = None,
        sketch_size: int | None = None,
        rollback: Rollback | None = None,
        client_nodes: ListedClients | None = None,
    ) -> ServerApp:
        """The same run as a Flower ServerApp, for a deployed federation; see `train`.

        Args:
            aggregation: as in `train`, like all up to round_timeout.
            client_sampling_rate: see there.
            local_epochs: see there.
            defence: see there.
            measure: see there.
            compression: see there.
            sketch_size: see there.
            rollback: see there.
            on_round: see there.
            round_timeout: seconds after which a round goes on without who has not answered.
            connect_timeout: seconds that clients have to connect in, before the first round.
            client_nodes: where clients must wait, who is who; else a registered key is a client.
        """
        return self._app(
            RoundSettings(
                aggregation=aggregation,
                client_sampling_rate=client_sampling_rate,
                local_epochs=local_epochs,
                defence=defence,
                measure=measure,
                on_round=on_round,
                compression=compression,
                sketch_size=sketch_size,
                rollback=rollback,
                round_timeout=round_timeout,
                connect_timeout=connect_timeout,
                listed=client_nodes,
            )
        )

    @property
    def history(self) -> History:
        """All rounds so far."""
        return self._history

    def publish(self, *, folder: Path | str) -> None:
        """Write the adapter as it was measured, with what was folded into the base, and its card.

        Args:
            folder: for `PeftModel.from_pretrained(base, folder)`; no file in it names a client.
        """
        card = adapter_card(
            base=self._model_name,
            history=self._history,
            lora=self._lora,
            aggregation=self._rule,
            rounds=self._rounds,
        )
        write_adapter(model=self.model, arrays=self._arrays, card=card, folder=Path(folder))

    def _app(self, settings: RoundSettings) -> ServerApp:
        require_one_rank(lora=self._lora, aggregation=settings.aggregation)
        rule, first = aggregation_named(settings.aggregation, model=self.model)
        if settings.aggregation == "fedask" and settings.sketch_size is None:
            settings = replace(settings, sketch_size=self._num_clients * self._lora.rank)
        require_consistent(
            settings,
            clients=self._num_clients,
            lora=self._lora,
            client_privacy=self._client_privacy,
            secure_sum=self._secure_sum,
        )
        if settings.defence is not None:
            rule = defended(settings.defence, rule)
        strategy_of = strategy_for(
            settings.sketch_size, model=self.model, drawn=first, seconds=settings.round_timeout
        )
        self._base = CorrectedBase(self.model)
        self._rule = settings.aggregation
        if self._rule in CORRECTING:
            forbid_saving(self.model)
        app = ServerApp()

        @app.main()
        def main(grid: Grid, context: Context) -> None:
            del context
            arrays = self._begin(settings, first)
            noise = ledger_noise(
                privacy=self._client_privacy,
                secure_sum=self._secure_sum,
                clients=self._num_clients,
                sampling_rate=settings.client_sampling_rate,
                numbers=flat(arrays).size,
                ledger=self._folder / "ledger.jsonl",
                listed=settings.listed,
            )
            strategy = (self._secured(noise) or strategy_of)(
                start=arrays,
                aggregation=noise if isinstance(noise, CentralNoise) else rule,
                budget=self._budget,
                clients=self._num_clients,
                sampling_rate=settings.client_sampling_rate,
                history=self._history,
                connect_timeout=settings.connect_timeout,
                measure=partial(self._measured, settings.measure),
                after_round=partial(self._after_round, settings, noise),
                ranks=round_ranks(self._lora),
                rollback=settings.rollback,
            )
            strategy.start(
                grid=grid if isinstance(grid, LocalGrid) else StreamingGrid(grid),
                initial_arrays=to_record(arrays),
                num_rounds=self._rounds - len(self._history.rounds),
                timeout=settings.round_timeout,
                train_config=request_to_all(
                    settings,
                    run=self._run,
                    layout=self._layout,
                    rounds=self._rounds,
                    level="example" if self._client_privacy is None else "client",
                ),
            )
            self._load(strategy.arrays)
            if noise is not None:
                noise.close()

        return app

    def _begin(self, settings: RoundSettings, first: Arrays) -> Arrays:
        """The adapter to go on from, measured and kept if the run begins with it."""
        arrays = self._restore(settings.aggregation, first)
        if not self._history.rounds:
            self._history.start_quality = self._measured(settings.measure, arrays)
            if settings.rollback is not None:
                settings.rollback.require_measured(self._history.start_quality)
            self._save(arrays, self._history, settings.aggregation)
        return arrays

    def _secured(
        self, noise: CentralNoise | SharedNoiseLedger | None
    ) -> Callable[..., FederatedLoRA] | None:
        """The strategy that sees the sum of a round's updates alone, where that was asked for."""
        if self._secure_sum is None:
            return None
        return partial(
            SecureFederatedLoRA,
            secure_sum=self._secure_sum,
            privacy=self._client_privacy,
            ledger=noise if isinstance(noise, SharedNoiseLedger) else None,
        )

    def _after_round(
        self,
        settings: RoundSettings,
        noise: CentralNoise | SharedNoiseLedger | None,
        arrays: Arrays,
        history: History,
    ) -> None:
        if noise is not None:
            history.client_level = noise.federation()
        self._save(arrays, history, settings.aggregation)
        if history.rounds[-1].rolled_back:
            self._load(arrays)
        if settings.on_round is not None:
            settings.on_round(history.rounds[-1])

    def _load(self, arrays: Arrays) -> None:
        self._arrays = arrays
        load_arrays(self.model, arrays)
        self._base.apply(arrays)

    def _measured(self, measure: Measure | None, arrays: Arrays) -> Mapping[str, float]:
        if measure is None:
            return {}
        self._load(arrays)
        return measured(measure, self.model)

    def _save(self, arrays: Arrays, history: History, aggregation: str) -> None:
        self._kept.keep(
            State(
                run=self._run,
                agreed=self._agreed(aggregation, self._layout, self._rounds),
                history=history,
                arrays=arrays,
            )
        )

    def _restore(self, aggregation: str, first: Arrays) -> Arrays:
        """Where the run stands: at its beginning, or after the last round that was kept."""
        known = self._kept.read()
        if known is None:
            return first
        # Earlier versions agreed on the adapter's layout alone, the first part of today's.
        layouts = (self._layout, self._layout.partition("/")[0])
        # Where clients keep budgets of their own, more rounds are no other federation.
        fewest = len(known.history.rounds) if self._client_privacy is None else self._rounds
        rounds = range(fewest, self._rounds + 1)
        if known.agreed not in [self._agreed(aggregation, at, n) for at in layouts for n in rounds]:
            raise ConfigurationError(
                f"{self._kept.path} holds a federation with other settings; give this one a "
                "folder of its own"
            )
        self._run, self._history = known.run, known.history
        return known.arrays

    def _agreed(self, aggregation: str, layout: str, rounds: int) -> str:
        noise = str(self._client_privacy)
        words = [self._model_name, rounds, aggregation, layout, noise]
        drawn = round_ranks(self._lora)  # what a server keeps of other runs stays as it was
        return json.dumps([*words, str(self._secure_sum), *([] if drawn is None else [str(drawn)])])
