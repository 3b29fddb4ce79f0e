"""Robust rules against byzfl and brute force, and a federation in which one in five attacks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import ffa
from dpacc.federated.aggregation.robust import (
    Defence,
    defended,
    require_fitting,
)
from dpacc.federated.server.history import History
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.layout import Arrays, flat
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_training_examples, pad_examples
from tests.dpacc.federated.federations import classifier_folder, client, opinions, server
from tests.dpacc.federated.hostile import TWISTS, HostileClient

REFERENCE = json.loads(Path(__file__).with_name("byzfl_reference.json").read_text())
NO_TESTS: dict[str, Any] = {"most_norm": None, "least_cosine": None}
TASK = {"task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16}
LORA = LoraSettings(rank=4, target_modules=("query", "value"))


def as_updates(vectors: np.ndarray, start: np.ndarray) -> tuple[Arrays, dict[str, Arrays]]:
    """Rows as clients' arrays, of two shapes, around a start."""
    half = vectors.shape[1] // 2

    def cut(row: np.ndarray) -> Arrays:
        row = row.astype(np.float32)
        return {"a": row[:half].reshape(1, -1), "b": row[half:]}

    return cut(start), {f"client {n}": cut(start + row) for n, row in enumerate(vectors)}


def result(vectors: np.ndarray, **settings: Any) -> tuple[np.ndarray, dict[str, str]]:
    """What a defence makes of the rows, as a vector, and whom it filtered."""
    start, updates = as_updates(vectors, np.zeros(vectors.shape[1]))
    found = defended(Defence(**settings), ffa)(start, updates)
    return flat(found.arrays), dict(found.filtered)


@pytest.mark.parametrize("case", range(len(REFERENCE)))
@pytest.mark.parametrize("rule", ["krum", "median", "trimmed-mean"])
def test_rules_agree_with_byzfl(rule: str, case: int) -> None:
    """On random vectors with shifted ones among them, to fp32 rounding."""
    known = REFERENCE[case]
    vectors = np.array(known["vectors"])
    found, _ = result(vectors, rule=rule, attackers=known["attackers"], **NO_TESTS)
    assert np.allclose(found, known[rule], atol=1e-6)


def krum_order(vectors: np.ndarray, attackers: int) -> list[int]:
    """Clients by the sum of squared distances to their n − f − 2 nearest, by brute force."""
    count = len(vectors)
    scores = []
    for one in vectors:
        distances = sorted(float(np.square(one - other).sum()) for other in vectors)
        scores.append(sum(distances[1 : count - attackers - 1]))
    return [int(at) for at in np.argsort(scores)]


def test_multi_krum_averages_the_closest_and_names_the_others() -> None:
    """Its result is the mean of the n − f best by brute force; the f others are reported."""
    vectors = np.array(REFERENCE[1]["vectors"])
    found, filtered = result(vectors, rule="multi-krum", attackers=2, **NO_TESTS)
    best = krum_order(vectors, 2)[:7]
    assert np.allclose(found, vectors[best].mean(axis=0), atol=1e-6)
    assert set(filtered) == {f"client {n}" for n in range(9) if n not in best}


def test_bulyan_averages_what_is_closest_to_the_median_of_the_chosen() -> None:
    """θ = n − 2f chosen, then θ − 2f of them in each number, by brute force."""
    vectors = np.random.default_rng(0).normal(size=(11, 30))
    found, filtered = result(vectors, rule="bulyan", attackers=2, **NO_TESTS)
    chosen = vectors[krum_order(vectors, 2)[:7]]
    expected = []
    for column in chosen.T:
        middle = np.median(column)
        expected.append(np.mean(sorted(column, key=lambda value: abs(value - middle))[:3]))
    assert np.allclose(found, expected, atol=1e-6)
    assert len(filtered) == 4


def test_without_attackers_nothing_is_left_out_and_the_mean_is_exact() -> None:
    """Honest noise of equal size passes the norm and the cosine test."""
    vectors = np.random.default_rng(1).normal(size=(12, 400))
    found, filtered = result(vectors, rule="none")
    assert filtered == {}
    assert np.allclose(found, vectors.mean(axis=0), atol=1e-6)


def test_outliers_are_named_with_their_reason() -> None:
    """One far too long, one pointing against a shared direction: both are left out."""
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(10, 400)) + 1.0
    vectors[3] *= 50
    vectors[7] *= -1
    found, filtered = result(vectors, rule="none")
    assert set(filtered) == {"client 3", "client 7"}
    assert "times as long" in filtered["client 3"]
    assert "against" in filtered["client 7"]
    honest = [n for n in range(10) if n not in (3, 7)]
    assert np.allclose(found, vectors[honest].mean(axis=0), atol=1e-6)


@pytest.mark.parametrize("rule", ["median", "trimmed-mean"])
def test_clients_that_are_extreme_in_most_numbers_are_reported(rule: str) -> None:
    """Two shifted clients among nine are named, honest ones are not."""
    vectors = np.random.default_rng(3).normal(size=(9, 500))
    vectors[:2] += 4.0
    _, filtered = result(vectors, rule=rule, attackers=2, **NO_TESTS)
    assert set(filtered) == {"client 0", "client 1"}


def test_too_few_answers_change_nothing() -> None:
    """Krum against one attacker needs five clients; with four the adapter stays as it was."""
    vectors = np.random.default_rng(4).normal(size=(4, 6))
    found, filtered = result(vectors, rule="krum", attackers=1, **NO_TESTS)
    assert np.array_equal(found, np.zeros(6))
    assert len(filtered) == 4


@pytest.mark.parametrize(
    ("settings", "aggregation", "clients", "remedy"),
    [
        ({"rule": "median", "attackers": 1}, "fedex", 9, "multi-krum"),
        ({"rule": "krum", "attackers": 2}, "ffa", 6, "add clients"),
        ({"rule": "bulyan", "attackers": 1}, "ffa", 6, "add clients"),
    ],
)
def test_a_defence_that_cannot_work_is_refused_at_configuration(
    settings: dict[str, Any], aggregation: str, clients: int, remedy: str
) -> None:
    """With the reason, before anybody is asked."""
    with pytest.raises(ConfigurationError, match=remedy):
        require_fitting(Defence(**settings), aggregation=aggregation, clients=clients)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_folder(tmp_path_factory.mktemp("classifier"))


@pytest.fixture
def federate(tmp_path: Path, classifier: Path) -> Callable[..., History]:
    """A federation of ten clients, the first of which attack in the named ways."""
    held_out = opinions(tmp_path / "held_out.jsonl", count=200, seed=99)

    def run(attacks: Sequence[str], defence: Defence | None) -> History:
        folder = tmp_path / " and ".join(attacks or ["clean"])
        folder.mkdir()
        federation = server(
            folder,
            model_name=str(classifier),
            lora_config=LORA,
            task=TASK,
            num_clients=10,
            rounds=1,
        )
        acts = dict(enumerate(attacks, start=1))
        clients = [member(folder, n, acts.get(n), classifier) for n in range(1, 11)]
        measure = accuracy_on(held_out, federation.tokenizer)
        return federation.train(clients=clients, defence=defence, measure=measure, local_epochs=3)

    return run


def member(folder: Path, number: int, attack: str | None, model: Path) -> Any:
    settings: dict[str, Any] = {
        "model_name": str(model),
        "lora_config": LORA,
        "task": TASK,
        "folder": folder / f"site-{number}",
        "data_path": opinions(
            folder / f"{number}.jsonl", count=120, seed=number, flipped=attack == "label flip"
        ),
        "dp": {
            "epsilon": 50.0,
            "expected_batch_size": 60,
            "learning_rate": 0.01,
            "max_grad_norm": 0.5,
        },
    }
    honest = client(folder, number, **settings)
    if attack not in TWISTS:
        return honest
    del settings["dp"]
    return HostileClient(
        twist=attack,
        client_id=honest.client_id,
        dp_config=honest.dp_config,
        fixed_seed=number,
        **settings,
    )


def accuracy_on(path: Path, tokenizer: Any) -> Callable[[torch.nn.Module], dict[str, float]]:
    config = TrainingConfig(
        model="model",
        train_data=str(path),
        epsilon=1.0,
        expected_batch_size=1,
        steps=1,
        warmup_steps=0,
        **TASK,
    )
    examples = load_training_examples(config=config, tokenizer=tokenizer)
    batch = pad_examples(examples, pad_token_id=tokenizer.pad_token_id)

    def measure(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            guessed = model(**inputs).logits.argmax(dim=1)
        return {"accuracy": float((guessed == batch["labels"]).float().mean())}

    return measure


CLEAN: list[float] = []


def clean_accuracy(federate: Callable[..., History]) -> float:
    if not CLEAN:
        CLEAN.append(federate([], None).rounds[-1].quality["accuracy"])
    return CLEAN[0]


@pytest.mark.parametrize(
    "attacks",
    [
        ("sign flip", "scaled"),
        ("not a number", "wrong shapes"),
        ("label flip", "label flip"),
    ],
)
def test_one_attacker_in_five_costs_less_than_three_points(
    federate: Callable[..., History], attacks: Sequence[str]
) -> None:
    """Under multi-krum and the outlier tests, accuracy stays within 3 points of the clean run."""
    history = federate(attacks, Defence(rule="multi-krum", attackers=2))
    clean = clean_accuracy(federate)
    assert clean > 0.9
    assert history.rounds[-1].quality["accuracy"] >= clean - 0.03
    for report in history.rounds:
        counted = set(report.survivors) - set(report.filtered)
        assert 6 <= len(counted) <= 8
        if "label flip" not in attacks:
            assert not counted & {"site-1", "site-2"}


def test_without_a_defence_scaled_updates_ruin_the_model(
    federate: Callable[..., History],
) -> None:
    """So the attack above is one: undefended, it costs far more than 3 points."""
    history = federate(["scaled sign flip"] * 2, None)
    assert history.rounds[-1].filtered == {}
    assert history.rounds[-1].quality["accuracy"] < clean_accuracy(federate) - 0.1
