"""What one client of a deployed federation decides for itself: its own operator writes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dpacc.errors import ConfigurationError
from dpacc.federated.ranks.rank_choice import PrivateRank, PublicRank
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from dpacc.federated.settings import DPSettings
from dpacc.recipe.settings import Task as TaskName
from dpacc.recipe.settings import check_limits, setting

_RANKS = ("rank", "rank_memory_bytes", "rank_upload_bytes", "rank_epsilon", "adaptive_rank")
"""Ways to say a node's rank, of which it takes one; the two limits go together."""

_WITH_NOISE = ("secure_threshold", "budget", "unit_field", "unit_cap", "cache_frozen_activations")
"""What only a node that adds noise of its own can mean."""


@dataclass(frozen=True, kw_only=True)
class NodeSettings:
    """What one client decides for itself, from `flower-supernode --node-config`.

    All that decides how its records are read is here: a server that decided any of it could tell
    by an answer whether some record fits.
    """

    client_id: str = setting("How reports call it.")
    data_path: str = setting("Its examples, a local file.")
    folder: str = setting("Where its ledger and last update are kept.")
    phase: int = setting(
        "1; then the next number, once records or rounds were added: a ledger of its own begins, "
        "and earlier phases stay counted within epsilon.",
        default=1,
        at_least=1,
    )
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
    secure_neighbours: int | None = setting(
        "With how many others, whom it draws, each client of it shares its secrets; null takes as "
        "few as are safe, or all.",
        default=None,
        at_least=1,
    )
    secure_colluding: int = setting(
        "Clients that may work together with the server.", default=0, at_least=0
    )
    secure_key: str | None = setting(
        "Its private key, to sign what it offers in such a sum; needed with secure_keys.",
        default=None,
    )
    secure_keys: str | None = setting(
        "Folder of every client's public key, NAME.pub: it takes part with no others.", default=None
    )
    rank: int | None = setting("Its own rank, below the shared one.", default=None, at_least=1)
    rank_memory_bytes: float | None = setting(
        "Instead of rank: the largest whose trained part fits into so much memory.",
        default=None,
        above=0,
    )
    rank_upload_bytes: float | None = setting(
        "Instead of rank: the largest whose update is no longer.", default=None, above=0
    )
    rank_epsilon: float | None = setting(
        "Instead of rank: choose it from the data, for this part of epsilon.",
        default=None,
        above=0,
    )
    adaptive_rank: bool = setting(
        "Instead of rank: choose it from the data, for 5% of epsilon.", default=False
    )
    unit_field: str | None = setting("Field that says whose an example is.", default=None)
    unit_cap: int | None = setting(
        "The most examples of one unit that count in a step.", default=None, at_least=1
    )
    budget: str | None = setting("File of its data's budget.", default=None)
    final_adapter: str | None = setting(
        "Folder for the finished adapter, which the server sends when its run is over.",
        default=None,
    )
    text_field: str = setting("Field that holds the text.", default="text")
    label_field: str = setting("Field that holds the class.", default="label")
    prompt_field: str | None = setting("Field that holds a prompt.", default=None)
    completion_field: str | None = setting("Field that holds its completion.", default=None)
    words_field: str = setting("For token-classification, the list of words.", default="words")
    messages_field: str | None = setting("Field that holds chat messages.", default=None)
    answers: tuple[str, ...] | None = setting(
        "All completions that there are, each one token; they are public.", default=None
    )
    learn_end: bool = setting("Whether a text teaches that it ends.", default=True)
    cache_frozen_activations: bool = setting(
        "Compute what lies beneath the adapters once, and keep it on this node's disk.",
        default=False,
    )

    def __post_init__(self) -> None:
        check_limits(settings=self)
        if (self.secure_threshold is None) != (self.secure_clients is None):
            raise ConfigurationError(
                f"secure_threshold={self.secure_threshold} and secure_clients="
                f"{self.secure_clients}: give both, or neither to send updates alone"
            )
        if (self.secure_key is None) != (self.secure_keys is None):
            raise ConfigurationError(
                f"secure_key={self.secure_key} and secure_keys={self.secure_keys}: give both, or "
                "neither to believe the server who is who"
            )
        if self.secure_keys is not None and self.secure_threshold is None:
            raise ConfigurationError(
                f"secure_keys={self.secure_keys} without secure_threshold: keys are checked in "
                "secure sums; give it, or leave the keys out"
            )
        own = ("epsilon", "delta", "most_rounds")
        missing = [name for name in own if getattr(self, name) is None]
        if missing and not self.trusts_server:
            raise ConfigurationError(
                f"{missing[0]} is required: this node adds noise of its own, unless trusts_server"
            )
        idle = [
            name
            for name in (*own, *_RANKS, *_WITH_NOISE)
            if getattr(self, name) not in (None, False)
        ]
        if idle and self.trusts_server:
            raise ConfigurationError(
                f"{idle[0]} with trusts_server: the server adds the noise and keeps the books, so "
                f"that {idle[0]} would have no effect; leave it out"
            )
        if self.phase > 1 and self.trusts_server:
            raise ConfigurationError(
                f"phase={self.phase} with trusts_server: the server keeps the books, and counts "
                "rounds; leave it out"
            )
        ranks = [name for name in _RANKS if getattr(self, name) not in (None, False)]
        if len(ranks) > 1 and ranks != ["rank_memory_bytes", "rank_upload_bytes"]:
            raise ConfigurationError(
                f"{' and '.join(ranks)}: a node's rank is decided in one way; leave the others out"
            )

    @property
    def phase_folders(self) -> tuple[Path, ...]:
        """Where each phase keeps its ledger, up to the one that is on.

        Raises:
            ConfigurationError: a later one has begun.
        """
        root = Path(self.folder)
        *folders, beyond = (root, *(root / f"phase-{k}" for k in range(2, self.phase + 2)))
        if (beyond / "ledger.jsonl").exists():
            raise ConfigurationError(
                f"phase={self.phase} is over: {beyond} has begun; name the last one"
            )
        return tuple(folders)

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
            neighbours=self.secure_neighbours or "auto",
            signed=self.secure_keys is not None,
        )

    @property
    def signing_keys(self) -> SigningKeys | None:
        """Whom it takes part with, where sums are signed.

        Raises:
            ConfigurationError: a file is missing or holds no key.
        """
        if self.secure_key is None or self.secure_keys is None:
            return None
        return SigningKeys(own=Path(self.secure_key), pinned=Path(self.secure_keys))

    @property
    def own_rank(self) -> int | PublicRank | PrivateRank | Literal["adaptive"] | None:
        """Its rank, what it must fit, or how it is chosen."""
        if self.adaptive_rank:
            return "adaptive"
        if self.rank_epsilon is not None:
            return PrivateRank(epsilon=self.rank_epsilon)
        if self.rank_memory_bytes is not None or self.rank_upload_bytes is not None:
            return PublicRank(
                memory_bytes=self.rank_memory_bytes, upload_bytes=self.rank_upload_bytes
            )
        return self.rank

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
            "words_field": self.words_field,
            "messages_field": self.messages_field,
            "answers": self.answers,
            "learn_end": self.learn_end,
            "cache_frozen_activations": self.cache_frozen_activations,
        }
