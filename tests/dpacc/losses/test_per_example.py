"""Per-example losses: the textbook number, and nobody else's business."""

from __future__ import annotations

import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from torch.nn import functional as F

from dpacc.losses.per_example import causal_lm_losses
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


def test_the_head_projects_nothing_that_is_not_learned() -> None:
    """Of a frozen head, whose product with one token would cost a copy of it in 16 bits."""
    model, batch = tiny_base("llama").eval().requires_grad_(False), collate(examples([4, 6]))
    expected = causal_lm_losses(model, batch)  # which sees once what a model adds to its head
    seen: list[int] = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, arguments, output: seen.append(arguments[0].numel()))
    assert torch.equal(causal_lm_losses(model, batch), expected)
    assert seen == [0]


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
