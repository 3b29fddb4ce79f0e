"""A client of the federation: answers Flower's training messages with private updates."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from flwr.app import (
    ConfigRecord,
    Context,
    Error,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.constant import ErrorCode
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from dpacc.errors import BudgetExhausted, ConfigurationError, DpaccError
from dpacc.federated.layout import Arrays, digest_of, from_record, to_record
from dpacc.federated.local_training import LocalTraining
from dpacc.federated.own_rank import OwnRank
from dpacc.federated.packing import Packing
from dpacc.federated.rank_choice import PrivateRank, PublicRank
from dpacc.federated.settings import DPSettings, LoraSettings, Task, training_config
from dpacc.federated.sketch_messages import answer_second, read_sketching
from dpacc.federated.sketches import Sketching

SPENT = "budget spent: "
"""How the refusal of a client begins that has nothing left to give."""


_LOG = logging.getLogger(__name__)


class RequestRefused(DpaccError):  # noqa: N818 - reads as what happened
    """The server's own message is wrong, so that telling it why reveals nothing."""


class DPLoRAClient:
    """One organisation: its data, its budget, its ledger.

    Only noised adapters leave it, after their steps were charged to its ledger; no loss, no count
    of examples, and no text of an error that its data could have shaped. An update that was made
    but perhaps never arrived is sent again as it was, without another charge.

    Args:
        client_id: how reports call it.
        data_path: its examples, a local file.
        lora_config: the adapter that all share.
        dp_config: its own budget and training.
        task: what is learned; a mapping of `TrainingConfig`'s fields about data.
        rank: its own r_i, below the shared adapter's r: it trains the first r_i columns of B beside
            the first r_i rows of the shared A. By default r. A `PublicRank` fits it to memory and
            bandwidth; a `PrivateRank` chooses it from the data for a part of this client's ε;
            "adaptive" is one of 5% of it.
        model_name: its own copy of the model; by default what the server names.
        folder: where its ledger and last update are kept.
        fixed_seed: for tests; noted in the ledger.
    """

    def __init__(
        self,
        *,
        client_id: str,
        data_path: Path | str,
        lora_config: LoraSettings,
        dp_config: DPSettings,
        task: dict[str, Any] | None = None,
        rank: int | PublicRank | PrivateRank | Literal["adaptive"] | None = None,
        model_name: str | None = None,
        folder: Path | str | None = None,
        fixed_seed: int | None = None,
    ) -> None:
        self.client_id = client_id
        self.dp_config = dp_config
        self.lora_config = lora_config
        self.folder = Path(folder) if folder is not None else Path("federation") / client_id
        self._data_path = str(data_path)
        self._task = Task(fields=task or {})
        self._own_rank = OwnRank(
            rank, lora=lora_config, dp=dp_config, folder=self.folder, fixed_seed=fixed_seed
        )
        self._model_name = model_name
        self._fixed_seed = fixed_seed
        self._training: LocalTraining | None = None

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

    def answer(self, message: Message) -> Message:
        """One round's update, the second part of it where a rule asks twice, or why there is none.

        The second part is computed from the same noised update, so it costs nothing.
        """
        second = message.metadata.message_type == MessageType.QUERY
        work = self._second if second else self._update
        try:
            return Message(work(message.content), reply_to=message)
        except BudgetExhausted as spent:
            return refusal(f"{SPENT}{spent}", message)
        except RequestRefused as refused:
            return refusal(str(refused), message)
        except Exception as error:  # its text may say something about private records
            _LOG.exception("client %s could not answer", self.client_id)
            return refusal(f"the client stopped with {type(error).__name__}", message)

    def close(self) -> None:
        """Let go of the ledger."""
        if self._training is not None:
            self._training.close()
            self._training = None

    def _update(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        packing = read_packing(asked)
        training = self._begin(asked, packing)
        if asked["layout"] != training.layout:
            raise RequestRefused(
                "the adapters' layout differs from the server's: give both the same model and "
                "lora settings"
            )
        if asked["privacy"] != "example":
            raise RequestRefused("this client adds its own noise; the server wants updates without")
        like = training.shared | (training.corrections() if asked["corrected"] else {})
        start = read_start(content, like)
        sketching = read_sketches(asked, training)
        request = _request(asked, start)
        update = self._sent_before(request)
        if update is None:
            if self._own_rank.settle(training, start):
                self.close()
                training = self._begin(asked, packing)
            update = training.run_round(start)
            self._keep(update, request)
        if sketching is None:
            narrow = training.ranks.narrow
            arrays = packing.pack(narrow(update), start=narrow(start), client=self.client_id)
        else:
            arrays = to_record(sketching.first(update))
        return RecordDict(
            {
                "arrays": arrays,
                "metrics": self._books(training),
                "config": ConfigRecord({"client": self.client_id, "rank": training.ranks.rank}),
            }
        )

    def _second(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        update = self._kept(lambda request: request.startswith(_round_of(asked)))
        if update is None:
            raise RequestRefused("a second question about a round that was not answered")
        training = self._begin(asked, read_packing(asked))
        sketching = read_sketches(asked, training)
        if sketching is None:
            raise RequestRefused("a second question, and no sketch was asked for")
        try:
            return answer_second(content, sketching=sketching, update=update)
        except ConfigurationError as error:
            raise RequestRefused(str(error)) from error

    def _begin(self, asked: ConfigRecord, packing: Packing) -> LocalTraining:
        if self._training is None:
            model = self._model_name or str(asked["model"])
            self._training = LocalTraining(
                config=training_config(
                    model=model,
                    data_path=self._data_path,
                    lora=self.lora_config,
                    dp=self.dp_config,
                    task=self._task,
                ),
                rounds=self.dp_config.most_rounds or int(_number(asked, "rounds")),
                local_epochs=_number(asked, "local-epochs"),
                rank=self._own_rank.now,
                compression=packing.compression,
                set_aside=self._own_rank.set_aside,
                folder=self.folder,
                fixed_seed=self._fixed_seed,
            )
        return self._training

    def _books(self, training: LocalTraining) -> MetricRecord:
        """What accounting needs; all of it follows from public settings and counts of steps."""
        spent = self._own_rank.spent(training)
        return MetricRecord(
            {
                "epsilon": spent.epsilon,
                "delta": spent.delta,
                "epsilon-budget": self.dp_config.epsilon,
                "noise-multiplier": training.plan.noise_multiplier,
                "sampling-probability": training.plan.sampling_probability,
                "steps-charged": training.steps_charged,
                "choice-epsilon": self._own_rank.charged,
            }
        )

    def _sent_before(self, request: str) -> Arrays | None:
        return self._kept(lambda kept: kept == request)

    def _kept(self, fits: Callable[[str], bool]) -> Arrays | None:
        """The last update, if it answered a request that fits."""
        path = self.folder / "last_update.safetensors"
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                if not fits((file.metadata() or {}).get("request", "")):
                    return None
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except SafetensorError:  # torn: the update is made anew, and charged anew
            return None

    def _keep(self, update: Arrays, request: str) -> None:
        path = self.folder / "last_update.safetensors"
        partial = path.with_suffix(".partial")
        save_file(update, partial, metadata={"request": request})
        partial.replace(path)


def read_start(content: RecordDict, like: Arrays) -> Arrays:
    """The adapter that the server sent.

    Raises:
        RequestRefused: it is not what was agreed.
    """
    try:
        return from_record(content.array_records["arrays"], like=like)
    except ConfigurationError as error:
        raise RequestRefused(str(error)) from error


def read_packing(asked: ConfigRecord) -> Packing:
    """How the server wants updates to be sent.

    Raises:
        RequestRefused: in a way that is not known here.
    """
    try:
        return Packing.asked(asked)
    except (ConfigurationError, ValueError) as error:
        raise RequestRefused(str(error)) from error


def read_sketches(asked: ConfigRecord, training: LocalTraining) -> Sketching | None:
    """The sketches that the server wants instead of an update, if any.

    Raises:
        RequestRefused: their size is senseless.
    """
    try:
        return read_sketching(asked, training.factors)
    except (ConfigurationError, ValueError) as error:
        raise RequestRefused(str(error)) from error


def _round_of(asked: ConfigRecord) -> str:
    """How the name of every request of this run and round begins."""
    return json.dumps([asked["run"], asked["server-round"]]) + " "


def _request(asked: ConfigRecord, start: Arrays) -> str:
    """What identifies a request: the run, the round, and the adapters it starts from."""
    return _round_of(asked) + digest_of(start)


def _number(asked: ConfigRecord, name: str) -> float:
    value = asked[name]
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise RequestRefused(f"the server asks for {name}={value!r}; it must be above 0")
    return value


def refusal(reason: str, message: Message) -> Message:
    """An answer without an update."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
