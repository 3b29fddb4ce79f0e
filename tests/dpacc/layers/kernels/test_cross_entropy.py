"""A token's loss and gradient from its logits, in two readings, as torch has them."""

from __future__ import annotations

import pytest
import torch

from dpacc.layers.kernels.cross_entropy import losses_in_place
from dpacc.losses.token_losses import _losses_in_place
from tests.dpacc.layers.kernels.devices import DEVICE

ROUNDING = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-10}


def both(logits: torch.Tensor, targets: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Losses and gradients by the kernel and by torch."""
    found = []
    for function in (losses_in_place, _losses_in_place):
        gradients = logits.clone()
        losses = function(gradients, targets, want_gradients=True)
        found.append((losses.cpu(), gradients.float().cpu()))
    return found


@pytest.mark.parametrize("words", [1, 37, 4101])
@pytest.mark.parametrize("dtype", ROUNDING)
def test_losses_and_gradients_are_torchs(dtype: torch.dtype, words: int) -> None:
    """For vocabularies of one word, less than a block, and a little more, some impossible."""
    logits = (5 * torch.randn(3, words, device=DEVICE)).to(dtype)
    targets = torch.tensor([0, words // 2, words - 1], device=DEVICE)
    logits[0, 1:3] = -torch.inf
    (losses, gradients), (their_losses, their_gradients) = both(logits, targets)
    assert (losses - their_losses).abs().max() < 1e-5
    assert (gradients - their_gradients).abs().max() <= ROUNDING[dtype]


def test_a_sure_token_loses_nothing_to_rounding() -> None:
    """The loss of a word that is nearly certain keeps its digits at large logits."""
    logits = torch.tensor([[1000.0, 990.0]], device=DEVICE)
    losses = losses_in_place(logits, torch.tensor([0], device=DEVICE), want_gradients=False)
    assert float(losses) == pytest.approx(4.5399e-5, rel=5e-3)
    assert logits.tolist() == [[1000.0, 990.0]]


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_no_number_stays_none() -> None:
    """A NaN among the logits, or nothing but impossible words, is no loss that could be clipped."""
    logits = torch.zeros(2, 37, device=DEVICE)
    logits[0, 30], logits[1] = torch.nan, -torch.inf
    (losses, _), (theirs, _) = both(logits, torch.zeros(2, dtype=torch.long, device=DEVICE))
    assert losses.isnan().all()
    assert theirs.isnan().all()


def test_a_tokens_numbers_are_the_same_bits_in_any_company() -> None:
    """Alone, and behind another token."""
    logits = torch.randn(2, 4101, device=DEVICE)
    targets = torch.tensor([5, 4100], device=DEVICE)
    (losses, gradients), _ = both(logits, targets)
    (alone, its_gradients), _ = both(logits[1:], targets[1:])
    assert torch.equal(alone, losses[1:])
    assert torch.equal(its_gradients, gradients[1:])
