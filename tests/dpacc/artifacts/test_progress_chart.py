"""The picture shows what was measured, and no value makes it fail."""

import math

import pytest
from dpacc_accounting import Gaussian, epsilon

from dpacc.artifacts.progress_chart import Measurement, draw_progress

PROMISE = epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5)
PNG = b"\x89PNG\r\n\x1a\n"


def size(picture):
    """Width and height that a PNG claims."""
    return int.from_bytes(picture[16:20]), int.from_bytes(picture[20:24])


def draw(measurements, target=8.0):
    """The picture of these measurements."""
    return draw_progress(
        measurements=measurements, target_epsilon=target, title="run", guarantee=PROMISE
    )


def test_perplexity_gets_a_panel_of_its_own():
    """With held-out data there are two panels, without there is one, at the same width."""
    spent = [Measurement(step=n, epsilon=float(n)) for n in range(3)]
    learned = [Measurement(step=n, epsilon=float(n), quality=9.0 - n) for n in range(3)]
    one, two = draw(spent), draw(learned)
    assert one.startswith(PNG)
    assert two.startswith(PNG)
    assert size(one)[0] == size(two)[0]
    assert size(two)[1] > 1.5 * size(one)[1]


def test_the_budget_is_drawn():
    """A target ε changes the picture: its line is in it."""
    measurements = [Measurement(step=0, epsilon=0.0), Measurement(step=1, epsilon=1.0)]
    assert draw(measurements, target=2.0) != draw(measurements, target=None)


@pytest.mark.parametrize(
    "measurements",
    [
        [],
        [Measurement(step=0, epsilon=0.0)],
        [Measurement(step=0, epsilon=math.inf, quality=math.inf)],
        [Measurement(step=0, epsilon=math.inf, quality=3.0)],
        [Measurement(step=n, epsilon=0.1 * n, quality=5.0) for n in range(500)],
    ],
)
@pytest.mark.parametrize("target", [None, 3.0])
def test_nothing_measured_makes_it_fail(measurements, target):
    """No measurement, one, infinite ones or hundreds: there is a picture."""
    assert draw(measurements, target).startswith(PNG)
