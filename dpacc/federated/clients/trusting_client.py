"""A client of a federation whose server is trusted with updates, and adds the noise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from dpacc.federated.clients.client_data import OwnFiles
from dpacc.federated.clients.local_adapter import LocalAdapter
from dpacc.federated.clients.non_private_training import PlainTraining
from dpacc.federated.ranks.round_ranks import FirstRanks, rank_asked
from dpacc.federated.requests import (
    RequestRefused,
    Standstill,
    answered,
    read_local_epochs,
    read_packing,
    read_start,
    require_layout,
)
from dpacc.federated.setting_limits import require_positive, require_words
from dpacc.federated.settings import (
    DPSettings,
    LoraSettings,
    Task,
    lora_settings,
    training_config,
)


class TrustingClient:
    """One organisation in a client-level federation: its updates leave without noise.

    Nothing protects it from the server, which must be trusted to clip and to add noise; it refuses
    a server that does not say that it does.

    Args:
        client_id: how the server's reports call it.
        data_path: its examples, a local file.
        model_name: its own copy of the model, by whose tokenizer its records are read.
        lora_config: the adapter that all share.
        batch_size: of local training.
        learning_rate: AdamW's.
        task: what is learned; a mapping of `TrainingConfig`'s fields about data.
        most_local_epochs: the most passes over its data that a server may ask for in one round.
        folder: where it says that it stopped, should training ever fail.
    """

    def __init__(
        self,
        *,
        client_id: str,
        data_path: Path | str,
        model_name: str,
        lora_config: LoraSettings | Mapping[str, Any],
        batch_size: int,
        learning_rate: float = 1e-3,
        task: Mapping[str, Any] | None = None,
        most_local_epochs: float = 1.0,
        folder: Path | str | None = None,
    ) -> None:
        require_words("client_id", client_id)
        require_positive("most_local_epochs", most_local_epochs)
        self.client_id = client_id
        self.folder = Path(folder) if folder is not None else Path("federation") / client_id
        self.most_local_epochs, self._lora = most_local_epochs, lora_settings(lora_config)
        self._config = training_config(
            model=model_name,
            data_path=str(data_path),
            lora=self._lora,
            # The budget is the server's to keep; a run's words ask for one all the same.
            dp=DPSettings(
                epsilon=1.0,
                delta=0.5,
                expected_batch_size=batch_size,
                learning_rate=learning_rate,
            ),
            task=Task(fields=task or {}),
        )
        self._standstill = Standstill(self.folder)
        self._own_files = OwnFiles(self._config)
        self._adapter: LocalAdapter | None = None
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

    def require_readable(self) -> None:
        """Read the model and every record once, before any server asks.

        Raises:
            ConfigurationError: one cannot be read as this client's settings say.
            StoppedError: it failed before, and nobody has looked.
        """
        self._standstill.refuse_to_go_on()
        self._own_files.require_readable()

    def answer(self, message: Message) -> Message:
        """One round's update, or why there is none."""
        return answered(
            lambda: Message(self._update(message.content), reply_to=message),
            message=message,
            client=self.client_id,
        )

    def _update(self, content: RecordDict) -> RecordDict:
        asked = content.config_records["config"]
        adapter = self._agree(asked)
        start = read_start(content, adapter.shared)
        packing = read_packing(asked)
        rank = rank_asked(asked, number=packing.number, lora=self._lora)
        epochs = read_local_epochs(asked, most=self.most_local_epochs)
        ranks = FirstRanks(rank=rank or self._lora.rank, whole=start)
        with self._standstill.among_records():
            update = self._begin(adapter, epochs).run_round(ranks.silenced(start))
        narrow = ranks.narrow
        arrays = packing.pack(narrow(update), start=narrow(start), client=self.client_id)
        said = {"client": self.client_id, **({} if rank is None else {"rank": rank})}
        config = ConfigRecord(said)  # type: ignore[arg-type]  # a word and one number
        return RecordDict({"arrays": arrays, "config": config})

    def _agree(self, asked: ConfigRecord) -> LocalAdapter:
        """The adapter that the server asks for; no record is looked at.

        Raises:
            RequestRefused: the server wants another, or does not say that it adds noise.
        """
        self._standstill.refuse_to_go_on()
        if asked.get("privacy") != "client":
            raise RequestRefused(
                "this client's updates hold no noise and the server does not say that it adds any; "
                "use DPLoRAClient, or a FederatedServer with client_privacy"
            )
        if self._adapter is None:
            base = self._own_files.take_base()
            self._adapter = LocalAdapter(
                config=self._config, base=base, rank=None, compression=None
            )
        require_layout(asked, self._adapter.layout)
        return self._adapter

    def _begin(self, adapter: LocalAdapter, local_epochs: float) -> PlainTraining:
        if self._training is None:
            self._training = PlainTraining(
                config=self._config,
                adapter=adapter,
                data=self._own_files.data(adapter.base.tokenizer),
                local_epochs=local_epochs,
            )
        return self._training
