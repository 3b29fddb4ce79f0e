"""Ways in which one example moves its neighbours' gradients: how far, and that each is refused.

Every case has two data sets of which one holds one example more, and measures by how much their
un-noised sums differ, in units of C, where 1 is promised. C is the largest own gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import TensorDataset, default_collate
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ConvBertConfig,
    DataCollatorForLanguageModeling,
    default_data_collator,
)

from dpacc.engine import PrivacyEngine
from dpacc.errors import PrivacyError
from dpacc.losses import causal_lm_losses, classification_losses
from dpacc.strategies import Materialize
from tests.dpacc.test_adapters import materialize
from tests.dpacc.test_engine import RecordingOptimizer, plan_for
from tests.tiny_models import (
    VOCABULARY,
    collate,
    examples,
    save_tiny_llama,
    tiny_base,
    tiny_model,
    with_lora,
)

Losses = Callable[[nn.Module, Any], torch.Tensor]
Collate = Callable[[list[Any]], Any]


def farthest(
    model: nn.Module,
    data: Sequence[Any],
    extra: Any,
    *,
    losses: Losses = causal_lm_losses,
    collate: Collate = collate,
) -> float:
    """‖S(D ∪ {x}) − S(D)‖ / C of clipped sums, all examples in one micro-batch."""
    gradients = materialize(model)
    bound = max(float(_rows(gradients, model, [each], losses, collate).norm()) for each in data)

    def total(examples: list[Any]) -> torch.Tensor:
        rows = _rows(gradients, model, examples, losses, collate)
        return (rows * (bound / rows.norm(dim=1, keepdim=True)).clamp(max=1).nan_to_num(1.0)).sum(0)

    moved = float((total([*data, extra]) - total([*data])).norm()) / bound
    print(f"{moved:.1f} C")
    return moved


def _rows(
    gradients: Materialize, model: nn.Module, examples: list[Any], losses: Losses, collate: Collate
) -> torch.Tensor:
    return gradients.rows(losses(model, collate(examples))).clone()


def train(
    model: nn.Module,
    data: Sequence[Any],
    folder: Path,
    *,
    losses: Losses = causal_lm_losses,
    collate: Collate = collate,
    probe_examples: Sequence[Any] | None = None,
) -> None:
    """One private step on the data."""
    plan, ledger = plan_for(len(data), steps=1), folder / f"{len(list(folder.iterdir()))}.jsonl"
    engine = PrivacyEngine(Accelerator(cpu=True), plan, ledger=ledger)
    engine.prepare(model, RecordingOptimizer([p for p in model.parameters() if p.requires_grad]))
    for step in engine.steps(data, collate, probe_examples=probe_examples):
        for batch in step:
            step.backward(losses(model, batch))
        step.update()
    engine.close()


# --- losses -------------------------------------------------------------------------------


def token_mean(model: nn.Module, batch: Any) -> torch.Tensor:
    counts = (batch["labels"][:, 1:] != -100).sum(dim=1)
    return causal_lm_losses(model, batch) * counts / counts.float().mean()


def over_mean_weight(model: nn.Module, batch: Any) -> torch.Tensor:
    rows = {name: value for name, value in batch.items() if name != "weight"}
    return causal_lm_losses(model, rows) * batch["weight"] / batch["weight"].mean()


def over_mean_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses * (losses / losses.mean()).detach()


def through_mean_loss(model: nn.Module, batch: Any) -> torch.Tensor:
    losses = causal_lm_losses(model, batch)
    return losses + 1e-3 * losses.mean().square()


def padded_to(width: int, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of one length, each with padding of its own."""
    return [
        {
            "input_ids": each["input_ids"] + [0] * (width - len(each["input_ids"])),
            "labels": each["labels"] + [-100] * (width - len(each["labels"])),
            "attention_mask": [1] * len(each["labels"]) + [0] * (width - len(each["labels"])),
        }
        for each in examples(lengths)
    ]


def test_a_mean_over_tokens_of_rows_of_one_length(tmp_path: Path) -> None:
    """Padded beforehand, rows have one length and differ in how many tokens they learn."""
    row, extra = padded_to(60, [4, 60])
    data = [row] * 60
    case: dict[str, Any] = {"losses": token_mean, "collate": default_data_collator}
    assert farthest(tiny_model("llama"), data, extra, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)


def weighted(batch: list[Any]) -> Any:
    return collate(batch) | {"weight": torch.tensor([each["weight"] for each in batch])}


def test_losses_over_the_mean_weight_of_the_batch(tmp_path: Path) -> None:
    """A weight of one's own divided by the neighbours'."""
    data = [{**each, "weight": 0.2} for each in examples([5] * 20)]
    extra = {**examples([5], seed=3)[0], "weight": 20.0}
    case: dict[str, Any] = {"losses": over_mean_weight, "collate": weighted}
    assert farthest(tiny_model("llama"), data, extra, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("losses", [over_mean_loss, through_mean_loss])
def test_losses_over_the_mean_loss_of_the_batch(
    losses: Losses, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Invented texts differ in how hard they are, and no loss may reach through a neighbour."""
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(sharp_model(dtype), examples([5] * 4), tmp_path, losses=losses)


def sharp_model(dtype: torch.dtype) -> nn.Module:
    """A tiny model whose losses differ from text to text, as a trained one's do."""
    base = tiny_base("llama").requires_grad_(False)
    base.lm_head.weight.mul_(40.0)
    model = with_lora(base.to(dtype), "llama")
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return model


# --- collate functions --------------------------------------------------------------------


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Of words, as `AutoTokenizer` reads it."""
    folder = tmp_path_factory.mktemp("words")
    words = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "the"]
    save_tiny_llama(folder, words=words)
    return AutoTokenizer.from_pretrained(folder)


def test_texts_that_are_tokenized_in_the_collate_function(tokenizer: Any, tmp_path: Path) -> None:
    """Invented texts differ in length and content, so that a mean over tokens shows."""

    def collate_texts(batch: list[Any]) -> Any:
        rows = tokenizer([each["text"] for each in batch], padding=True, return_tensors="pt")
        labels = rows["input_ids"].masked_fill(rows["attention_mask"] == 0, -100)
        return {**rows, "labels": labels}

    data = [{"text": "alpha bravo charlie"}] * 20
    case: dict[str, Any] = {"losses": token_mean, "collate": collate_texts}
    assert farthest(tiny_model("llama"), data, {"text": "delta echo " * 60}, **case) > 2
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(tiny_model("llama"), data, tmp_path, **case)
    train(tiny_model("llama"), data, tmp_path, collate=collate_texts)


def by_length(batch: list[Any]) -> Any:
    return collate(sorted(batch, key=lambda each: len(each["input_ids"])))


def by_label(batch: list[Any]) -> Any:
    return collate(sorted(batch, key=lambda each: each["labels"][0]))


def without_the_last(batch: list[Any]) -> Any:
    return collate(batch[:-1] or batch)


def with_a_memory() -> Collate:
    seen: list[int] = []

    def remembering(batch: list[Any]) -> Any:
        seen.append(len(batch))
        rows = collate(batch)
        return rows | {"attention_mask": rows["attention_mask"] * len(seen)}

    return remembering


@pytest.mark.parametrize(
    ("function", "refusal"),
    [
        (by_length, "put example . into row"),
        (by_label, "put example . into row"),
        (without_the_last, "made 3 rows of 4 examples"),
        (with_a_memory(), "two different batches of the same"),
    ],
)
def test_a_collate_function_keeps_order_and_number(
    function: Collate, refusal: str, tmp_path: Path
) -> None:
    """A sorted batch would give one unit's rows to another."""
    with pytest.raises(PrivacyError, match=refusal):
        train(tiny_model("llama"), examples([5] * 4), tmp_path, collate=function)


def test_masks_that_a_collate_function_draws_are_secret(tokenizer: Any, tmp_path: Path) -> None:
    """It passes the probe, draws other masks each time, and leaves the global generator alone."""
    tokenizer.mask_token = "<unk>"
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    seen: list[torch.Tensor] = []

    def collate_masked(batch: list[Any]) -> Any:
        rows = collator([{"input_ids": each["input_ids"]} for each in batch])
        seen.append(rows["labels"])
        return dict(rows)

    data = [{"input_ids": [4, 5, 6, 7, 8, 9, 10, 11] * 4}] * 4
    drawn = []
    for _ in range(2):
        model = tiny_model("llama")
        before = torch.manual_seed(0).get_state()
        train(model, data, tmp_path, collate=collate_masked)
        assert torch.equal(torch.get_rng_state(), before)
        drawn.append(seen[-1])
    assert drawn[0].shape == drawn[1].shape
    assert not torch.equal(*drawn)


def test_a_collate_function_with_a_seed_of_its_own_is_refused(
    tokenizer: Any, tmp_path: Path
) -> None:
    """Nobody but it can key what it draws."""
    tokenizer.mask_token = "<unk>"
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5, seed=1)
    with pytest.raises(PrivacyError, match="leave out its seed"):
        train(tiny_model("llama"), [{"input_ids": [4, 5, 6]}] * 4, tmp_path, collate=collator)


# --- models -------------------------------------------------------------------------------


def convolutional_model(dtype: torch.dtype) -> nn.Module:
    """A stock classifier with convolutions over tokens, which read beyond an example's end."""
    torch.manual_seed(0)
    config = ConvBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        embedding_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        initializer_range=0.15,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
    )
    base = AutoModelForSequenceClassification.from_config(config).requires_grad_(False).to(dtype)
    model = with_lora(base, "bert")
    for parameter in model.parameters():
        parameter.data = parameter.data.float() if parameter.requires_grad else parameter.data
    return model


def with_class(lengths: Sequence[int], seed: int = 0) -> list[dict[str, Any]]:
    return examples(lengths, family="bert", seed=seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_that_read_padding(dtype: torch.dtype, tmp_path: Path) -> None:
    """What they do to each short row of a micro-batch adds up; 16 bits do not hide it."""
    for each in (data := with_class([5] * 200)):
        each["labels"] %= 2
    (extra,) = with_class([13], seed=1)
    extra["labels"] %= 2
    case: dict[str, Any] = {"losses": classification_losses}
    assert farthest(convolutional_model(dtype), data, extra, **case) > 1.5
    with pytest.raises(PrivacyError, match=r"with its padding.*reads beyond the attention mask"):
        train(convolutional_model(dtype), data, tmp_path, **case)


def padded_on_the_left(batch: list[Any]) -> Any:
    rows = collate(batch)
    return {
        name: torch.stack(
            [
                row.roll(int((mask == 0).sum()))
                for row, mask in zip(value, rows["attention_mask"], strict=True)
            ]
        )
        for name, value in rows.items()
    }


def test_padding_on_the_left_is_named(tmp_path: Path) -> None:
    """Where positions are counted from the edge, they follow the longest row; the remedy works."""
    with pytest.raises(PrivacyError, match=r"padded on the left.*padding_side = 'right'"):
        train(tiny_model("gpt2"), examples([5] * 4), tmp_path, collate=padded_on_the_left)
    train(tiny_model("gpt2"), examples([5] * 4), tmp_path)


def test_a_padding_word_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    """A causal classifier reads the last word that is no padding; the remedy works."""

    def model(padding: int) -> nn.Module:
        torch.manual_seed(0)
        config = tiny_base("llama").config
        config.pad_token_id, config.num_labels = padding, 3
        base = AutoModelForSequenceClassification.from_config(config)
        return with_lora(base, "bert", targets=["q_proj", "v_proj"])

    data = with_class([5] * 4)
    with pytest.raises(PrivacyError, match=r"with token 0.*config\.pad_token_id = 0"):
        train(model(7), data, tmp_path, losses=classification_losses)
    train(model(0), data, tmp_path, losses=classification_losses)


class Standardised(nn.Module):
    """Standardises by the batch in training, and drops out beside."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.drop = nn.Dropout(0.1)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = self.inner(states)
        if self.training:
            states = (states - states.mean(dim=(0, 1))) / (states.std(dim=(0, 1)) + 1e-3)
        return self.drop(states)


class OneScale(nn.Linear):
    """A frozen layer whose input is rounded to 8 bits by one scale for the whole micro-batch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        scale = input.detach().abs().max() / 448
        rounded = (input.detach() / scale).to(torch.float8_e4m3fn).to(input.dtype) * scale
        return super().forward(input + (rounded - input).detach())


class RunningMaximum(nn.Module):
    """Keeps the largest number it saw in a buffer, which is saved."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(()))

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        self.largest = torch.maximum(self.largest, states.detach().abs().max())
        return states


def changed(change: Callable[[nn.Module], None]) -> nn.Module:
    base = tiny_base("llama").requires_grad_(False)
    change(base.model)
    return with_lora(base, "llama", targets=["q_proj", "v_proj"])


def standardise(model: Any) -> None:
    model.norm = Standardised(model.norm)


def one_scale(model: Any) -> None:
    for layer in model.layers:
        old = layer.mlp.down_proj
        layer.mlp.down_proj = OneScale(old.in_features, old.out_features, bias=False)
        layer.mlp.down_proj.weight = nn.Parameter(30 * old.weight, requires_grad=False)


def observe(model: Any) -> None:
    model.norm = nn.Sequential(model.norm, RunningMaximum())


def test_standardising_by_the_batch_beside_a_dropout(tmp_path: Path) -> None:
    """Modules stay in training mode while the probe looks."""
    (extra,) = examples([200], seed=3)
    assert farthest(changed(standardise), examples([5] * 20), extra) > 1.2
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(changed(standardise), examples([5] * 4), tmp_path)


def test_one_scale_for_all_activations_is_seen(tmp_path: Path) -> None:
    """Whoever converted the layer, other neighbours round an example otherwise."""
    data, extra = examples([5] * 200), examples([60], seed=3)[0]
    farthest(changed(one_scale), data, extra)
    with pytest.raises(PrivacyError, match="examples beside it"):
        train(changed(one_scale), examples([5] * 4), tmp_path)


def test_a_buffer_that_changes_is_refused(tmp_path: Path) -> None:
    """An exact maximum of private activations would be saved with the adapter."""
    with pytest.raises(PrivacyError, match=r"norm\.1\.largest changed in training"):
        train(changed(observe), examples([5] * 4), tmp_path)


# --- data of other kinds ------------------------------------------------------------------


class Network(nn.Module):
    """A plain module, without a configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 5), nn.Tanh(), nn.Linear(5, 3))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.layers(pictures)


def class_losses(model: nn.Module, batch: Any) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def several_losses(model: nn.Module, batch: Any) -> torch.Tensor:
    scores = model(batch["pixel_values"])
    return nn.functional.binary_cross_entropy_with_logits(
        scores, batch["labels"], reduction="none"
    ).mean(dim=1)


def test_plain_modules_learn_from_tuples_and_pictures(tmp_path: Path) -> None:
    """A TensorDataset of pictures needs no probe_examples; a mean over it is still refused."""
    data = TensorDataset(torch.randn(8, 3, 4, 4), torch.arange(8) % 3)
    case: dict[str, Any] = {"collate": default_collate}
    train(Network(), data, tmp_path, losses=class_losses, **case)
    with pytest.raises(PrivacyError, match="with the examples beside it"):
        train(Network(), data, tmp_path, losses=lambda m, b: class_losses(m, b) / len(b[0]), **case)


def test_labels_that_are_several_numbers(tmp_path: Path) -> None:
    """Yes or no to each of several classes, as a list of floats beside a picture."""
    data = [{"pixel_values": torch.randn(3, 4, 4), "labels": [1.0, 0.0, 1.0]} for _ in range(8)]
    train(Network(), data, tmp_path, losses=several_losses, collate=default_data_collator)
