"""Held-out perplexity is exact, whatever the micro-batches, and leaves the model as it was."""

import math
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from dpacc.data.supervision import IGNORED
from dpacc.errors import ConfigurationError
from dpacc.recipe.evaluation import held_out_accuracy, held_out_perplexity
from dpacc.recipe.examples import pad_examples

collate = partial(pad_examples, pad_token_id=0)


@pytest.fixture(scope="module")
def model():
    """A tiny Llama whose predictions are not flat."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention_dropout=0.5,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module")
def examples():
    """Nine examples of different lengths; some tokens, and all of one example, are not labels."""
    generator = torch.Generator().manual_seed(1)
    made = []
    for length in (2, 17, 5, 5, 30, 1, 9, 12, 3):
        tokens = torch.randint(50, (length,), generator=generator).tolist()
        ignored = length // 3 if length != 12 else length
        made.append({"input_ids": tokens, "labels": [IGNORED] * ignored + tokens[ignored:]})
    return made


def perplexity_one_by_one(model, examples):
    """The definition, spelt out one example at a time in float64."""
    total, count = 0.0, 0
    model.eval()
    for example in examples:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([example["input_ids"]])).logits[0].double()
        for position, label in enumerate(example["labels"][1:]):
            if label != IGNORED:
                total -= logits[position].log_softmax(0)[label].item()
                count += 1
    return math.exp(total / count)


@pytest.mark.parametrize("max_tokens", [1, 20, 64, 10_000])
def test_it_is_the_token_mean_whatever_the_micro_batches(model, examples, max_tokens):
    """exp(Σ −log p / number of supervised tokens), for any budget of padded tokens."""
    measured = held_out_perplexity(
        model=model, examples=examples, collate=collate, max_tokens=max_tokens
    )
    assert measured == pytest.approx(perplexity_one_by_one(model, examples), rel=1e-5)


def test_micro_batches_stay_within_the_budget(model, examples):
    """Examples are sorted by length, so that few batches hold them all within the budget."""
    shapes = []

    def watching(chosen):
        batch = collate(chosen)
        shapes.append(tuple(batch["input_ids"].shape))
        return batch

    held_out_perplexity(model=model, examples=examples, collate=watching, max_tokens=36)
    assert sum(rows for rows, _ in shapes) == len(examples)
    assert all(rows * width <= 36 for rows, width in shapes)
    assert len(shapes) <= 4


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_the_work_and_agree(model, examples, ranks):
    """Each rank measures its share; the sums over ranks give what one process gives."""
    sums = []

    def accelerator(rank, reduce):
        return SimpleNamespace(
            num_processes=ranks,
            process_index=rank,
            device=torch.device("cpu"),
            reduce=lambda tensor, reduction: reduce(tensor),
        )

    def keep(tensor):
        sums.append(tensor)
        return tensor

    measure = partial(
        held_out_perplexity, model=model, examples=examples, collate=collate, max_tokens=20
    )
    for rank in range(ranks):
        measure(accelerator=accelerator(rank, keep))
    assert all(tokens > 0 for _, tokens in sums)
    together = measure(accelerator=accelerator(0, lambda _: torch.stack(sums).sum(dim=0)))
    assert together == pytest.approx(measure(), rel=1e-5)


def test_the_model_is_left_as_it_was(model, examples):
    """Each module keeps its own mode, no gradient appears, and dropout is off meanwhile."""
    model.train()
    model.model.layers[0].eval()
    first, second = (
        held_out_perplexity(model=model, examples=examples, collate=collate) for _ in range(2)
    )
    assert first == second
    assert model.training
    assert model.model.layers[1].training
    assert not model.model.layers[0].training
    assert all(parameter.grad is None for parameter in model.parameters())
    model.train()


def test_modes_return_after_an_error(model, examples):
    """A failure in the middle leaves no module in evaluation mode."""

    def failing(_):
        raise RuntimeError("no batch")

    model.train()
    with pytest.raises(RuntimeError, match="no batch"):
        held_out_perplexity(model=model, examples=examples, collate=failing)
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    "examples",
    [[], [{"input_ids": [3], "labels": [3]}, {"input_ids": [1, 2], "labels": [1, -100]}]],
)
def test_nothing_to_predict_is_refused(model, examples):
    """Without a supervised next token there is no perplexity, and no division by zero."""
    with pytest.raises(ConfigurationError, match="no held-out example has a token to predict"):
        held_out_perplexity(model=model, examples=examples, collate=collate)


def test_a_hopeless_model_has_infinite_perplexity(examples):
    """Where exp overflows the answer is inf, and training goes on."""

    class Hopeless(torch.nn.Module):
        """Gives its own favourite a logit of 10^6."""

        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(1, 50)

        def get_output_embeddings(self):
            """The head, as transformers names it."""
            return self.head

        def forward(self, input_ids, **_):
            """Logits that bet everything on token 0."""
            hidden = self.head(torch.zeros(*input_ids.shape, 1))
            return SimpleNamespace(logits=hidden * 0 + 1e6 * torch.eye(50)[0])

    assert held_out_perplexity(
        model=Hopeless(), examples=examples, collate=collate
    ) == pytest.approx(math.inf)


def test_accuracy_counts_labels_that_are_there():
    """The share of labelled tokens, or of texts, whose likeliest class is theirs."""

    class Knowing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, input_ids, attention_mask):
            return SimpleNamespace(logits=torch.nn.functional.one_hot(input_ids % 3, 3).float())

    tokens = [
        {"input_ids": [0, 1, 2, 4], "labels": [0, 1, 1, -100]},
        {"input_ids": [5], "labels": [2]},
    ]
    for max_tokens in (4, 100):
        found = held_out_accuracy(
            model=Knowing(), examples=tokens, collate=collate, max_tokens=max_tokens
        )
        assert found == 3 / 4
    with pytest.raises(ConfigurationError, match="no held-out example has a label"):
        held_out_accuracy(
            model=Knowing(), examples=[{"input_ids": [1], "labels": [-100]}], collate=collate
        )
