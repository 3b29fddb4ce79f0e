"""Trials on one bench owe each other nothing: each begins with a fresh adapter on the same base."""

from __future__ import annotations

import json

import pytest
import torch

from dpacc.layers.whitening import WhitenedLinear
from dpacc.recipe.config import TrainingConfig
from dpacc.search.trials import Bench
from tests.tiny_models import save_tiny_llama

WORDS = ["the", "film", "was", "dull", "but", "its", "music", "joy"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> TrainingConfig:
    """A classification of a few invented texts, learned fast."""
    folder = tmp_path_factory.mktemp("bench")
    save_tiny_llama(folder / "model", words=WORDS)
    lines = [
        json.dumps({"text": f"{'joy' if i % 2 else 'dull'} {WORDS[i % 5]}", "label": i % 2})
        for i in range(40)
    ]
    (folder / "data.jsonl").write_text("\n".join(lines))
    held_out = "\n".join(line.replace('"text": "', '"text": "film ') for line in lines)
    (folder / "held_out.jsonl").write_text(held_out)
    return TrainingConfig(
        model=str(folder / "model"),
        train_data=str(folder / "data.jsonl"),
        held_out_data=str(folder / "held_out.jsonl"),
        task="sequence-classification",
        labels=("bad", "good"),
        epsilon=8.0,
        expected_batch_size=10,
        steps=2,
        dtype="float32",
        learning_rate=0.1,
        lora_method="whitened",
        lora_target_modules=("q_proj", "v_proj"),
    )


def trained(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of everything that learns."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_no_trial_inherits_what_another_learned(classifier: TrainingConfig) -> None:
    """Adapter and head begin alike in each; a search's price holds for independent trials only."""
    bench = Bench(classifier)
    first = trained(bench.adapted(config=classifier))
    _, learned = bench.run(config=classifier, plan=bench.plan_of(config=classifier))
    again = trained(bench.adapted(config=classifier))
    (head,) = (name for name in first if "score" in name)
    assert not torch.equal(learned[head.replace(".modules_to_save.default", "")], first[head])
    assert first.keys() == again.keys()
    assert all(torch.equal(value, again[name]) for name, value in first.items())


def test_a_trials_adapter_can_be_put_back(classifier: TrainingConfig) -> None:
    """What `run` returns gives the logits that the trial ended with, its head's share included."""
    bench = Bench(classifier)
    tokens = torch.arange(4, 9).unsqueeze(0)
    _, learned = bench.run(config=classifier, plan=bench.plan_of(config=classifier))
    assert bench._model is not None
    bench._model.eval()
    then = bench._model(tokens).logits
    now = bench.adapted(config=classifier, adapter=learned).eval()(tokens).logits
    fresh = bench.adapted(config=classifier).eval()(tokens).logits
    torch.testing.assert_close(now, then)
    assert not torch.allclose(fresh, then, atol=1e-3)


def test_whitened_trials_see_public_directions(classifier: TrainingConfig) -> None:
    """A fresh whitened adapter has found the main directions of the held-out examples."""
    model = Bench(classifier).adapted(config=classifier)
    layers = [each for each in model.modules() if isinstance(each, WhitenedLinear)]
    assert len(layers) == 4
    assert all(layer.directions.shape[1] > 0 for layer in layers)
