"""What a guarantee leaves open, point by point."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpacc_accounting.events.event import Event, Selected
from dpacc_accounting.events.fields import nested_events


class Limit(NamedTuple):
    """One thing that ε says nothing of.

    Args:
        subject: what it is.
        words: the rest of the sentence that begins with it, and whatever follows.
    """

    subject: str
    words: str


def limits(*, plan: Mapping[str, Any], event: Event) -> tuple[Limit, ...]:
    """What a run's guarantee does not cover.

    Args:
        plan: the run's settings, of which `unit` and `dataset_size` are told.
        event: what was released, or would be: of a private search, its choice is counted.

    >>> from dpacc_accounting.events.event import Gaussian
    >>> found = limits(plan={"unit": "patient", "dataset_size": 90},
    ...                event=Gaussian(noise_multiplier=1.0))
    >>> found[-1].subject + found[-1].words
    'The size of the dataset, 90, which is treated as public.'
    """
    unit, size = plan["unit"], plan["dataset_size"]
    return (
        Limit("Hyper-parameter tuning.", f" {_tuning(event)}"),
        Limit(
            "What was read off the data before training.",
            " Class weights, vocabularies, label names and their number, normalisation, length "
            "caps, the choice of a chat template: whatever was computed from the private data "
            "without noise to set the run up is not in ε, and some of it is handed on with the "
            "model.",
        ),
        Limit(
            "Metrics without noise.",
            " Training losses, gradient norms, clipped fractions and actual batch sizes are "
            "computed from private data: whoever publishes them gives more away than ε says.",
        ),
        Limit(
            "Held-out data.",
            " Metrics on it, and model choices made by them, reveal facts about it.",
        ),
        Limit(
            "Time and machines.",
            " How long a step took, and how much memory, may depend on the examples.",
        ),
        Limit(
            "The base model's pre-training data",
            ", which this run neither knows nor protects.",
        ),
        Limit(
            "Other runs on the same data.",
            " Each adds to the total unless their ledgers are composed.",
        ),
        Limit(
            "Several contributions by one person.",
            f" The guarantee holds for one {unit}; someone behind k of them has at most k·ε, and "
            "a δ that grows faster.",
        ),
        Limit("The size of the dataset", f", {size}, which is treated as public."),
    )


def _tuning(event: Event) -> str:
    if any(isinstance(part, Selected) for part in nested_events(event)):
        return (
            "The search that this ledger charges is counted, as long as nothing but its best run "
            "was seen; any other choice by looking at runs on the same data is not."
        )
    return (
        "Choosing settings by looking at other runs on the same data costs privacy that is not "
        "counted here."
    )
