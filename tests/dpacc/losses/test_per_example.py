"""Per-example losses: the textbook number, and nobody else's business."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch.nn import functional as F

from dpacc.losses.per_example import causal_lm_losses
from dpacc.losses.token_losses import (
    _project_at_once,
    _project_in_tiles,
    projected_cross_entropy,
    token_cross_entropy,
)
from tests.tiny_models import collate, examples, tiny_base, tiny_model


@pytest.mark.parametrize("family", ["llama", "gptj", "gpt2"])
def test_a_single_example_has_the_loss_that_transformers_gives(family: str) -> None:
    """For one example the loss equals the model's own mean over tokens."""
    model = tiny_base(family).eval()
    for example in examples([2, 9, 17]):
        batch = collate([example])
        expected = model(**batch).loss
        torch.testing.assert_close(
            causal_lm_losses(model, batch)[0], expected, rtol=1e-5, atol=1e-6
        )


def test_a_loss_does_not_depend_on_its_neighbours() -> None:
    """Among longer neighbours each example keeps the loss it has alone."""
    model, data = tiny_model("llama").eval(), examples([4, 11, 2, 30])
    together = causal_lm_losses(model, collate(data))
    alone = torch.cat([causal_lm_losses(model, collate([example])) for example in data])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


class Watched(torch.nn.Module):
    """Remembers the widths of what a causal LM was given."""

    def __init__(self, base: torch.nn.Module) -> None:
        super().__init__()
        self.base = base
        self.widths: set[int] = set()

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.base.get_output_embeddings()

    def forward(self, **inputs: torch.Tensor) -> object:
        self.widths = {value.shape[1] for name, value in inputs.items() if name != "use_cache"}
        return self.base(**inputs)


def test_the_last_token_is_not_computed() -> None:
    """It predicts nothing and no other sees it, so losses are those of the whole batch.

    Where an input's shape does not say which part is the last token's, nothing is left out.
    """
    model, data = Watched(tiny_base("llama").eval()), examples([4, 11, 11])
    batch = collate(data)
    losses = causal_lm_losses(model, batch)
    assert model.widths == {10}
    logits = model(**{k: v for k, v in batch.items() if k != "labels"}).logits[:, :-1]
    each = F.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:], reduction="none")
    whole = each.sum(dim=1) / (batch["labels"][:, 1:] != -100).sum(dim=1)
    torch.testing.assert_close(losses, whole)
    square = (
        torch.ones(3, 1, 11, 11, dtype=torch.bool).tril()
        & batch["attention_mask"].bool()[:, None, None]
    )
    torch.testing.assert_close(
        causal_lm_losses(model, batch | {"attention_mask": square}), losses, rtol=1e-4, atol=1e-5
    )
    assert 11 in model.widths


def test_masked_tokens_are_neither_counted_nor_averaged_over() -> None:
    """A masked prompt changes the mean to that of the completion alone."""
    model, (example,) = tiny_base("llama").eval(), examples([10])
    masked = dict(example, labels=[-100] * 6 + example["labels"][6:])
    logits = model(**{k: v for k, v in collate([example]).items() if k != "labels"}).logits[0]
    expected = F.cross_entropy(logits[5:9], torch.tensor(example["input_ids"][6:]))
    torch.testing.assert_close(causal_lm_losses(model, collate([masked]))[0], expected)


def test_an_example_without_labels_has_loss_zero() -> None:
    """All padding, or a single token: zero, not NaN, alone or among others."""
    model, (short, long) = tiny_base("llama").eval(), examples([1, 6])
    blank = dict(long, labels=[-100] * 6)
    losses = causal_lm_losses(model, collate([short, blank, long]))
    assert losses[0] == 0
    assert losses[1] == 0
    assert losses[2] > 0
    assert causal_lm_losses(model, collate([short])).tolist() == [0.0]


def test_the_chunked_cross_entropy_equals_the_plain_one() -> None:
    """Values and gradients agree with torch's over several chunks."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(700, 50, generator=generator, requires_grad=True)
    targets = torch.randint(50, (700,), generator=generator)
    weights = torch.rand(700, generator=generator)
    plain = F.cross_entropy(logits, targets, reduction="none")
    (expected,) = torch.autograd.grad((plain * weights).sum(), logits)
    chunked = token_cross_entropy(logits, targets)
    (actual,) = torch.autograd.grad((chunked * weights).sum(), logits)
    torch.testing.assert_close(chunked, plain)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("sure", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_projected_cross_entropy_is_as_exact_as_the_plain_one(
    dtype: torch.dtype, sure: bool, biased: bool
) -> None:
    """Values and gradients, over several tiles of tokens and of words, against those in fp64.

    Also where nearly all of a token's probability lies on its own word.
    """
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(700, 16, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(4500, 16, generator=generator).to(dtype)
    bias = torch.randn(4500, generator=generator).to(dtype) if biased else None
    targets = torch.randint(4500, (700,), generator=generator)
    if sure:
        weight *= 10
        targets = F.linear(states, weight, bias).argmax(dim=1)

    def plain(kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = states.detach().to(kind).requires_grad_()
        logits = F.linear(leaf, weight.to(kind), None if bias is None else bias.to(kind))
        wide = logits.float() if kind == torch.bfloat16 else logits
        losses = F.cross_entropy(wide, targets, reduction="none")
        return losses, torch.autograd.grad(losses.sum(), leaf)[0]

    projected = projected_cross_entropy(states, weight, bias, targets)
    (gradient,) = torch.autograd.grad(projected.sum(), states)
    truth, rounded = plain(torch.float64), plain(dtype)
    one_rounding = 1.2e-7 * F.linear(states, weight, bias).abs().max()  # of the largest logit
    for actual, usual, exact in zip((projected, gradient), rounded, truth, strict=True):
        assert (actual - exact).abs().max() <= 2 * (usual - exact).abs().max() + one_rounding
    if sure:
        assert (truth[0] < 0.01).float().mean() > 0.2


@pytest.mark.parametrize("project", [_project_at_once, _project_in_tiles])
def test_autocast_does_not_reach_into_the_products(project: Callable[..., torch.Tensor]) -> None:
    """Logits of an fp32 head stay fp32, losses and gradients alike, at once or in tiles."""
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(n, 16, generator=generator) for n in (9, 50))
    targets, found = torch.randint(50, (9,), generator=generator), []
    for casts in (False, True):
        gradients = torch.empty_like(states)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=casts):
            losses = project(states, weight, None, targets, gradients)
        found.append((losses, gradients))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))


class Capped(torch.nn.Module):
    """A causal LM that caps its logits after the head, as some families do."""

    def __init__(self, base: torch.nn.Module) -> None:
        super().__init__()
        self.base = base

    def get_output_embeddings(self) -> torch.nn.Module:
        return self.base.get_output_embeddings()

    def forward(self, **inputs: torch.Tensor) -> object:
        output = self.base(**inputs)
        output.logits = 0.1 * torch.tanh(output.logits)
        return output


def test_what_a_model_does_to_its_logits_still_applies() -> None:
    """A model that caps its logits is noticed, and its capped logits are what is learned from."""
    model, (example,) = Capped(tiny_base("llama").eval()), examples([9])
    logits = model(**{k: v for k, v in collate([example]).items() if k != "labels"}).logits[0]
    expected = F.cross_entropy(logits[:-1], torch.tensor(example["input_ids"][1:]))
    plain = causal_lm_losses(model.base, collate([example]))[0]
    actual = causal_lm_losses(model, collate([example]))[0]
    torch.testing.assert_close(actual, expected)
    assert abs(actual - plain) > 1e-4


def test_a_model_without_an_output_head_is_refused() -> None:
    """A bare module is no causal LM, and the error says so."""
    with pytest.raises(TypeError, match="needs a causal LM"):
        causal_lm_losses(torch.nn.Linear(2, 2), collate(examples([3])))


@pytest.mark.parametrize("frozen_head", [True, False])
def test_virtual_tokens_in_front_shift_no_label(frozen_head: bool) -> None:
    """Under prompt tuning each word is foreseen from the states at its own words."""
    model = get_peft_model(
        tiny_base("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    ).eval()
    model.get_output_embeddings().weight.requires_grad_(not frozen_head)
    batch = collate(examples([5, 7]))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits[:, 3:-1]
    each = F.cross_entropy(
        logits.transpose(1, 2), batch["labels"][:, 1:], ignore_index=-100, reduction="none"
    )
    expected = each.sum(dim=1) / torch.tensor([4.0, 6.0])
    torch.testing.assert_close(causal_lm_losses(model, batch), expected, rtol=1e-5, atol=1e-5)
