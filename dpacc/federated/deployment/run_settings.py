"""What all of a deployed federation agree on: its server's operator writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpacc_accounting.calibration.separated_noise import Correlation

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import AggregationName
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.listed_clients import ListedClients, read_listed_clients
from dpacc.federated.aggregation.robust import Defence, Rule
from dpacc.federated.aggregation.rollback import Rollback
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.settings import LoraSettings, PrivacyBudget, SharedMethod
from dpacc.federated.updates.compression import Compression
from dpacc.recipe.settings import Task as TaskName
from dpacc.recipe.settings import Tracker, check_limits, setting


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
    client_nodes: str | None = setting(
        "Client level: file of lines NAME = NODE, so that no node takes part as another; without "
        "it a client is whoever holds a registered key.",
        default=None,
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
    signal_to_noise: float | None = setting(
        "What one update's signal can be of its noise, as `dpacc federate tune` prints it; Krum, "
        "Bulyan, median and trimmed-mean ask for it.",
        default=None,
        above=0,
    )
    despite_noise: bool = setting("Take a defence that noise makes worse than none.", default=False)
    compression_bits: int = setting("Bits of a number that is sent: 32, 8, 4.", default=32)
    compression_keep: float = setting(
        "The share of numbers that clients send.", default=1.0, above=0, at_most=1
    )
    compression_selection: Literal["largest", "random"] = setting(
        "Which numbers those are: the largest, or some at public random places.",
        default="largest",
    )
    compression_limit: float | None = setting(
        "A public grid for codes, of numbers within ±limit: what secure sums can add.",
        default=None,
        above=0,
    )
    sketch_size: int | None = setting(
        "For fedask, the rank of the mean that is caught for certain; null catches all.",
        default=None,
        at_least=1,
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
    secure_neighbours: int | None = setting(
        "With how many others, whom it draws, each client of it shares its secrets; null takes as "
        "few as are safe, or all.",
        default=None,
        at_least=1,
    )
    secure_colluding: int = setting(
        "Clients that may work together with the server.", default=0, at_least=0
    )
    secure_signed: bool = setting(
        "Clients check one another's signed keys against lists of their own.", default=False
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
    held_out: str | None = setting(
        "Folder of held_out_<kind>.jsonl, public examples of the server's own to measure classes "
        "of texts on after each round.",
        default=None,
    )
    tolerated_drop: float | None = setting(
        "By how much their mean may fall in a round; beyond, the adapter before it is kept.",
        default=None,
        above=0,
    )
    held_out_max_length: int = setting("Tokens kept of each of them.", default=128, at_least=2)
    held_out_text_field: str = setting("Field that holds their text.", default="text")
    held_out_label_field: str = setting("Field that holds their class.", default="label")
    simulated_node: str | None = setting(
        "Under Flower's simulation, the file of every node's own settings, in which {partition} is "
        "the node's number; nodes with settings of their own do not read it.",
        default=None,
    )
    trackers: tuple[Tracker, ...] | None = setting(
        "Log ε and held-out quality after each round to tensorboard, wandb or trackio.",
        default=None,
    )

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
        if self.level == "example" and self.client_nodes is not None:
            raise ConfigurationError(
                f"client_nodes={self.client_nodes} with level=example, where nobody waits and a "
                "name decides nothing; leave it out, or take level=client"
            )
        if self.held_out is not None and self.task != "sequence-classification":
            raise ConfigurationError(
                f"held_out={self.held_out} with task={self.task}: the server measures classes of "
                "texts alone; leave it out, or take task=sequence-classification"
            )
        if self.tolerated_drop is not None and self.held_out is None:
            raise ConfigurationError(
                f"tolerated_drop={self.tolerated_drop:g} without held_out, which is what may fall: "
                "name a folder of held-out examples, or leave it out"
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
    def listed(self) -> ListedClients | None:
        """Who is who, if the run has a list of its clients."""
        return None if self.client_nodes is None else read_listed_clients(Path(self.client_nodes))

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
            neighbours=self.secure_neighbours or "auto",
            signed=self.secure_signed,
        )

    @property
    def defended(self) -> Defence | None:
        """What the server does about hostile clients, if anything."""
        if self.defence == "none":
            return None
        return Defence(
            rule=self.defence,
            attackers=self.attackers,
            signal_to_noise=self.signal_to_noise,
            despite_noise=self.despite_noise,
        )

    @property
    def rollback(self) -> Rollback | None:
        """When a round is given up, if ever."""
        drop = self.tolerated_drop
        return None if drop is None else Rollback(tolerated_drop=drop)

    @property
    def compression(self) -> Compression | None:
        """What makes the clients' messages smaller, if anything."""
        bits, keep, limit = self.compression_bits, self.compression_keep, self.compression_limit
        if (bits, keep, limit) == (32, 1, None):
            return None
        return Compression(
            bits=bits,  # type: ignore[arg-type]  # checked there
            keep=keep,
            selection=self.compression_selection,
            limit=limit,
        )

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

    @property
    def measured(self) -> dict[str, Any]:
        """How the server's own examples are read, in the words of a `task`."""
        return self.learned | {
            "max_length": self.held_out_max_length,
            "text_field": self.held_out_text_field,
            "label_field": self.held_out_label_field,
        }
