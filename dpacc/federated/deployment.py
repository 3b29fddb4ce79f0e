"""What a deployed federation is told: the run by its server, each client by its own operator."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from dpacc_accounting.calibration.separated_noise import Correlation
from flwr.app import Context, Message
from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import AggregationName
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.robust import Defence, Rule
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.clients.trusting_client import TrustingClient
from dpacc.federated.flower_programs import draw_apart
from dpacc.federated.requests import COULD_NOT, refusal
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.settings import DPSettings, LoraSettings, PrivacyBudget, SharedMethod
from dpacc.federated.updates.compression import Compression
from dpacc.recipe.settings import Task as TaskName
from dpacc.recipe.settings import check_limits, read_settings, setting

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Settings = TypeVar("Settings", bound=DataclassInstance)

_LOG = logging.getLogger(__name__)

Deployed: TypeAlias = DPLoRAClient | SecureClient | TrustingClient
"""What a node may be."""


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What all agree on, from the app's `[tool.flwr.app.config]` and `flwr run --run-config`."""

    model: str = setting("Folder of the base that all share, or its id on the hub.")
    num_clients: int = setting("Clients that must be connected before the first round.", at_least=1)
    rounds: int = setting("R.", at_least=1)
    epsilon: float = setting("The most that any client may spend, or cost.", above=0)
    delta: float = setting("At which every epsilon is stated.", above=0, below=1)
    level: Literal["example", "client"] = setting(
        "example: clients add noise of their own; client: this server adds it to their sum, and a "
        "client as a whole is what it hides.",
        default="example",
    )
    clipping_norm: float | None = setting(
        "Client level: the norm to which the server clips each update.", default=None, above=0
    )
    min_separation: int = setting(
        "Client level: who took part in round t may again from round t + min_separation on.",
        default=1,
        at_least=1,
    )
    correlation: Correlation = setting(
        "Client level: how noise is correlated between rounds.", default="banded"
    )
    aggregation: AggregationName = setting("How adapters become one.", default="ffa")
    client_sampling_rate: float = setting(
        "The chance with which each client is asked in a round.", default=1.0, above=0, at_most=1
    )
    local_epochs: float = setting(
        "A client's expected passes over its data in one round.", default=1.0, above=0
    )
    defence: Rule = setting(
        "Against hostile clients; all but none also leave out outliers.", default="none"
    )
    attackers: int = setting("How many clients may be hostile.", default=0, at_least=0)
    compression_bits: int = setting("Bits of a number that is sent: 32, 8, 4.", default=32)
    compression_keep: float = setting(
        "The share of numbers that clients send, the largest.", default=1.0, above=0, at_most=1
    )
    round_timeout: float = setting(
        "Seconds after which a round goes on without who has not answered.",
        default=3600.0,
        above=0,
    )
    connect_timeout: float = setting(
        "Seconds that clients have to connect in.", default=600.0, above=0
    )
    secure_threshold: int | None = setting(
        "The server sees sums of at least so many updates; null shows it each.",
        default=None,
        at_least=2,
    )
    secure_protocol: ProtocolName = setting("How such a sum is shut.", default="secagg")
    secure_colluding: int = setting(
        "Clients that may work together with the server.", default=0, at_least=0
    )
    folder: str = setting("Where the server keeps its state and results.", default="federation")
    lora_rank: int = setting("Rank of the shared adapter.", default=8, at_least=1)
    lora_alpha: float = setting("The adapter is scaled by lora_alpha / lora_rank.", default=16.0)
    lora_method: SharedMethod = setting(
        "ffa trains B alone; lora both factors; dylora both, at one public rank a round.",
        default="ffa",
    )
    lora_target_modules: tuple[str, ...] = setting(
        "Layers that get adapters, by the last part of their names.", default=("all-linear",)
    )
    lora_top_layers: int | None = setting(
        "Adapt this many of the last blocks only.", default=None, at_least=1
    )
    seed: int = setting("Seeds A and a new head, which are public.", default=0, at_least=0)
    task: TaskName = setting("Text, or classes of texts or words.", default="causal-lm")
    labels: tuple[str, ...] | None = setting("Names of all classes.", default=None)

    def __post_init__(self) -> None:
        check_limits(settings=self)
        if (self.level == "client") != (self.clipping_norm is not None):
            raise ConfigurationError(
                f"level={self.level} and clipping_norm={self.clipping_norm}: at client level the "
                "server clips each update, so give its norm; at example level clients clip"
            )
        if self.level == "example" and self.min_separation > 1:
            raise ConfigurationError(
                f"min_separation={self.min_separation} with level=example, where every client "
                "keeps a budget of its own and need not wait; leave it out, or take level=client"
            )

    @property
    def budget(self) -> PrivacyBudget | None:
        """Example level: the most that any client may spend."""
        if self.level == "client":
            return None
        return PrivacyBudget(epsilon=self.epsilon, delta=self.delta)

    @property
    def client_privacy(self) -> ClientPrivacy | None:
        """Client level: the server's noise, for which all rounds cost epsilon."""
        if self.clipping_norm is None:
            return None
        return ClientPrivacy.calibrate(
            rounds=self.rounds,
            min_separation=self.min_separation,
            epsilon=self.epsilon,
            delta=self.delta,
            clipping_norm=self.clipping_norm,
            correlation=self.correlation,
        )

    @property
    def secure_sum(self) -> SecureSum | None:
        """The sum that the server sees instead of updates, if any."""
        if self.secure_threshold is None:
            return None
        return SecureSum(
            clients=self.num_clients,
            threshold=self.secure_threshold,
            colluding=self.secure_colluding,
            protocol=self.secure_protocol,
        )

    @property
    def defended(self) -> Defence | None:
        """What the server does about hostile clients, if anything."""
        wanted = self.defence != "none"
        return Defence(rule=self.defence, attackers=self.attackers) if wanted else None

    @property
    def compression(self) -> Compression | None:
        """What makes the clients' messages smaller, if anything."""
        bits, keep = self.compression_bits, self.compression_keep
        return None if (bits, keep) == (32, 1) else Compression(bits=bits, keep=keep)  # type: ignore[arg-type]  # checked there

    @property
    def lora(self) -> LoraSettings:
        """The adapter that all share."""
        return LoraSettings(
            rank=self.lora_rank,
            alpha=self.lora_alpha,
            method=self.lora_method,
            target_modules=self.lora_target_modules,
            top_layers=self.lora_top_layers,
            seed=self.seed,
        )

    @property
    def learned(self) -> dict[str, Any]:
        """What shapes the model, in the words of a `task`."""
        return {"task": self.task, "labels": self.labels}


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What one client decides for itself, from `flower-supernode --node-config`.

    All that decides how its records are read is here: a server that decided any of it could tell
    by an answer whether some record fits.
    """

    client_id: str = setting("How reports call it.")
    data_path: str = setting("Its examples, a local file.")
    folder: str = setting("Where its ledger and last update are kept.")
    model: str = setting("Its own copy of the model.")
    task: TaskName = setting("Text, or classes of texts or words.")
    labels: tuple[str, ...] | None = setting(
        "Names of all classes, if there are any.", default=None
    )
    max_length: int = setting("Tokens kept of each example.", at_least=2)
    trusts_server: bool = setting(
        "Its updates leave without noise, for a server that says that it adds it.", default=False
    )
    epsilon: float | None = setting(
        "All that it will ever spend in the federation.", default=None, above=0
    )
    delta: float | None = setting(
        "At which that is stated; all agree on it.", default=None, above=0, below=1
    )
    expected_batch_size: int = setting("Examples a local step holds on average.", at_least=1)
    max_grad_norm: float = setting("C, the clipping norm.", default=1.0, above=0)
    learning_rate: float = setting("AdamW's.", default=1e-3, above=0)
    most_rounds: int | None = setting(
        "The rounds that noise is sized for.", default=None, at_least=1
    )
    most_local_epochs: float = setting(
        "The most passes over its data that the server may ask for in a round.",
        default=1.0,
        above=0,
    )
    secure_threshold: int | None = setting(
        "Its updates leave inside sums of at least so many; null sends each alone.",
        default=None,
        at_least=2,
    )
    secure_clients: int | None = setting(
        "How many take part in such a sum; needed with secure_threshold.", default=None, at_least=2
    )
    secure_protocol: ProtocolName = setting("How such a sum is shut.", default="secagg")
    secure_colluding: int = setting(
        "Clients that may work together with the server.", default=0, at_least=0
    )
    rank: int | None = setting("Its own rank, below the shared one.", default=None, at_least=1)
    unit_field: str | None = setting("Field that says whose an example is.", default=None)
    unit_cap: int | None = setting(
        "The most examples of one unit that count in a step.", default=None, at_least=1
    )
    budget: str | None = setting("File of its data's budget.", default=None)
    text_field: str = setting("Field that holds the text.", default="text")
    label_field: str = setting("Field that holds the class.", default="label")
    prompt_field: str | None = setting("Field that holds a prompt.", default=None)
    completion_field: str | None = setting("Field that holds its completion.", default=None)

    def __post_init__(self) -> None:
        check_limits(settings=self)
        if (self.secure_threshold is None) != (self.secure_clients is None):
            raise ConfigurationError(
                f"secure_threshold={self.secure_threshold} and secure_clients="
                f"{self.secure_clients}: give both, or neither to send updates alone"
            )
        own = ("epsilon", "delta", "most_rounds")
        missing = [name for name in own if getattr(self, name) is None]
        if missing and not self.trusts_server:
            raise ConfigurationError(
                f"{missing[0]} is required: this node adds noise of its own, unless trusts_server"
            )
        idle = [
            name
            for name in (*own, "secure_threshold", "rank", "budget", "unit_field", "unit_cap")
            if getattr(self, name) is not None
        ]
        if idle and self.trusts_server:
            raise ConfigurationError(
                f"{idle[0]} with trusts_server: the server adds the noise and keeps the books, so "
                f"that {idle[0]} would have no effect; leave it out"
            )

    @property
    def secure_sum(self) -> SecureSum | None:
        """The only sum that it takes part in, whatever the server says of it."""
        if self.secure_threshold is None or self.secure_clients is None:
            return None
        return SecureSum(
            clients=self.secure_clients,
            threshold=self.secure_threshold,
            colluding=self.secure_colluding,
            protocol=self.secure_protocol,
        )

    @property
    def privacy(self) -> DPSettings:
        """Its own budget and training."""
        assert self.epsilon is not None
        assert self.delta is not None
        return DPSettings(
            epsilon=self.epsilon,
            delta=self.delta,
            expected_batch_size=self.expected_batch_size,
            max_grad_norm=self.max_grad_norm,
            learning_rate=self.learning_rate,
            most_rounds=self.most_rounds,
            most_local_epochs=self.most_local_epochs,
            unit_field=self.unit_field,
            unit_cap=self.unit_cap,
            budget=self.budget,
        )

    @property
    def learned(self) -> dict[str, Any]:
        """What its examples are and where their parts are, in the words of a `task`."""
        return {
            "task": self.task,
            "labels": self.labels,
            "max_length": self.max_length,
            "text_field": self.text_field,
            "label_field": self.label_field,
            "prompt_field": self.prompt_field,
            "completion_field": self.completion_field,
        }


def read_config(kind: type[Settings], config: UserConfig) -> Settings:
    """Read what Flower was given, naming what is unknown, missing or senseless.

    >>> read_config(RunSettings, {"model": "m", "num-clients": 2, "rounds": 5, "epsilon": 8.0,
    ...                           "delta": 1e-5, "lora-target-modules": "q_proj,v_proj"}).lora.rank
    8

    Raises:
        ConfigurationError: in one line.
    """
    if "config" in config:
        # `read_settings` would open the file that it names; Flower's own files are enough.
        raise ConfigurationError("unknown setting config: write settings where Flower reads them")
    return read_settings(kind=kind, arguments=[f"--{n}={v}" for n, v in config.items()])


def client_of(*, node_config: UserConfig, run_config: UserConfig) -> Deployed:
    """The client that this node is, in a run with these settings.

    Raises:
        ConfigurationError: a setting that is unknown, missing or senseless.
    """
    node = read_config(NodeSettings, node_config)
    run = read_config(RunSettings, run_config)
    return _client(node, run.lora)


def require_readable(node_config: UserConfig) -> None:
    """Read the model and every record as this node's own settings say, before it connects.

    Raises:
        ConfigurationError: a setting is missing or senseless, a record does not fit, or the node
            failed before.
    """
    node = read_config(NodeSettings, node_config)
    _client(node, LoraSettings()).require_readable()


def _client(node: NodeSettings, lora: LoraSettings) -> Deployed:
    if node.trusts_server:
        return TrustingClient(
            client_id=node.client_id,
            data_path=node.data_path,
            model_name=node.model,
            lora_config=lora,
            batch_size=node.expected_batch_size,
            learning_rate=node.learning_rate,
            task=node.learned,
            most_local_epochs=node.most_local_epochs,
            folder=node.folder,
        )
    client = DPLoRAClient(
        client_id=node.client_id,
        data_path=node.data_path,
        model_name=node.model,
        lora_config=lora,
        dp_config=node.privacy,
        task=node.learned,
        rank=node.rank,
        folder=node.folder,
    )
    settings = node.secure_sum
    return client if settings is None else SecureClient(client=client, secure_sum=settings)


def answer_once(make: Callable[[], Deployed], message: Message, context: Context) -> Message:
    """Make the client, let it answer, let go of its ledger; exceptions stay in the node's log."""
    draw_apart()
    try:
        client = make()
    except Exception:
        _LOG.exception("this node cannot be a client")
        return refusal(COULD_NOT, message)
    try:
        return client.app(message, context)
    except ValueError:  # Flower's, for a stage of secure sums
        return refusal("this client sends its updates alone; leave secure-threshold out", message)
    finally:
        if not isinstance(client, TrustingClient):
            client.close()
