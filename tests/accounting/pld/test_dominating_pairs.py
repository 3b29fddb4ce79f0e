import numpy as np
import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.gaussian import gaussian_delta
from dpacc_accounting.pld.dominating_pairs import Pair, dominating_pairs
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

probabilities = st.floats(1e-6, 1 - 1e-6)
shifts = st.floats(0.02, 15)


@st.composite
def pairs(draw):
    """Any pair of any adjacency."""
    release = Release(draw(probabilities), 1 / draw(shifts))
    adjacency = draw(st.sampled_from(list(Adjacency)))
    return draw(st.sampled_from(dominating_pairs(release=release, adjacency=adjacency)))


@given(pairs())
def test_the_output_inverts_the_loss(pair):
    """loss(output(loss(z))) is loss(z), wherever the loss is not flat in double precision."""
    z = np.linspace(-6, 6 + pair.shift, 41)
    loss = pair.loss(z)
    assert (np.diff(loss) >= 0).all()
    again = pair.loss(np.clip(pair.output(loss), -40, 40 + pair.shift))
    assert again == pytest.approx(loss, rel=1e-9, abs=1e-10)


@given(pairs(), st.floats(0.0, 1.0))
def test_delta_is_the_hockey_stick_integral(pair, place):
    """δ(ε) of one release is `∫ (P − e^ε Q)_+`."""
    top = float(pair.loss(np.array([pair.range_holding(outside=1e-6)[1]]))[0])
    epsilon = min(place * top, 30.0)
    z = float(pair.output(np.array([epsilon]))[0])

    def excess(x: float) -> float:
        at = np.array([x])
        return float((pair.numerator_density(at) * -np.expm1(epsilon - pair.loss(at)))[0])

    integral, _ = quad(excess, z, max(z, pair.shift) + 15, epsabs=1e-13, epsrel=1e-10, limit=300)
    assert pair.delta(epsilon) == pytest.approx(integral, rel=1e-6, abs=1e-11)


@pytest.mark.parametrize(("pair", "mu"), [(Pair(1.0, 0.0, 2.0), 2.0), (Pair(1.0, 1.0, 2.0), 4.0)])
def test_without_sampling_a_pair_is_a_gaussian(pair, mu):
    """q = 1 is the Gaussian mechanism: sensitivity 1, or 2 under replace-one adjacency."""
    for epsilon in (0.0, 0.5, 3.0, 12.0):
        assert pair.delta(epsilon) == pytest.approx(
            gaussian_delta(mu=mu, epsilon=epsilon), rel=1e-10
        )


@given(pairs(), st.floats(-25, -1))
def test_epsilon_is_on_the_private_side(pair, log_delta):
    """`pair.epsilon(δ)` is an ε at which δ holds."""
    delta = float(np.exp(log_delta))
    assert pair.delta(pair.epsilon(delta)) <= delta


def test_a_unit_that_is_always_there_has_the_gaussian_loss_in_both_directions():
    """With chance 1 the loss is linear, however far out."""
    far = np.array([-60.0, 0.0, 60.0])
    adding, removing = Pair(0.0, 1.0, 20.0), Pair(1.0, 0.0, 20.0)
    assert adding.loss(far).tolist() == [-1000.0, 200.0, 1400.0]
    assert removing.loss(far).tolist() == [-1400.0, -200.0, 1000.0]
    assert adding.output(adding.loss(far)).tolist() == pytest.approx(far.tolist())
