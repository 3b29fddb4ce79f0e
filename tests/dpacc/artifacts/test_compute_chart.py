"""The figure of a budget shows what was compared, and marks what is recommended."""

from __future__ import annotations

import io
import re

import numpy as np
import pytest
from dpacc_accounting import recommend_batch_size
from matplotlib import colors, image

from dpacc.artifacts.compute_chart import draw_recommendation

INDEPENDENT, BANDED, MARKED = "#0072B2", "#009E73", "#D55E00"


def _share(picture: bytes, colour: str) -> float:
    pixels = image.imread(io.BytesIO(picture))[..., :3]
    away = np.abs(pixels - np.array(colors.to_rgb(colour))).max(axis=-1)
    return float((away < 0.02).mean())


@pytest.mark.parametrize(("budget", "words"), [(2000, "knee: "), (150, "no knee within")])
def test_both_noises_and_the_choice_are_drawn(budget: int, words: str) -> None:
    """Two lines and a mark, whether the budget reaches its knee or not; the same bytes twice."""
    found = recommend_batch_size(
        dataset_size=100, gradient_evaluations=budget, epsilon=3.0, delta=1e-3, unit="patient"
    )
    assert (found.knee is None) == words.startswith("no")
    picture = draw_recommendation(found=found, evaluations=budget)
    for colour in (INDEPENDENT, BANDED, MARKED):
        assert _share(picture, colour) > 2e-4
    assert picture == draw_recommendation(found=found, evaluations=budget)
    drawing = draw_recommendation(found=found, evaluations=budget, form="svg").decode()
    told = " ".join(re.findall(r"<!-- (.*?) -->", drawing, re.DOTALL))
    assert f"{words}" in told
    assert f"{found.chosen.steps:,} steps of {found.chosen.batch_size:,}" in told
    assert "add-or-remove, patient" in told
    assert "at δ = 0.001" in told


def test_a_single_batch_size_is_drawn_too() -> None:
    """All that a budget beyond the longest run leaves."""
    found = recommend_batch_size(
        dataset_size=30, gradient_evaluations=10**7, epsilon=3.0, delta=1e-3
    )
    assert len(found.choices) == 1
    assert draw_recommendation(found=found, evaluations=10**7).startswith(b"\x89PNG")
