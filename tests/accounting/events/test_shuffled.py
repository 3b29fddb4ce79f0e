import pytest
from dpacc_accounting import (
    Composed,
    Gaussian,
    Mixture,
    PoissonSampled,
    Repeated,
    Shuffled,
    delta,
    epsilon,
    without_amplification,
)

EPOCHS = Repeated(event=Shuffled(event=Gaussian(noise_multiplier=2.0)), times=4)


@pytest.mark.parametrize("method", ["pld", "rdp", "gaussian"])
@pytest.mark.parametrize(
    "event",
    [
        EPOCHS,
        Mixture(weights=(0.5, 0.5), events=(EPOCHS, Composed(events=()))),
        PoissonSampled(probability=0.5, event=EPOCHS),
    ],
)
def test_shuffled_batches_are_refused_with_an_explanation(event, method):
    """No method prices shuffled batches, wherever they stand, and the error says what to do."""
    with pytest.raises(ValueError, match=r"shuffled|Mixture"):
        epsilon(event=event, delta=1e-5, method=method)
    with pytest.raises(ValueError, match=r"shuffled|Mixture"):
        delta(event=event, epsilon=1.0, method=method)


def test_without_amplification_each_epoch_counts_once():
    """Asked for, four epochs at σ = 2 cost one Gaussian at σ = 1: the unit is in one batch each."""
    known = epsilon(event=without_amplification(event=EPOCHS), delta=1e-5)
    assert known.epsilon == epsilon(event=Gaussian(noise_multiplier=1.0), delta=1e-5).epsilon
