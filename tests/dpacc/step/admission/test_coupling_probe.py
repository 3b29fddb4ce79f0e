"""The coupling probe: made-up micro-batches, real gradients, and a verdict with a culprit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from dpacc.errors import PrivacyError
from dpacc.layers.gradient_buffer import FirstGradient, Layout, Slot
from dpacc.step.admission.coupling_probe import CouplingProbe
from dpacc.step.admission.probe_verdict import Changes, Surroundings, Verdict

NOWHERE = Surroundings(padded_on_the_left=False, padding_words=frozenset(), padding_word=None)


def conclude(
    *, dtype: torch.dtype = torch.float32, most_rows: int = 1, norm: float = 1.0, **changes: Any
) -> None:
    verdict = Verdict(model=nn.Linear(1, 1).to(dtype), most_rows=most_rows)
    verdict.conclude(norm, Changes(**changes), NOWHERE)


def test_the_verdict_allows_rounding_and_nothing_more() -> None:
    """fp32 rounding passes, a few tenths of a percent do not."""
    conclude(among=1e-6, others=1e-6, again=1e-6)
    for kind in ("among", "others"):
        with pytest.raises(PrivacyError, match=r"changed by 0\.4% with the examples beside it"):
            conclude(**{kind: 0.004})
    with pytest.raises(PrivacyError, match="from one forward to the next"):
        conclude(again=0.004, others=0.004)
    with pytest.raises(PrivacyError, match="longer than a length at which"):
        conclude(beyond=0.004)


def test_16_bits_have_room_among_other_lengths_only() -> None:
    """There sums are taken in another order; at equal shapes rows are rounded alike."""
    half = torch.bfloat16
    conclude(among=0.06, beyond=0.06, dtype=half)
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        conclude(others=0.06, dtype=half)
    conclude(others=0.06, same_shapes=False, dtype=half)
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        conclude(among=0.5, dtype=half)


def test_beside_as_much_to_learn_16_bits_have_no_more_room() -> None:
    """Where that was seen, other companies may round as other lengths do, and this one may not."""
    half = torch.bfloat16
    conclude(others=0.02, alike=1e-3, dtype=half)
    refused: list[dict[str, Any]] = [{"alike": 0.02}, {"others": 0.02}, {"others": 0.2, "alike": 0}]
    for changes in refused:
        with pytest.raises(PrivacyError, match="with the examples beside it"):
            conclude(dtype=half, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"unlike_labels": True, "dtype": torch.bfloat16}, True),
        ({"unlike_labels": True, "dtype": torch.float32}, False),
        ({"dtype": torch.bfloat16}, False),
    ],
)
def test_examples_that_learn_unlike_numbers_of_labels_are_named(
    changes: dict[str, Any], told: bool
) -> None:
    """Where no twin is, for somebody gave the examples, and rounding may explain the change."""
    with pytest.raises(PrivacyError, match="with the examples beside it") as refused:
        conclude(others=0.02, **changes)
    assert ("third and fourth have as many" in str(refused.value)) == told


def test_less_is_allowed_where_one_row_can_touch_many() -> None:
    """What padding does to every row of a micro-batch adds up, so all together move little."""
    half = torch.bfloat16
    conclude(padded=0.004, dtype=half, most_rows=2)
    with pytest.raises(PrivacyError, match=r"changed by 0\.40% with its padding"):
        conclude(padded=0.004, dtype=half, most_rows=400)


def test_a_loss_must_not_reach_through_a_neighbour() -> None:
    """Any gradient of one example's loss through another's row is refused, in any precision."""
    with pytest.raises(PrivacyError, match="through the examples beside it"):
        conclude(leaked=1e-4, dtype=torch.bfloat16)


@pytest.mark.parametrize("norm", [0.0, float("nan"), float("inf")])
def test_a_gradient_that_shows_nothing_is_refused(norm: float) -> None:
    """Zero or NaN on the made-up example proves nothing, so training does not start."""
    with pytest.raises(PrivacyError, match="shows nothing"):
        conclude(norm=norm)


@pytest.mark.parametrize(
    "kind", ["among", "others", "alike", "leaked", "padded", "beyond", "again"]
)
def test_a_gradient_that_becomes_nan_is_refused(kind: str) -> None:
    """NaN in any company counts as a change."""
    with pytest.raises(PrivacyError):
        conclude(**{kind: float("nan")})


def probe_of(
    weight: torch.Tensor, *, dtype: torch.dtype = torch.float32, unlearned: float = 4.0
) -> CouplingProbe:
    """Of five numbers as examples, one of which may have nothing to learn."""

    def collate(examples: list[float]) -> dict[str, torch.Tensor]:
        values = torch.tensor(examples)[:, None]
        return {"values": values, "labels": torch.where(values == unlearned, -100, 1)}

    def gradients(losses: torch.Tensor) -> FirstGradient:
        first = FirstGradient(Layout({"w": weight}), device=losses.device)  # type: ignore[dict-item]
        first.take(Slot(name="w", index=0, offset=0, shape=weight.shape), losses.detach()[:, None])
        return first

    return CouplingProbe(
        model=nn.Linear(1, 1).to(dtype),
        examples=[1.0, 2.0, 3.0, 4.0],
        twin=5.0,
        collate=collate,
        gradients=gradients,
    )


def test_the_probe_keeps_no_gradient() -> None:
    """Not even of made-up examples, once it has concluded."""
    weight = torch.ones(3, requires_grad=True)
    probe = probe_of(weight)
    sizes = []
    for rehearsal in probe.rehearsals():
        sizes.append(rehearsal.examples)
        rehearsal.take((rehearsal.batch["values"] * weight).sum(dim=1))
    assert sizes == [1, 3, 3, 1]
    assert not any(isinstance(value, torch.Tensor) for value in vars(probe).values())
    assert probe._seen == []


def rehearse_in_16_bits(
    coupling: Callable[[dict[str, torch.Tensor]], torch.Tensor], **given: float
) -> list[int]:
    """How many examples each micro-batch had, where losses are scaled by what the batch says."""
    weight = torch.ones(3, requires_grad=True)
    sizes = []
    for rehearsal in probe_of(weight, dtype=torch.bfloat16, **given).rehearsals():
        sizes.append(rehearsal.examples)
        losses = (rehearsal.batch["values"] * weight).sum(dim=1)
        rehearsal.take(losses * coupling(rehearsal.batch))
    return sizes


def test_rounding_that_follows_how_much_is_learned_is_no_coupling_in_16_bits() -> None:
    """A head's product has as many rows as tokens are learned, and other sizes round otherwise."""

    def by_labels(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return 1 + 0.03 * (batch["labels"] != -100).sum()

    assert rehearse_in_16_bits(by_labels) == [1, 3, 3, 3, 1]


def test_what_neighbours_say_is_a_coupling_in_16_bits_too() -> None:
    """2% of change beside another with as much to learn is refused."""

    def by_values(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return 1 + 0.03 * batch["values"].amax() / 3

    with pytest.raises(PrivacyError, match=r"changed by 1\.9% with the examples beside it"):
        rehearse_in_16_bits(by_values)


def test_where_all_have_as_much_to_learn_16_bits_have_no_more_room_among_others() -> None:
    """6% of change among those is refused, whatever the twin shows: nothing rounds otherwise."""

    def by_values(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return 1 + 0.06 * (batch["values"] == 4.0).any()

    with pytest.raises(PrivacyError, match=r"changed by 6\.0% with the examples beside it"):
        rehearse_in_16_bits(by_values, unlearned=-1.0)


def test_one_example_alone_is_no_probe() -> None:
    """Without neighbours there is nothing to compare."""
    with pytest.raises(PrivacyError, match="at least two"):
        CouplingProbe(
            model=nn.Linear(1, 1), examples=[{}], collate=list, gradients=lambda losses: losses
        )
