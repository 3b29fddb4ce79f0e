"""What is refused before anybody is asked."""

from __future__ import annotations

from typing import Any

import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.secure_sum.fixed_point import FixedPoint, OutOfRange
from dpacc.federated.secure_sum.settings import SecureSum, require_summable
from dpacc.federated.settings import LoraSettings

FIVE = SecureSum(clients=5, threshold=3)
CKKS = SecureSum(clients=5, protocol="ckks")


CENTRAL = ClientPrivacy(noise_multiplier=1.0, clipping_norm=0.5, delta=1e-6)
CORRELATED = ClientPrivacy.calibrate(
    rounds=10, min_separation=2, epsilon=8.0, delta=1e-6, clipping_norm=0.5
)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"threshold": 2}, "take 3 to 5"),
        ({"threshold": 6}, "take 3 to 5"),
        ({"threshold": 3, "colluding": 1}, "take 4 to 5"),
        ({"threshold": 5, "colluding": 5}, "both secrets"),
        ({"clients": 1}, "one honest client"),
        ({"clients": 2, "colluding": 1}, "one honest client"),
        ({"colluding": -1}, "at least 0"),
        ({"reach": float("nan")}, "above 0"),
        ({"protocol": "pairwise", "threshold": 4}, "only if all 5 answer"),
        ({"protocol": "ckks", "threshold": 4, "colluding": 1}, "holds the key"),
        ({"protocol": "sum"}, "one of secagg, pairwise, ckks"),
    ],
)
def test_sums_that_would_hide_nothing_are_refused(wrong: dict[str, Any], reason: str) -> None:
    """Thresholds of half or fewer, or within reach of colluders; and protocols that cannot."""
    with pytest.raises(ConfigurationError, match=reason):
        SecureSum(**{"clients": 5, **wrong})


@pytest.mark.parametrize("n", range(2, 12))
def test_exactly_the_majorities_are_accepted(n: int) -> None:
    """2t > n + c, and two honest clients in every sum: no other condition."""
    for t in range(n + 2):
        for c in range(n):
            legal = n + c < 2 * t <= 2 * n and t - c >= 2
            try:
                SecureSum(clients=n, threshold=t, colluding=c)
            except ConfigurationError:
                assert not legal, (n, t, c)
            else:
                assert legal, (n, t, c)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"clients": 4}, "give both the same number"),
        ({"defended": True}, "look at single updates"),
        ({"aggregation": "fedex"}, "take aggregation='ffa'"),
        ({"aggregation": "average"}, "take aggregation='ffa'"),
        ({"sampled": True, "privacy": CENTRAL}, "no amplification by sampling covers"),
        ({"compressed": True, "privacy": CENTRAL}, "sized for every number"),
        ({"compressed": True, "settings": CKKS}, "as wide whatever lies"),
        ({"privacy": CORRELATED}, "nobody can take a part back"),
    ],
)
def test_what_a_sum_alone_cannot_do_is_refused(wrong: dict[str, Any], reason: str) -> None:
    """Krum and its like, rules of products, sampled clients with shared noise, correlated noise."""
    fitting: dict[str, Any] = {
        "settings": FIVE,
        "clients": 5,
        "aggregation": "ffa",
        "lora": LoraSettings(),
        "defended": False,
        "sampled": False,
        "privacy": None,
        "compressed": False,
    }
    require_summable(**fitting)
    require_summable(**fitting | {"sampled": True, "compressed": True})
    with pytest.raises(ConfigurationError, match=reason):
        require_summable(**fitting | wrong)


def test_the_grid_is_as_fine_as_32_bits_allow() -> None:
    """No sum of all clients can wrap; twice as fine, one could; too much reach is refused."""
    for clients in (2, 5, 50, 1000):
        grid = FixedPoint.fitting(clients=clients, reach=8.0)
        points = 8.0 * 2.0**grid.fraction_bits + 1
        assert clients * points < 2**31 <= clients * 2 * points
        assert grid.most >= points - 1
    with pytest.raises(OutOfRange, match="32 bits"):
        FixedPoint.fitting(clients=1000, reach=1e7)
