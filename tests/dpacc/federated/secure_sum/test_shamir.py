"""Shares: enough of them are the secret, and one fewer is nothing."""

from __future__ import annotations

import itertools
import os

import pytest

from dpacc.federated.secure_sum.shamir import PRIME, SharesDisagree, combined, shares


@pytest.mark.parametrize(("threshold", "count"), [(1, 1), (2, 3), (3, 5), (4, 4), (5, 7)])
def test_any_threshold_of_shares_is_the_secret(threshold: int, count: int) -> None:
    """Every subset of t, in any order; the least and the greatest secret too."""
    for secret in (bytes(32), b"\xff" * 32, os.urandom(32)):
        dealt = shares(secret, threshold=threshold, count=count)
        for some in itertools.permutations(dealt, threshold):
            assert combined(some, threshold=threshold) == secret


def test_fewer_shares_fit_every_secret() -> None:
    """With t − 1 shares given, a last share exists for any secret: they rule none out."""
    two = shares(os.urandom(32), threshold=3, count=5)[:2]
    for wanted in (bytes(32), b"\xff" * 32, os.urandom(32)):
        # The polynomial through the wanted secret and both shares, at 3: v₀ − 3v₁ + 3v₂.
        values = [int.from_bytes(wanted, "big"), *(int.from_bytes(s[2:], "big") for s in two)]
        last = (values[0] - 3 * values[1] + 3 * values[2]) % PRIME
        forged = (3).to_bytes(2, "big") + last.to_bytes(66, "big")
        assert combined([*two, forged], threshold=3) == wanted


def test_what_is_no_share_is_refused() -> None:
    """Too few, one twice, of another length, at place 0, or of different secrets."""
    one, other = (shares(os.urandom(32), threshold=2, count=3) for _ in range(2))
    for wrong in (one[:1], [one[0], one[0]], [one[0], one[1][:-1]], [one[0], bytes(68)]):
        with pytest.raises(SharesDisagree):
            combined(wrong, threshold=2)
    with pytest.raises(SharesDisagree, match="not of one secret"):
        combined([one[0], other[1]], threshold=2)  # by luck one in 2²⁶⁵
    with pytest.raises(ValueError, match="threshold=4"):
        shares(bytes(32), threshold=4, count=3)
