import subprocess
import sys

import dp_accounting
import pytest
from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
from dp_accounting.pld import PLDAccountant
from dpacc_accounting import (
    ZCDP,
    ApproximateDP,
    Composed,
    DiscreteLaplace,
    ExponentialMechanism,
    Gaussian,
    Laplace,
    Mixture,
    PermuteAndFlip,
    PoissonSampled,
    RandomizedResponse,
    Repeated,
    SampledWithoutReplacement,
    Skellam,
    TruncatedDiscreteGaussian,
    epsilon,
    from_dp_event,
    to_dp_event,
)
from hypothesis import given
from hypothesis import strategies as st

events = st.recursive(
    st.builds(Gaussian, noise_multiplier=st.floats(0, 1e6))
    | st.builds(Laplace, noise_multiplier=st.floats(1e-6, 1e6))
    | st.builds(ZCDP, rho=st.floats(0, 1e6), xi=st.floats(0, 1e6))
    | st.builds(DiscreteLaplace, decay=st.floats(1e-6, 1e6), sensitivity=st.integers(1, 99))
    | st.builds(RandomizedResponse, noise=st.floats(1e-6, 1), options=st.integers(2, 99)),
    lambda inner: (
        st.builds(PoissonSampled, probability=st.floats(0, 1), event=inner)
        | st.builds(
            SampledWithoutReplacement,
            sample_size=st.integers(1, 100),
            dataset_size=st.integers(100, 10**9),
            event=inner,
        )
        | st.builds(Repeated, event=inner, times=st.integers(1, 10**9))
        | st.builds(Composed, events=st.lists(inner, max_size=3).map(tuple))
    ),
    max_leaves=5,
)


@given(events)
def test_there_and_back_is_the_same_event(event):
    """Every event that dp-accounting knows survives the way to it and back."""
    assert from_dp_event(event=to_dp_event(event=event)) == event


def test_its_accountant_agrees_on_the_converted_event():
    """dp-accounting's PLD prices the converted event as we price the original."""
    step = PoissonSampled(probability=0.05, event=Gaussian(noise_multiplier=1.1))
    count = Repeated(event=Laplace(noise_multiplier=20.0), times=3)
    event = Composed(events=(Repeated(event=step, times=60), count))
    theirs = PLDAccountant().compose(to_dp_event(event=event)).get_epsilon(1e-5)
    assert epsilon(event=event, delta=1e-5).epsilon == pytest.approx(theirs, rel=2e-3)


def test_what_protects_nothing_stays_so():
    """A non-private event has no noise here, and a no-op is an empty composition."""
    bare = from_dp_event(event=dp_accounting.NonPrivateDpEvent())
    assert bare == Gaussian(noise_multiplier=0.0)
    assert from_dp_event(event=dp_accounting.NoOpDpEvent()) == Composed(events=())


@pytest.mark.parametrize(
    "event",
    [
        Mixture(weights=(1.0,), events=(Gaussian(noise_multiplier=1.0),)),
        Repeated(event=Skellam(variance=1.0, sensitivity=1), times=2),
        ExponentialMechanism(epsilon=1.0),
        PermuteAndFlip(epsilon=1.0),
        ApproximateDP(epsilon=1.0, delta=0.0),
        TruncatedDiscreteGaussian(sigma=1.0, sensitivity=1, bound=5),
    ],
)
def test_what_dp_accounting_does_not_know_is_refused(event):
    """A mixture, Skellam noise or a bounded-range choice is refused by name, also when nested."""
    with pytest.raises(
        ValueError, match=r"Mixture|Skellam|Exponential|Permute|Approximate|Truncated"
    ):
        to_dp_event(event=event)


def test_what_this_package_does_not_know_is_refused():
    """Sampling with replacement is refused by name."""
    foreign = dp_accounting.SampledWithReplacementDpEvent(10, 2, dp_accounting.GaussianDpEvent(1.0))
    with pytest.raises(ValueError, match="SampledWithReplacementDpEvent"):
        from_dp_event(event=foreign)


def test_importing_the_conversions_does_not_import_dp_accounting():
    """dp-accounting, slow to import, is loaded by the functions only."""
    code = (
        "import sys, dpacc_accounting.events.conversion as c; print('dp_accounting' in sys.modules)"
    )
    code += "; c.to_dp_event(event=c.Gaussian(noise_multiplier=1)); "
    code += "print('dp_accounting' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        (
            dp_accounting.SampledWithReplacementDpEvent(10, 2, dp_accounting.GaussianDpEvent(1.0)),
            "may be drawn several times",
        ),
        (dp_accounting.SingleEpochTreeAggregationDpEvent(1.0, 8), "leaves its place empty"),
        (dp_accounting.UnsupportedDpEvent(), "no description at all"),
        (
            MixtureOfGaussiansDpEvent(1.0, [1.0, -1.0], [0.5, 0.5]),
            "both signs",
        ),
        ("no event", "not known here"),
    ],
)
def test_the_reason_of_a_refusal_is_given(foreign, reason):
    """Each kind has its own, with what to do instead."""
    with pytest.raises(ValueError, match=reason):
        from_dp_event(event=foreign)


def test_what_has_another_name_here_is_found():
    """A one-size mixture of Gaussians is a Poisson sample; answers without choice or noise."""
    mixture = MixtureOfGaussiansDpEvent(3.0, [0.0, 2.0], [0.75, 0.25])
    sample = PoissonSampled(probability=0.25, event=Gaussian(noise_multiplier=1.5))
    assert from_dp_event(event=mixture) == sample
    theirs = (
        PLDAccountant(value_discretization_interval=1e-3).compose(mixture, 10).get_epsilon(1e-3)
    )
    ours = epsilon(event=Repeated(event=sample, times=10), delta=1e-3).epsilon
    assert ours == pytest.approx(theirs, rel=2e-3)
    always = MixtureOfGaussiansDpEvent(3.0, [2.0], [1.0])
    assert from_dp_event(event=always) == Gaussian(noise_multiplier=1.5)
    never = MixtureOfGaussiansDpEvent(3.0, [0.0], [1.0])
    assert from_dp_event(event=never) == Composed(events=())
    bare = dp_accounting.RandomizedResponseDpEvent(0.0, 3)
    assert from_dp_event(event=bare) == Gaussian(noise_multiplier=0.0)
    alone = dp_accounting.RandomizedResponseDpEvent(0.5, 1)
    assert from_dp_event(event=alone) == Composed(events=())
