import math

import numpy as np
import pytest
from dpacc_accounting import (
    AdaptivelyClipped,
    Adjacency,
    Gaussian,
    PoissonSampled,
    Repeated,
    epsilon,
    from_dp_event,
    joint_noise_multiplier,
    sum_noise_multiplier,
    to_dp_event,
    without_amplification,
)
from hypothesis import given
from hypothesis import strategies as st


@given(st.floats(0.1, 10), st.floats(1.01, 100))
def test_splitting_the_noise_is_undone_by_joining_it(sigma, room):
    """The noise that the sum needs beside the count gives the joint noise back."""
    count = sigma / 2 * room
    split = sum_noise_multiplier(joint_noise_multiplier=sigma, count_noise=count)
    assert split > sigma
    joined = joint_noise_multiplier(sum_noise_multiplier=split, count_noise=count)
    assert joined == pytest.approx(sigma, rel=1e-12)


def test_no_unit_moves_both_releases_further_than_the_joint_gaussian():
    """Any clipped gradient and its bit, over their noises, stay within 1/σ (replaced: 2/σ)."""
    rng = np.random.default_rng(2)
    sigma_g, sigma_b, clip = 1.3, 4.0, 0.7
    gradients = rng.normal(size=(500, 3))
    norms = np.linalg.norm(gradients, axis=1, keepdims=True)
    sums = gradients * np.minimum(1, clip / norms) / (sigma_g * clip)
    counts = ((norms < clip) - 0.5) / sigma_b
    moves = np.linalg.norm(np.hstack([sums, counts]), axis=1)
    joint = joint_noise_multiplier(sum_noise_multiplier=sigma_g, count_noise=sigma_b)
    assert 0.999 / joint < moves.max() <= (1 + 1e-12) / joint
    both = np.hstack([sums, counts])
    apart = np.linalg.norm(both[:, None] - both[None], axis=2).max()
    assert apart <= 2 / joint


@pytest.mark.parametrize("adjacency", list(Adjacency))
def test_both_in_one_batch_are_priced_as_one_gaussian(adjacency):
    """Sampled together they cost what their Gaussian does: more than the sum alone."""
    both = AdaptivelyClipped(noise_multiplier=2.0, count_noise=1.0)
    joint = Gaussian(noise_multiplier=math.sqrt(2))

    def steps(event):
        return Repeated(event=PoissonSampled(probability=0.05, event=event), times=50)

    price = epsilon(event=steps(both), delta=1e-5, adjacency=adjacency).epsilon
    alone = epsilon(event=steps(joint), delta=1e-5, adjacency=adjacency).epsilon
    assert price == pytest.approx(alone, rel=1e-9)
    sum_only = steps(Gaussian(noise_multiplier=2.0))
    assert price > epsilon(event=sum_only, delta=1e-5, adjacency=adjacency).epsilon
    assert without_amplification(event=steps(both)) == Repeated(event=both, times=50)
    assert from_dp_event(event=to_dp_event(event=both)) == Gaussian(
        noise_multiplier=both.joint_noise_multiplier
    )


def test_a_count_that_spends_everything_is_refused():
    """With σ_b <= σ/2 nothing is left for the sum; without noise nothing is protected."""
    with pytest.raises(ValueError, match="raise count_noise"):
        sum_noise_multiplier(joint_noise_multiplier=2.0, count_noise=1.0)
    assert sum_noise_multiplier(joint_noise_multiplier=0.0, count_noise=1.0) == 0
    bare = AdaptivelyClipped(noise_multiplier=2.0, count_noise=0.0)
    assert epsilon(event=bare, delta=1e-5).epsilon == math.inf
    with pytest.raises(ValueError, match="count_noise=-1"):
        AdaptivelyClipped(noise_multiplier=2.0, count_noise=-1)
