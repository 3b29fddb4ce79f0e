"""A client of the federation: answers Flower's training messages with private updates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from flwr.app import ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.federated.aggregation.sketch_messages import answer_second
from dpacc.federated.clients.client_data import OwnFiles
from dpacc.federated.clients.earlier_phases import EarlierPhases, require_same_size
from dpacc.federated.clients.last_update import LastUpdate, Update
from dpacc.federated.clients.local_adapter import LocalAdapter
from dpacc.federated.clients.local_training import LocalTraining
from dpacc.federated.clients.rank_at_client import OwnRank
from dpacc.federated.ranks.rank_choice import PrivateRank, PublicRank
from dpacc.federated.ranks.round_ranks import FirstRanks, rank_asked
from dpacc.federated.ranks.tuning import Participant, participant
from dpacc.federated.requests import (
    SEEN,
    RequestRefused,
    Standstill,
    answered,
    read_local_epochs,
    read_number,
    read_packing,
    read_sketches,
    read_start,
    request_of,
    require_layout,
    round_of,
)
from dpacc.federated.setting_limits import require_words
from dpacc.federated.settings import (
    DPSettings,
    LoraSettings,
    Task,
    dp_settings,
    lora_settings,
    training_config,
)
from dpacc.federated.updates.layout import Arrays, to_record
from dpacc.federated.updates.packing import Packing
from dpacc.federated.updates.said_notes import said_of


class DPLoRAClient:
    """One organisation: its data, its budget, its ledger.

    Only noised adapters leave it, after their steps were charged to its ledger; no loss, no count
    of examples, and no word of an error that its data could have shaped. What is read, and how, is
    its own settings' alone; what a server asks wrongly is refused before any record is looked at.
    An update that was made but perhaps never arrived is sent again as it was, without another
    charge.

    Args:
        client_id: how reports call it.
        data_path: its examples, a local file.
        model_name: its own copy of the model, by whose tokenizer its records are read.
        lora_config: the adapter that all share; like dp_config, a mapping of its fields will do.
        dp_config: its own budget and training.
        task: what is learned; a mapping of `TrainingConfig`'s fields about data.
        rank: its own r_i, below the shared adapter's r: it trains the first r_i columns of B beside
            the first r_i rows of the shared A. By default r. A `PublicRank` fits it to memory and
            bandwidth; a `PrivateRank` chooses it from the data for a part of this client's ε;
            "adaptive" is one of 5% of it.
        folder: where its ledger and last update are kept.
        earlier_phases: folders of earlier phases on records of the same owner, the first one
            first; what they may have cost is taken from this client's ε.
        fixed_seed: for tests; noted in the ledger.

    Raises:
        ConfigurationError: a wrong setting, two that contradict each other, or an earlier phase
            that cannot be counted.
    """

    @names_what_is_unknown(of="DPLoRAClient")
    def __init__(
        self,
        *,
        client_id: str,
        data_path: Path | str,
        model_name: str,
        lora_config: LoraSettings | Mapping[str, Any],
        dp_config: DPSettings | Mapping[str, Any],
        task: Mapping[str, Any] | None = None,
        rank: int | PublicRank | PrivateRank | Literal["adaptive"] | None = None,
        folder: Path | str | None = None,
        earlier_phases: Sequence[Path] = (),
        fixed_seed: int | None = None,
    ) -> None:
        require_words("client_id", client_id)
        self.client_id = client_id
        self.dp_config = dp = dp_settings(dp_config)
        self.lora_config = lora = lora_settings(lora_config)
        self.folder = Path(folder) if folder is not None else Path("federation") / client_id
        self._earlier = EarlierPhases(earlier_phases, dp=dp)
        left = self._earlier.left
        self._config = training_config(
            model=model_name,
            data_path=str(data_path),
            lora=lora,
            dp=left,
            task=Task(fields=task or {}),
        )
        self._own_rank = OwnRank(
            rank, lora=lora, dp=left, folder=self.folder, fixed_seed=fixed_seed
        )
        self._fixed_seed = fixed_seed
        self._last = LastUpdate(self.folder)
        self._standstill = Standstill(self.folder)
        self._own_files = OwnFiles(self._config)
        self._adapter: LocalAdapter | None = None
        self._training: LocalTraining | None = None

    @property
    def most_local_epochs(self) -> float:
        """The most passes over its data that a server may ask for in one round."""
        return self.dp_config.most_local_epochs

    @property
    def app(self) -> ClientApp:
        """This client as Flower runs it, in process or on a SuperNode."""
        app = ClientApp()

        @app.train()
        @app.query()
        def train(message: Message, context: Context) -> Message:
            del context
            return self.answer(message)

        return app

    @property
    def training(self) -> LocalTraining:
        """The client's model and books, once it was first asked for a round."""
        if self._training is None:
            raise ConfigurationError(f"{self.client_id} was not asked for a round yet")
        return self._training

    def require_readable(self) -> None:
        """Read the model and every record once, before any server asks.

        Raises:
            ConfigurationError: one cannot be read as this client's settings say, or there are more
                or fewer than its ledger was begun for.
            StoppedError: it failed before, and nobody has looked.
        """
        self._standstill.refuse_to_go_on()
        require_same_size(
            self._own_files.require_readable(),
            ledger=self.folder / "ledger.jsonl",
            data=self._config.train_data,
        )
        self._own_files.require_batches_of(self.dp_config.expected_batch_size)

    def participant(self, *, rounds: int, local_epochs: float) -> Participant:
        """The noise that it will train with, by its records' number, which is public.

        Args:
            rounds: of the federation.
            local_epochs: expected passes over its data in one round.
        """
        own = self._earlier.left
        return participant(
            name=self.client_id,
            dataset_size=self._own_files.size,
            batch_size=own.expected_batch_size,
            rounds=own.most_rounds or rounds,
            local_epochs=local_epochs,
            epsilon=own.epsilon - self._own_rank.set_aside,
            delta=own.delta,
        )

    def answer(self, message: Message) -> Message:
        """One round's update, the second part of it where a rule asks twice, or why there is none.

        The second part is computed from the same noised update, so it costs nothing.
        """
        second = message.metadata.message_type == MessageType.QUERY
        work = self._second if second else self._update
        return answered(
            lambda: Message(work(message.content), reply_to=message),
            message=message,
            client=self.client_id,
        )

    def close(self) -> None:
        """Let go of the ledger, and of the model."""
        if self._training is not None:
            self._training.close()
        self._training = self._adapter = None

    def _update(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        packing, adapter = self._agree(asked)
        rank = rank_asked(asked, number=packing.number, lora=self.lora_config)
        start = read_start(content, adapter.shared | _corrections(adapter, asked))
        sketching = read_sketches(asked, adapter.factors)
        epochs = read_local_epochs(asked, most=self.dp_config.most_local_epochs)
        training = self._begin(asked, epochs)
        charged = training.steps_charged + self._earlier.steps_in(str(asked["run"]))
        _refuse_older_books(asked, charged)
        request = request_of(asked, start)
        update = self._last.find(lambda kept: kept == request)
        if update is None:
            with self._standstill.among_records():
                if self._own_rank.settle(training, start):
                    self.close()
                    training = self._begin(asked, epochs)
                if (beside := self._earlier.note) is not None:
                    training.note(subject=beside.subject, text=beside.text)
                update = training.run_round(start, rank=rank)
            self._last.keep(update, request=request)
        ranks = training.ranks if rank is None else FirstRanks(rank=rank, whole=start)
        if sketching is None:
            narrow = ranks.narrow
            arrays = packing.pack(narrow(update.arrays), start=narrow(start), client=self.client_id)
        else:
            arrays = to_record(sketching.first(update.arrays))
        said = {"client": self.client_id, "rank": ranks.rank, "unit": training.plan.unit}
        return RecordDict(
            {
                "arrays": arrays,
                "metrics": self._books(training, update, run=str(asked["run"])),
                "config": ConfigRecord(said),  # type: ignore[arg-type]  # words and one number
            }
        )

    def _second(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        update = self._last.find(lambda request: request.startswith(round_of(asked)))
        if update is None:
            raise RequestRefused("a second question about a round that was not answered")
        _, adapter = self._agree(asked)
        sketching = read_sketches(asked, adapter.factors)
        if sketching is None:
            raise RequestRefused("a second question, and no sketch was asked for")
        try:
            return answer_second(content, sketching=sketching, update=update.arrays)
        except ConfigurationError as error:
            raise RequestRefused(str(error)) from error

    def _agree(self, asked: ConfigRecord) -> tuple[Packing, LocalAdapter]:
        """How an update is to be sent, and the adapter that it is of; no record is looked at.

        Raises:
            RequestRefused: the server wants another adapter, or updates without noise.
        """
        self._standstill.refuse_to_go_on()
        if asked.get("privacy") != "example":
            raise RequestRefused("this client adds its own noise; the server wants updates without")
        packing = read_packing(asked)
        if self._adapter is None:
            self._adapter = LocalAdapter(
                config=self._config,
                base=self._own_files.take_base(),
                rank=self._own_rank.now,
                compression=packing.compression,
            )
        require_layout(asked, self._adapter.layout)
        return packing, self._adapter

    def _begin(self, asked: ConfigRecord, local_epochs: float) -> LocalTraining:
        if self._training is None:
            rounds = self.dp_config.most_rounds or int(read_number(asked, "rounds"))
            _, adapter = self._agree(asked)
            with self._standstill.among_records():
                self._training = LocalTraining(
                    config=self._config,
                    adapter=adapter,
                    data=self._own_files.data(adapter.base.tokenizer),
                    rounds=rounds,
                    local_epochs=local_epochs,
                    set_aside=self._own_rank.set_aside,
                    folder=self.folder,
                    fixed_seed=self._fixed_seed,
                )
        return self._training

    def _books(self, training: LocalTraining, update: Update, *, run: str) -> MetricRecord:
        """What accounting needs; all of it follows from public settings and counts of steps."""
        spent = self._earlier.added_to(self._own_rank.spent(training))
        return MetricRecord(
            {
                "epsilon": spent.epsilon,
                "delta": spent.delta,
                "epsilon-budget": self.dp_config.epsilon,
                "noise-multiplier": training.plan.noise_multiplier,
                "sampling-probability": training.plan.sampling_probability,
                "steps-charged": training.steps_charged + self._earlier.steps_in(run),
                "steps-taken": update.steps,
                "choice-epsilon": self._own_rank.charged + self._earlier.choices_in(run),
                **said_of(spent),
            }
        )


def _corrections(adapter: LocalAdapter, asked: ConfigRecord) -> Arrays:
    return adapter.corrections() if asked.get("corrected") else {}


def _refuse_older_books(asked: ConfigRecord, charged: int) -> None:
    """Give nothing on a ledger that forgot steps which a server has seen.

    Raises:
        RequestRefused: it was brought back from an older copy, or the server's word is wrong.
    """
    seen = asked.get(SEEN, 0)
    if not isinstance(seen, int) or charged < seen:
        raise RequestRefused(
            f"this client's ledger holds {charged} steps and the server has seen "
            f"{seen!r}: it is an older copy, and more steps would cost more than it says; bring "
            "back the whole ledger"
        )
