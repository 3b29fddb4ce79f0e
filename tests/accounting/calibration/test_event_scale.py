"""The least scale of any event."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from dpacc_accounting import (
    DiscreteLaplace,
    Event,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    RandomlyAllocated,
    Repeated,
    calibrate_event,
    calibrate_noise,
    epsilon,
)

FAMILIES: dict[str, Callable[[float], Event]] = {
    "laplace": lambda b: Repeated(event=Laplace(noise_multiplier=b), times=20),
    "choices": lambda s: Repeated(event=ExponentialMechanism(epsilon=1 / s), times=9),
    "integers": lambda s: DiscreteLaplace(decay=1 / s, sensitivity=3),
    "epochs": lambda s: RandomlyAllocated(
        steps=4, participations=2, event=Gaussian(noise_multiplier=s)
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_scale_is_private_and_barely_so(name: str) -> None:
    """What is returned was priced, within the target; a thousandth less is not."""
    family = FAMILIES[name]
    found = calibrate_event(event=family, epsilon=1.5, delta=1e-5)
    assert found.event == family(found.scale)
    assert found.guarantee == epsilon(event=found.event, delta=1e-5)
    assert found.guarantee.epsilon <= 1.5
    assert epsilon(event=family(0.999 * found.scale), delta=1e-5).epsilon > 1.5


def test_noise_is_that_of_a_run_in_full() -> None:
    """The same σ as `calibrate_noise`, which knows the event."""
    found = calibrate_event(
        event=lambda s: Repeated(event=Gaussian(noise_multiplier=s), times=9),
        epsilon=2.0,
        delta=1e-5,
        start=30.0,
    )
    plan = calibrate_noise(dataset_size=5, batch_size=5, steps=9, epsilon=2.0, delta=1e-5)
    assert found.scale == pytest.approx(plan.noise_multiplier, rel=1e-5)


@pytest.mark.parametrize(
    ("event", "asked", "message"),
    [
        (lambda s: ExponentialMechanism(epsilon=s), {}, "a larger scale must be more private"),
        (lambda _: Laplace(noise_multiplier=0.1), {}, "a larger scale must be more private"),
        (Gaussian(noise_multiplier=1.0), {}, "is not a function from a scale to an event"),
        (lambda s: s, {}, "is not an event"),
        (lambda s: Laplace(noise_multiplier=s), {"epsilon": 0}, "epsilon=0.0"),
        (lambda s: Laplace(noise_multiplier=s), {"start": 0}, "start=0.0"),
        (lambda s: Laplace(noise_multiplier=s), {"delta": "x"}, "delta='x'"),
    ],
)
def test_what_cannot_be_met_is_refused(event, asked, message: str) -> None:
    """A family that goes the wrong way, none at all, and numbers out of range: one line each."""
    with pytest.raises(ValueError, match=message):
        calibrate_event(event=event, **{"epsilon": 1.0, "delta": 1e-5, **asked})


def test_what_turns_back_is_still_private() -> None:
    """A family that is not monotone may not get its least scale, but never a wrong price."""

    def bent(scale: float) -> Event:
        noise = scale if scale < 3 else 0.7 * scale
        return Mixture(weights=(1.0,), events=(Laplace(noise_multiplier=noise),))

    found = calibrate_event(event=bent, epsilon=0.4, delta=1e-6)
    assert epsilon(event=bent(found.scale), delta=1e-6).epsilon <= 0.4
