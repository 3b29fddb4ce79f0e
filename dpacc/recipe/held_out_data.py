"""Whether a recipe's held-out data may be measured on: nobody's private data, or said to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dpacc.data.overlap import OVERLAP_NOTE, require_apart
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig


def admit_held_out(
    *,
    config: TrainingConfig,
    private: Sequence[Any],
    held_out: Sequence[Any],
    owners: Sequence[Any] | None,
    held_out_owners: Sequence[Any],
) -> list[tuple[str, str]]:
    """See that a recipe's held-out data is nobody's private data.

    Args:
        config: says whether private examples may be measured on.
        private: the private examples.
        held_out: the held-out ones; none where none were named.
        owners: whose the private examples are, if a unit is larger than one.
        held_out_owners: whose the held-out ones are, as far as that is known.

    Returns:
        What the ledger must say, where an overlap was allowed: subjects and texts.

    Raises:
        ConfigurationError: there is an overlap that was not allowed, or that would steer whitening.
    """
    if not held_out:
        return []
    whitens = config.lora_method == "whitened"
    try:
        require_apart(
            private=private,
            held_out=held_out,
            what=f"held_out_data={config.held_out_data}",
            remedy="train by another lora_method, for whitening puts them into the weights"
            if whitens
            else "say so with --allow_held_out_overlap true",
            owners=owners or (),
            held_out_owners=held_out_owners,
        )
    except ConfigurationError:
        if not config.allow_held_out_overlap or whitens:
            raise
        return [OVERLAP_NOTE]
    return []
