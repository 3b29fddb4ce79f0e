"""What a model answers, class by class: predictions, and how good they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dpacc.data.supervision import IGNORED, Example, tokenize_examples
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.evaluation import (
    evaluating,
    held_out_perplexity,
    in_batches,
    losses_of_texts,
)
from dpacc.recipe.examples import read_held_out_records
from dpacc.recipe.objective import losses_for

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# More different completions than these are texts, not answers.
_MOST_ANSWERS = 20
# Words of a text that a sample goes on from.
_BEGINNING = 6

Collate = Callable[[list[Example]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How good predictions are.

    Args:
        accuracy: the share that is right.
        f1: of each class, 2·precision·recall / (precision + recall); 0 where none is right.
    """

    accuracy: float
    f1: Mapping[str, float]

    @property
    def macro_f1(self) -> float:
        """The mean over classes, each counting alike."""
        return sum(self.f1.values()) / len(self.f1)


def quality_of(*, predicted: Sequence[int], true: Sequence[int], labels: Sequence[str]) -> Quality:
    """Accuracy and F1 of predicted places in `labels`.

    Raises:
        ConfigurationError: there is nothing to predict.

    >>> found = quality_of(predicted=[0, 0, 1, 1], true=[0, 1, 1, 1], labels=["sad", "happy"])
    >>> found.accuracy, {name: round(f1, 2) for name, f1 in found.f1.items()}
    (0.75, {'sad': 0.67, 'happy': 0.8})
    """
    pairs = list(zip(predicted, true, strict=True))
    if not pairs:
        raise ConfigurationError("no held-out example has a label to predict: use longer ones")
    f1 = {}
    for place, name in enumerate(labels):
        right = sum(guess == place == truth for guess, truth in pairs)
        claimed = sum((guess == place) + (truth == place) for guess, truth in pairs)
        f1[name] = 2 * right / claimed if claimed else 0.0
    return Quality(accuracy=sum(guess == truth for guess, truth in pairs) / len(pairs), f1=f1)


def predict_classes(
    *, model: nn.Module, examples: Sequence[Example], collate: Collate, max_tokens: int = 4096
) -> tuple[list[int], list[int]]:
    """A classifier's likeliest classes of texts or labelled tokens, and the true ones.

    Args:
        model: a sequence or token classifier; its mode is left as it was.
        examples: with `labels`; −100 is left out.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
    """
    predicted, true = [], []
    with evaluating(model):
        for _, batch in in_batches(model, examples, collate, max_tokens):
            labels = batch.pop("labels")
            guesses = model(**batch).logits.argmax(dim=-1)
            predicted += guesses[labels != IGNORED].tolist()
            true += labels[labels != IGNORED].tolist()
    return predicted, true


def class_probabilities(
    *, model: nn.Module, examples: Sequence[Example], collate: Collate, max_tokens: int = 4096
) -> list[list[list[float]]]:
    """Of each example, for each of its labelled tokens, the softmax over a classifier's logits.

    A text that is classified whole has one such list, [1, classes].

    Args:
        model: a sequence or token classifier; its mode is left as it was.
        examples: with `labels`, of which only those that are −100 matter: they are left out.
        collate: makes a batch of a list of examples.
        max_tokens: padded tokens in one micro-batch.
    """
    found: list[list[list[float]]] = [[] for _ in examples]
    with evaluating(model):
        for positions, batch in in_batches(model, examples, collate, max_tokens):
            labels = batch.pop("labels")
            shares = model(**batch).logits.float().softmax(dim=-1)
            for row, place in enumerate(positions):
                found[place] = (
                    shares[row][labels[row] != IGNORED].reshape(-1, shares.shape[-1]).tolist()
                )
    return found


def answer_probabilities(
    *,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    answers: Sequence[str],
    collate: Collate,
    max_length: int = 512,
    max_tokens: int = 4096,
) -> Tensor:
    """[prompts, answers], how likely each of `answers` is after a prompt, if it is one of them.

    The softmax over answers of Σ log p of all tokens of each.

    Args:
        model: a causal LM; its mode is left as it was.
        tokenizer: the model's.
        prompts: texts to be continued.
        answers: possible continuations, joined to the prompt as they are.
        collate: makes a batch of a list of examples.
        max_length: tokens kept of each prompt with its answer.
        max_tokens: padded tokens in one micro-batch.
    """
    losses = []
    for answer in answers:
        examples = tokenize_examples(
            records=[{"prompt": prompt, "answer": answer} for prompt in prompts],
            tokenizer=tokenizer,
            max_length=max_length,
            prompt_field="prompt",
            completion_field="answer",
            learn_end=False,
        )
        tokens = torch.tensor([sum(t != IGNORED for t in each["labels"]) for each in examples])
        means = losses_of_texts(
            model=model, examples=examples, collate=collate, max_tokens=max_tokens
        )
        losses.append(torch.as_tensor(means) * tokens)
    return torch.stack(losses, dim=1).neg().softmax(dim=1)


def held_out_figures(
    *,
    config: TrainingConfig,
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example],
    collate: Collate,
) -> dict[str, float]:
    """What the held-out data says of a model, by name: perplexity, accuracy, F1.

    A causal model has an accuracy where the completions are a few different ones.

    Args:
        config: names the held-out data and the task.
        model: with its adapter, if it has one.
        tokenizer: the model's.
        examples: the held-out examples.
        collate: makes a batch of a list of examples.
    """
    measured: dict[str, Any] = {
        "model": model,
        "collate": collate,
        "max_tokens": config.micro_batch_tokens,
    }
    if config.task != "causal-lm":
        predicted, true = predict_classes(examples=examples, **measured)
        return _figures(quality_of(predicted=predicted, true=true, labels=config.labels or ()))
    losses_of = losses_for(config=config, model=model, tokenizer=tokenizer)
    found = {"perplexity": held_out_perplexity(examples=examples, losses_of=losses_of, **measured)}
    prompts, completions = held_out_texts(config=config)
    answers = config.answers or sorted(set(completions))
    if not 2 <= len(answers) <= _MOST_ANSWERS:
        return found
    shares = answer_probabilities(
        prompts=prompts,
        answers=answers,
        tokenizer=tokenizer,
        max_length=config.max_length,
        **measured,
    )
    likeliest: list[int] = shares.argmax(dim=1).tolist()
    true = [answers.index(each) for each in completions]
    return found | _figures(quality_of(predicted=likeliest, true=true, labels=answers))


def held_out_texts(*, config: TrainingConfig) -> tuple[list[str], list[str]]:
    """What is given to a causal model, and the completion of each, where there is one."""
    if config.messages_field is not None:
        return [], []
    records = read_held_out_records(config=config)
    prompt, completion = config.prompt_field, config.completion_field
    if prompt is None or completion is None:
        beginnings = [record[config.text_field].split()[:_BEGINNING] for record in records]
        return [" ".join(words) for words in beginnings], []
    if any(isinstance(record[prompt], list) for record in records):  # messages, as above
        return [], []
    return [r[prompt] for r in records], [r[completion] for r in records]


def _figures(quality: Quality) -> dict[str, float]:
    each = {f"F1 of {name.strip()}": f1 for name, f1 in quality.f1.items()}
    return {"accuracy": quality.accuracy, "macro F1": quality.macro_f1, **each}


def continue_texts(
    *,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    tokens: int,
    seed: int = 0,
) -> list[str]:
    """Sample how the model goes on after each prompt, at most `tokens` tokens.

    Args:
        model: a causal LM with `generate`.
        tokenizer: the model's.
        prompts: texts to be continued.
        tokens: the most of them.
        seed: of the sampling.
    """
    continued = []
    with evaluating(model), torch.random.fork_rng():
        torch.manual_seed(seed)
        for prompt in prompts:
            given = tokenizer(prompt, return_tensors="pt").to(model.device)
            said = model.generate(
                **given,
                max_new_tokens=tokens,
                do_sample=True,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
            )
            new = said[0, given["input_ids"].shape[1] :]
            continued.append(str(tokenizer.decode(new, skip_special_tokens=True)))
    return continued
