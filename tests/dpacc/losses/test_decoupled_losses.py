"""Each head's loss is its own example's: equal to the model's own on one example at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2LMHeadModel,
    LlamaForCausalLM,
)

from dpacc.errors import ConfigurationError
from dpacc.losses.decoupled_losses import batch_losses_of, head_of, logit_losses_of
from tests.tiny_models import CONFIGURATIONS, VOCABULARY

_BERT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def bert(kind: type[Any], **settings: Any) -> Any:
    torch.manual_seed(0)
    return kind(BertConfig(**_BERT, **settings)).eval()


def words(*lengths: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, VOCABULARY, (len(lengths), max(lengths)), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return {"input_ids": ids, "attention_mask": mask.long()}


def token_labels(batch: dict[str, torch.Tensor], classes: int) -> torch.Tensor:
    return torch.where(batch["attention_mask"] == 1, batch["input_ids"] % classes, -100)


def cases() -> dict[str, tuple[Any, torch.Tensor]]:
    torch.manual_seed(0)
    batch = words(7, 3, 5)
    llama = LlamaForCausalLM(CONFIGURATIONS["llama"]).eval()
    several = bert(BertForSequenceClassification, num_labels=3)
    several.config.problem_type = "multi_label_classification"
    return {
        "causal": (llama, token_labels(batch, VOCABULARY)),
        "masked": (bert(BertForMaskedLM), token_labels(batch, VOCABULARY)),
        "tokens": (bert(BertForTokenClassification, num_labels=4), token_labels(batch, 4)),
        "class": (bert(BertForSequenceClassification, num_labels=3), torch.tensor([2, 0, 1])),
        "classes": (several, torch.tensor([[1.0, 0, 1], [0, 0, 0], [0, 1, 0]])),
        "number": (bert(BertForSequenceClassification, num_labels=1), torch.tensor([0.5, 2, -1])),
    }


@pytest.mark.parametrize("case", ["causal", "masked", "tokens", "class", "classes", "number"])
def test_every_loss_is_the_models_own_on_one_example(case: str) -> None:
    """From logits and from the batch: the loss that transformers gives the example alone."""
    model, labels = cases()[case]
    batch = words(7, 3, 5)
    with torch.no_grad():
        together = logit_losses_of(model)(model(**batch).logits, labels)
        from_batch = batch_losses_of(model)(model, {**batch, "labels": labels})
        alone = []
        for i, length in enumerate((7, 3, 5)):
            one = {name: value[i : i + 1, :length] for name, value in batch.items()}
            own = labels[i : i + 1, :length] if case in ("causal", "masked", "tokens") else None
            alone.append(model(**one, labels=labels[i : i + 1] if own is None else own).loss)
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(from_batch, together, rtol=1e-4, atol=1e-6)


def test_an_example_without_labels_has_no_loss() -> None:
    """All −100: loss 0, not NaN."""
    model, labels = cases()["tokens"]
    batch = words(7, 3, 5)
    with torch.no_grad():
        losses = logit_losses_of(model)(model(**batch).logits, torch.full_like(labels, -100))
    assert losses.tolist() == [0, 0, 0]


def test_heads_are_known_by_name_and_others_are_refused() -> None:
    """A head without a decoupled loss is refused, with `losses=` as the way out."""
    assert head_of(GPT2LMHeadModel(CONFIGURATIONS["gpt2"])) == "ForCausalLM"
    with pytest.raises(ConfigurationError, match="losses="):
        head_of(torch.nn.Linear(2, 2))
