import json

import numpy as np
import pytest
from dpacc_accounting import (
    AdaptivelyClipped,
    Composed,
    DiscreteGaussian,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PoissonSampled,
    RandomlyAllocated,
    Repeated,
    SampledWithoutReplacement,
    Selected,
    Shuffled,
    Skellam,
    TruncatedPoissonSampled,
    event_from_json,
    event_to_json,
)
from hypothesis import given
from hypothesis import strategies as st

positive, whole = st.floats(1e-6, 1e6), st.integers(1, 100)
leaves = (
    st.builds(Gaussian, noise_multiplier=st.floats(0, 1e6))
    | st.builds(AdaptivelyClipped, noise_multiplier=positive, count_noise=positive)
    | st.builds(Laplace, noise_multiplier=positive)
    | st.builds(DiscreteGaussian, sigma=positive, sensitivity=whole)
    | st.builds(Skellam, variance=positive, sensitivity=whole)
    | st.builds(ExponentialMechanism, epsilon=positive)
)
events = st.recursive(
    leaves,
    lambda inner: (
        st.builds(PoissonSampled, probability=st.floats(0, 1), event=inner)
        | st.builds(Repeated, event=inner, times=st.integers(0, 10**9))
        | st.builds(Composed, events=st.lists(inner, max_size=3).map(tuple))
        | st.builds(Shuffled, event=inner)
        | st.builds(
            Selected,
            event=inner,
            mean_runs=st.floats(1, 1e6),
            shape=st.floats(0, 1e3) | st.just(float("inf")),
        )
        | st.builds(RandomlyAllocated, steps=whole, event=inner)
        | st.builds(
            TruncatedPoissonSampled,
            probability=st.floats(0, 1),
            largest_batch=whole,
            dataset_size=whole,
            event=inner,
        )
        | st.builds(
            SampledWithoutReplacement,
            sample_size=whole,
            dataset_size=st.integers(100, 10**9),
            event=inner,
        )
        | st.builds(
            lambda w, one, two: Mixture(weights=(w, 1 - w), events=(one, two)),
            st.floats(0, 1),
            inner,
            inner,
        )
    ),
    max_leaves=5,
)


@given(events)
def test_every_event_survives_json(event):
    """Writing an event as strict JSON text and reading it back gives an equal event."""
    text = json.dumps(event_to_json(event=event), allow_nan=False)
    assert event_from_json(document=json.loads(text)) == event


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), True, "1"])
def test_noise_that_means_nothing_is_refused_with_its_value(sigma):
    """A noise multiplier that is no finite number >= 0 is refused, and the message shows it."""
    with pytest.raises(ValueError, match="noise_multiplier=") as caught:
        Gaussian(noise_multiplier=sigma)
    assert str(sigma) in str(caught.value)


@pytest.mark.parametrize("probability", [-0.1, 1.1, float("nan")])
def test_a_probability_outside_its_range_is_refused(probability):
    """A sampling probability outside [0, 1], or NaN, is refused with its value."""
    with pytest.raises(ValueError, match=f"probability={probability}"):
        PoissonSampled(probability=probability, event=Gaussian(noise_multiplier=1.0))


@pytest.mark.parametrize("times", [-1, 1.5, True, None])
def test_a_count_that_is_no_whole_number_is_refused(times):
    """Repeating an event -1, 1.5, True or None times is refused."""
    with pytest.raises(ValueError, match="times="):
        Repeated(event=Gaussian(noise_multiplier=1.0), times=times)


def test_only_events_can_be_nested():
    """A number in the place of an event is refused by every event that nests."""
    with pytest.raises(ValueError, match="not an event"):
        PoissonSampled(probability=0.5, event=1.0)
    with pytest.raises(ValueError, match="not an event"):
        Repeated(event=1.0, times=2)
    with pytest.raises(ValueError, match="not an event"):
        Composed(events=(Gaussian(noise_multiplier=1.0), 1.0))


def test_numbers_from_numpy_become_plain_ones():
    """An event built from numpy numbers equals, and prints as, the one from plain numbers."""
    event = Repeated(event=Gaussian(noise_multiplier=np.float32(0.5)), times=np.int64(3))
    assert repr(event) == repr(Repeated(event=Gaussian(noise_multiplier=0.5), times=3))


@pytest.mark.parametrize(
    ("document", "culprit"),
    [
        ({"event": "cauchy"}, "cauchy"),
        ({"event": ["gaussian"]}, "gaussian"),
        ({"event": "gaussian", "noise_multiplier": 1.0, "sigma": 2.0}, "sigma"),
        ({"event": "gaussian"}, "noise_multiplier"),
        ({"event": "gaussian", "noise_multiplier": "1"}, "noise_multiplier='1'"),
        ({"event": "repeated", "times": 2, "of": 3}, "3"),
        ({"event": "composed", "of": {}}, "list"),
        ([], "JSON object"),
    ],
)
def test_an_unreadable_document_is_refused_by_name(document, culprit):
    """An unknown kind, an unknown or missing key or a wrong type is named in the error."""
    with pytest.raises(ValueError, match=culprit):
        event_from_json(document=document)
