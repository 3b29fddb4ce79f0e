"""A client of a federation whose server is trusted with updates, and adds the noise."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpacc.federated.client import RequestRefused, read_packing, read_start, refusal
from dpacc.federated.plain_training import PlainTraining
from dpacc.federated.settings import DPSettings, LoraSettings, Task, training_config

_LOG = logging.getLogger(__name__)


class TrustingClient:
    """One organisation in a client-level federation: its updates leave without noise.

    Nothing protects it from the server, which must be trusted to clip and to add noise; it refuses
    a server that does not say that it does.

    Args:
        client_id: how the server's reports call it.
        data_path: its examples, a local file.
        lora_config: the adapter that all share.
        batch_size: of local training.
        learning_rate: AdamW's.
        task: what is learned; a mapping of `TrainingConfig`'s fields about data.
        model_name: its own copy of the model; by default what the server names.
    """

    def __init__(
        self,
        *,
        client_id: str,
        data_path: Path | str,
        lora_config: LoraSettings,
        batch_size: int,
        learning_rate: float = 1e-3,
        task: dict[str, Any] | None = None,
        model_name: str | None = None,
    ) -> None:
        self.client_id = client_id
        self._data_path = str(data_path)
        self._lora = lora_config
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._task = Task(fields=task or {})
        self._model_name = model_name
        self._training: PlainTraining | None = None

    @property
    def app(self) -> ClientApp:
        """This client as Flower runs it."""
        app = ClientApp()

        @app.train()
        def train(message: Message, context: Context) -> Message:
            del context
            return self.answer(message)

        return app

    def answer(self, message: Message) -> Message:
        """One round's update, or why there is none."""
        try:
            return Message(self._update(message.content), reply_to=message)
        except RequestRefused as refused:
            return refusal(str(refused), message)
        except Exception as error:  # its text may say something about private records
            _LOG.exception("client %s could not answer", self.client_id)
            return refusal(f"the client stopped with {type(error).__name__}", message)

    def _update(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        if asked["privacy"] != "client":
            raise RequestRefused(
                "this client's updates hold no noise and the server does not say that it adds any; "
                "use DPLoRAClient, or a FederatedServer with client_privacy"
            )
        training = self._begin(asked)
        if asked["layout"] != training.layout:
            raise RequestRefused("the adapters' layout differs from the server's")
        start = read_start(content, training.shared)
        packing = read_packing(asked)
        arrays = packing.pack(training.run_round(start), start=start, client=self.client_id)
        return RecordDict({"arrays": arrays, "config": ConfigRecord({"client": self.client_id})})

    def _begin(self, asked: ConfigRecord) -> PlainTraining:
        if self._training is None:
            # The budget is the server's to keep; a run's words ask for one all the same.
            dp = DPSettings(
                epsilon=1.0,
                delta=0.5,
                expected_batch_size=self._batch_size,
                learning_rate=self._learning_rate,
            )
            config = training_config(
                model=self._model_name or str(asked["model"]),
                data_path=self._data_path,
                lora=self._lora,
                dp=dp,
                task=self._task,
            )
            epochs = float(str(asked["local-epochs"]))
            self._training = PlainTraining(config=config, local_epochs=epochs)
        return self._training
