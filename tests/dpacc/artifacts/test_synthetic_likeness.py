"""Divergence, embeddings and what a classifier learns agree with cases that are known otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from dpacc.artifacts.synthetic.divergence import frontier_area, mauve
from dpacc.artifacts.synthetic.embedded_likeness import (
    NEARNESS,
    TAUGHT,
    accuracy_of_training,
    compare_embedded,
)
from dpacc.artifacts.synthetic.embeddings import embed, load_encoder
from dpacc.artifacts.synthetic.train_on_synthetic import LogisticRegression, two_fold_accuracy
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import save_tiny_llama

WORDS = ["joy", "music", "face", "dull", "flat", "long"]


@pytest.mark.parametrize(
    ("p", "q", "scale", "area"),
    [
        ([0.3, 0.7], [0.3, 0.7], 5, 1),
        # Disjoint: (1−λ)^c over λ^c, whose area is (c!)²/(2c)!.
        ([1, 0], [0, 1], 5, 1 / 252),
        ([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], 2, 1 / 6),
        # By hand: x = 1 − λ², y = ((1 + λ)/2)², and ∫ y dx = 17/24.
        ([1, 0], [0.5, 0.5], 2, 17 / 24),
    ],
    ids=["identical", "disjoint", "disjoint, c = 2", "one bin of two"],
)
def test_the_area_under_the_frontier_is_that_of_closed_forms(
    p: list[float], q: list[float], scale: float, area: float
) -> None:
    """To four digits, and whichever of the two is called the first."""
    first, second = np.array(p, dtype=float), np.array(q, dtype=float)
    assert frontier_area(first, second, scale=scale) == pytest.approx(area, rel=1e-4)
    assert frontier_area(second, first, scale=scale) == pytest.approx(area, rel=1e-4)


def test_collapsed_and_foreign_texts_lie_further_than_others_of_the_same_kind() -> None:
    """Samples of one law come near 1, half of its modes and then another law behind; and one text
    that is written again and again is compared too.
    """
    draw = np.random.default_rng(0)

    def texts(modes: int, turned: int = 0) -> Any:
        centres = 6 * np.roll(np.eye(9), turned, axis=1)[draw.integers(modes, size=200)]
        return centres + draw.normal(size=(200, 9))

    same, collapsed, foreign = (
        mauve(other, texts(4)) for other in (texts(4), texts(2), texts(4, 4))
    )
    assert 1 > same > 0.9 > 0.6 > collapsed > 3 * foreign
    assert mauve(np.ones((30, 9)), np.ones((30, 9))) == 1


def test_the_classifier_is_at_the_minimum_of_its_loss() -> None:
    """Its log-odds are those of a binary regression solved by Newton's method."""
    draw = np.random.default_rng(1)
    inputs = draw.normal(size=(50, 3)) * [1, 10, 0.1] + [0, 5, 0]
    truth = (inputs @ [1, 0.1, 5] + draw.normal(size=50) > 0.6).astype(float)
    fitted = LogisticRegression(inputs, ["yes" if each else "no" for each in truth])
    scaled = np.column_stack([(inputs - inputs.mean(0)) / inputs.std(0), np.ones(50)])
    # Two rows of weights, penalised alike, are ± half of their difference.
    ridge = 0.3 / 2 * np.diag([1, 1, 1, 0])
    weights = np.zeros(4)
    for _ in range(30):
        odds = expit(scaled @ weights)
        slope = scaled.T @ (odds - truth) / 50 + ridge @ weights
        curvature = (scaled.T * (odds * (1 - odds))) @ scaled / 50 + ridge
        weights -= np.linalg.solve(curvature, slope)
    found = fitted._weights[:, 1] - fitted._weights[:, 0]
    assert found == pytest.approx(weights, abs=2e-3)


def test_labels_that_tell_nothing_teach_nothing() -> None:
    """Two folds of labels by coin stay near one half; one label alone is said of everything."""
    draw = np.random.default_rng(2)
    inputs, coins = draw.normal(size=(400, 5)), draw.choice(["a", "b"], size=400).tolist()
    assert 0.4 < two_fold_accuracy(inputs, coins) < 0.6
    assert two_fold_accuracy(inputs, np.where(inputs[:, 0] > 0, "a", "b").tolist()) > 0.9
    assert LogisticRegression(inputs, ["a"] * 400).accuracy(inputs, coins) == coins.count("a") / 400


def test_an_embedding_is_the_mean_of_a_texts_own_states(tmp_path: Path) -> None:
    """Alone and beside longer texts alike, cut where the encoder has no more positions."""
    save_tiny_llama(tmp_path, words=WORDS)
    encoder = load_encoder(model=str(tmp_path))
    texts = ["joy", "music face dull flat", "", "face " * 600]
    found = embed(encoder=encoder, texts=texts)
    tokens = encoder.tokenizer(texts[1], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = encoder.model(input_ids=tokens).last_hidden_state[0]
    assert found[1] == pytest.approx(states.mean(dim=0).numpy(), abs=1e-5)
    assert found[0] == pytest.approx(embed(encoder=encoder, texts=["joy"])[0], abs=1e-5)
    assert np.isfinite(found).all()


def test_what_is_no_encoder_is_named(tmp_path: Path) -> None:
    """A folder without weights is one line that names it."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_encoder(model=str(tmp_path))


# --- figures ------------------------------------------------------------------------------


def counted(texts: Any) -> Any:
    """[n, 6], how often each word occurs."""
    return np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=float)


def config(**fields: str) -> TrainingConfig:
    return TrainingConfig(
        model="m",
        train_data="t",
        epsilon=1.0,
        expected_batch_size=2,
        steps=1,
        **fields,  # type: ignore[arg-type]
    )


CODES = config(prompt_field="code", completion_field="say")


@pytest.fixture
def records() -> Callable[..., list[dict[str, str]]]:
    """Sixty records of two codes, each with words of its own, which may be told the wrong way."""

    def made(seed: int, *, wrong: bool = False) -> list[dict[str, str]]:
        draw = np.random.default_rng(seed)
        said = []
        for at in range(60):
            good = at % 4 < 2
            words = draw.choice(WORDS[:3] if good else WORDS[3:], size=4)
            said.append({"code": "good" if good != wrong else "bad", "say": " ".join(words)})
        return said

    return made


def test_synthetic_labels_are_held_against_real_ones(
    records: Callable[..., list[dict[str, str]]],
) -> None:
    """Right labels teach all of the task, wrong ones the opposite; nearness sees texts alone."""
    given: dict[str, Any] = {"held_out": records(0), "config": CODES, "embed": counted}
    right = compare_embedded(synthetic=records(1), **given)
    wrong = compare_embedded(synthetic=records(1, wrong=True), **given)
    assert (right["synthetic"][TAUGHT], wrong["synthetic"][TAUGHT]) == (1, 0)
    assert right["held-out"][TAUGHT] == 1
    assert right["synthetic"][NEARNESS] == wrong["synthetic"][NEARNESS] > 0.5


def test_answers_are_labels_of_their_prompts(
    records: Callable[..., list[dict[str, str]]],
) -> None:
    """Where the completion is the label, the prompt is what is classified; text alone has none."""
    turned = config(prompt_field="say", completion_field="code")
    given: dict[str, Any] = {"held_out": records(0), "embed": counted}
    assert compare_embedded(synthetic=records(1), config=turned, **given)["synthetic"][TAUGHT] == 1
    plain = compare_embedded(synthetic=records(1), config=config(text_field="say"), **given)
    assert plain["synthetic"].keys() == plain["held-out"].keys() == {NEARNESS}


def test_training_records_teach_the_same_classifier(
    records: Callable[..., list[dict[str, str]]],
) -> None:
    """As many as are asked for are embedded; without labels there is nothing to learn."""
    seen: list[int] = []

    def embedded(texts: Any) -> Any:
        seen.append(len(texts))
        return counted(texts)

    given: dict[str, Any] = {"training": records(1), "held_out": records(0), "embed": embedded}
    assert accuracy_of_training(config=CODES, records=20, **given) == 1
    assert seen == [20, 60]
    with pytest.raises(ConfigurationError, match="leave show_private_accuracy out"):
        accuracy_of_training(config=config(text_field="say"), records=20, **given)
