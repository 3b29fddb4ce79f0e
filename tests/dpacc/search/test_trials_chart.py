"""The picture of trials: each line, panel and value that was varied is in it."""

from __future__ import annotations

import io
import math
from itertools import product

import numpy as np
import pytest
from matplotlib import colors, image

from dpacc.search.trials_chart import _places, _values, draw_trials

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"


def share(picture: bytes, colour: str) -> float:
    """How much of a picture has a colour, as a fraction."""
    pixels = image.imread(io.BytesIO(picture))[..., :3]
    away = np.abs(pixels - np.array(colors.to_rgb(colour))).max(axis=-1)
    return float((away < 0.02).mean())


def drawn(*, ranks: str, methods: str = "", epsilons: str = "") -> bytes:
    varied = {"lora_rank": ranks.split(), "lora_method": methods.split()}
    varied |= {"epsilon": epsilons.split()}
    varied = {name: values for name, values in varied.items() if values}
    trials = [
        {**dict(zip(varied, each, strict=True)), "accuracy": 0.7 + 0.02 * at}
        for at, each in enumerate(product(*varied.values()))
    ]
    return draw_trials(trials=trials, varied=list(varied), metric="accuracy")


def test_each_value_of_the_second_setting_has_a_line() -> None:
    """One colour without it, and as many as it has values with it."""
    assert share(drawn(ranks="2 8"), BLUE) > 1e-3
    assert share(drawn(ranks="2 8"), ORANGE) == 0
    both = drawn(ranks="2 8", methods="lora ffa")
    assert min(share(both, BLUE), share(both, ORANGE)) > 1e-3
    assert share(both, GREEN) == 0


def test_each_value_of_the_third_setting_has_a_panel() -> None:
    """Two panels stand side by side, and both hold lines."""
    two = drawn(ranks="2 8", methods="lora ffa", epsilons="1 8")
    pixels = image.imread(io.BytesIO(two))[..., :3]
    one = image.imread(io.BytesIO(drawn(ranks="2 8", methods="lora ffa")))
    assert pixels.shape[1] > 1.4 * one.shape[1]
    blue = np.abs(pixels - np.array(colors.to_rgb(BLUE))).max(axis=-1) < 0.02
    left, right = np.split(blue, [blue.shape[1] // 2], axis=1)
    assert left.sum() > 100
    assert right.sum() > 100


def test_numbers_stand_by_size_and_words_as_they_came() -> None:
    """Rates are placed where they lie, methods beside each other."""
    trials = [{"rate": "1e-2", "method": "whitened"}, {"rate": "1e-3", "method": "ffa"}]
    assert _values(trials, "rate") == ["1e-3", "1e-2"]
    assert _places(["1e-3", "1e-2"]) == [0.001, 0.01]
    assert _values(trials, "method") == ["whitened", "ffa"]
    assert _places(["whitened", "ffa"]) == [0, 1]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_trial_that_diverged_leaves_a_gap(value: float) -> None:
    """The others are drawn as ever."""
    trials = [
        {"learning_rate": rate, "perplexity": found}
        for rate, found in (("1e-3", 12.0), ("1e-2", 9.0), ("1", value))
    ]
    picture = draw_trials(trials=trials, varied=["learning_rate"], metric="perplexity")
    assert share(picture, BLUE) > 1e-3
