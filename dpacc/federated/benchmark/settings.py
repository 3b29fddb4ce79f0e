"""What a benchmark of federations compares, and what it holds fixed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from dpacc.errors import ConfigurationError
from dpacc.federated.settings import AggregationName, SharedMethod
from dpacc.recipe.settings import check_limits, setting

Baseline = Literal["central", "local"]
Partition = Literal["owner", "label", "quantity", "kind"]
Unit = Literal["example", "owner"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Five lists, every combination of which is trained, and what all combinations share.

    Data is said to be public: no ε is charged for choosing among the cells of a benchmark.
    """

    models: tuple[str, ...] = setting("Folders of models, or their ids on the hub.")
    data_sets: tuple[str, ...] = setting(
        "reviews, products, news, tweets, sentences (all four), shakespeare, chats, clinical, or "
        ".jsonl files."
    )
    epsilons: tuple[float, ...] = setting("ε of every client, over all rounds.")
    clients: tuple[int, ...] = setting("Numbers of clients.")
    aggregations: tuple[AggregationName, ...] = setting(
        "How adapters become one.", default=("ffa",)
    )
    baselines: tuple[Baseline, ...] = setting(
        "central: everything in one place; local: each client alone.", default=("central", "local")
    )
    partition: Partition = setting(
        "How records are dealt to clients: by whose they are, by label, by quantity, or by kind.",
        default="owner",
    )
    alpha: float = setting(
        "Of the Dirichlet law by which labels or quantities differ: less is less alike.",
        default=0.5,
        above=0,
    )
    delta: float = setting("δ at which every ε is stated.", default=1e-5, above=0, below=1)
    unit: Unit = setting("Whose privacy: an example's, or its owner's.", default="example")
    repeats: int = setting("How often each cell is trained, with new noise.", default=1, at_least=1)

    rounds: int = setting("How often the clients' adapters become one.", default=5, at_least=1)
    local_epochs: float = setting("Expected passes of a client in a round.", default=0.5, above=0)
    sampling_rate: float = setting(
        "The share of its units that a client's step holds on average.",
        default=0.25,
        above=0,
        at_most=1,
    )
    learning_rate: float = setting("AdamW's, constant.", default=0.1, above=0)
    max_grad_norm: float = setting("C, the clipping norm.", default=1.0, above=0)
    lora_rank: int = setting("Rank of the adapters.", default=4, at_least=1)
    lora_alpha: float = setting("Adapters are scaled by this / rank.", default=0.5, above=0)
    lora_target_modules: tuple[str, ...] = setting("Adapted layers.", default=("all-linear",))
    lora_top_layers: int = setting(
        "Adapt this many of the last blocks; what lies beneath is computed once.",
        default=1,
        at_least=1,
    )
    seed: int = setting("Of partitions, choices of records, and adapters; public.", default=0)

    data_folder: str = setting("Where fetched data sets are.", default="data")
    examples: int | None = setting(
        "Of each data set at most so many are learned.", default=None, at_least=2
    )
    held_out_examples: int | None = setting("And so many measured on.", default=None, at_least=2)
    max_length: int = setting("Tokens kept of each text.", default=64, at_least=2)
    held_out: str | None = setting(
        "Of a .jsonl file of one's own: what is measured on.", default=None
    )
    labels: tuple[str, ...] | None = setting(
        "Of the same: its classes; without, its texts are modelled.", default=None
    )
    label_field: str = setting("Of the same.", default="label")
    text_field: str = setting("Of the same.", default="text")
    owner_field: str | None = setting("Of the same: who wrote a record.", default=None)
    kind_field: str | None = setting("Of the same: which kind it is of.", default=None)

    workers: int = setting("How many cells are trained side by side.", default=1, at_least=1)
    name: str = setting("Name of the folder.", default="benchmark")
    output_dir: str = setting("Folder that holds the folders of all runs.", default="runs")

    def __post_init__(self) -> None:
        check_limits(settings=self)
        for name in ("models", "data_sets", "epsilons", "clients", "aggregations"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ConfigurationError(f"{name}={values} must name each value once")
        if min(self.epsilons) <= 0 or min(self.clients) < 1:
            raise ConfigurationError(
                f"epsilons={self.epsilons} must all be above 0, clients={self.clients} at least 1"
            )
        if self.unit == "owner" and self.partition != "owner":
            raise ConfigurationError(
                f"unit=owner beside partition={self.partition}: an owner at two clients would lose "
                "more than either ledger says; set partition=owner"
            )


def method_of(aggregation: AggregationName) -> SharedMethod:
    """The adapter that a rule needs: A is frozen under `ffa`, and trained under the others.

    >>> method_of("ffa"), method_of("fedex")
    ('ffa', 'lora')
    """
    return "ffa" if aggregation == "ffa" else "lora"
