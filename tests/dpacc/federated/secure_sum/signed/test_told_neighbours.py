"""Signed sums among neighbours, whose server forwards what it likes: both of a pair are masked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message

from dpacc.federated.secure_sum import masking
from dpacc.federated.secure_sum.messages import OPEN, Party
from dpacc.federated.secure_sum.neighbourhoods import (
    Neighbourhood,
    circle_bits,
    with_holders,
)
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from tests.dpacc.federated.secure_sum.signed.signing_clients import (
    SIGNED_STAGES,
    federation,
    tampering,
    write_key,
)
from tests.dpacc.federated.secure_sum.sums import Federation
from tests.dpacc.federated.secure_sum.test_neighbourhoods import exact_mean

SETTINGS = SecureSum(clients=20, threshold=16, neighbours=9, signed=True)
NODES = [str(node) for node in range(1, 21)]
GONE = [17, 18, 19, 20]


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKeys]:
    """Twenty clients' that know one another."""
    own = [write_key(tmp_path, f"site-{node}") for node in NODES]
    return [SigningKeys(own=each, pinned=tmp_path / "keys") for each in own]


def shares_given(sums: Federation) -> list[Message]:
    """Answers that help to open a sum."""
    return [m for step, _, m in sums.grid.seen if step == f"query.{OPEN}" and not m.has_error()]


@pytest.mark.parametrize("stage", SIGNED_STAGES[2:4])
def test_a_signed_sum_among_neighbours_is_exact_whoever_drops_out(
    stage: str, keys: list[SigningKeys]
) -> None:
    """Three of twenty gone at any stage: the mean of those whose numbers arrived, bit for bit."""
    signed = federation(keys, SETTINGS, lost={stage: [1, 7, 20]})
    signed.round()
    arrived = [
        each.moved
        for at, each in enumerate(signed.fixed, start=1)
        if stage in SIGNED_STAGES[3:] or at not in (1, 7, 20)
    ]
    assert np.array_equal(signed.moved, exact_mean(arrived))


def _undrawn(nodes: list[str], party: Party) -> list[str]:
    """Nobody else draws the first six, who draw one another and four more."""
    if party.node in NODES[:6]:
        return sorted([*NODES[:6], *NODES[6:10]])
    return sorted([party.node, *[n for n in NODES[6:] if n != party.node][:9]])


def _kept_back(node: int, told: Any) -> None:
    if node > 6:
        kept = [at for at, source in enumerate(told["sources"]) if int(source) > 6]
        for name in ("sources", "sealed", "commitments"):
            told[name] = [told[name][at] for at in kept]


def _untold(node: int, told: Any) -> None:
    """Nobody but the six hears whom they drew beside themselves."""
    _kept_back(node, told)
    if node > 6 and "circles" in told:
        lie = circle_bits(NODES[:6], sorted(NODES))
        rows = zip(told["present"], told["circles"], strict=True)
        told["circles"] = [lie if dealer in NODES[:6] else row for dealer, row in rows]


@pytest.mark.parametrize("story", [_kept_back, _untold])
def test_nobody_is_left_out_of_the_sum_that_he_signs(
    story: Callable[[int, Any], None], keys: list[SigningKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen sign; boxes of six of them are kept from the ten others, who drew none of the six.

    The ten's sum held none of the six's masks, and would be opened as that of sixteen.
    """
    monkeypatch.setattr(masking, "_drawn_circle", _undrawn)
    signed = federation(keys, SETTINGS, lost={"train": GONE})
    tampering(signed, "train", story)
    signed.round()
    assert shares_given(signed) == []


def test_only_who_enough_that_sign_hold_shares_of_is_counted() -> None:
    """Of three signers one drew two that did not sign; without it, those that lean on it go too."""
    nodes = ["a", "b", "c", "d", "e"]
    drawn = {"a": "ab", "b": "ab", "c": "cde", "d": "dab", "e": "ec"}
    circles = {node: circle_bits(circle, nodes) for node, circle in drawn.items()}
    assert with_holders("abc", circles=circles, nodes=nodes, fewest=2) == {"a", "b"}
    assert with_holders("abce", circles=circles, nodes=nodes, fewest=2) == {"a", "b", "c", "e"}
    assert with_holders("abce", circles=circles, nodes=nodes, fewest=3) == set()


def test_signers_whose_holders_sign_nothing_open_nothing(
    keys: list[SigningKeys], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixteen of twenty signatures are passed on, but not those of client 1's own holders."""

    def drawn(nodes: list[str], party: Party) -> list[str]:
        if party.node == "1":
            return sorted(["1", "2", "3", "4", "5", "6", *map(str, GONE)])
        return sorted([party.node, *[n for n in NODES[1:16] if n != party.node][:9]])

    def few(node: int, told: Any) -> None:
        kept = [at for at, signer in enumerate(told["signers"]) if int(signer) not in GONE]
        for name in ("signers", "signatures"):
            told[name] = [told[name][at] for at in kept]

    monkeypatch.setattr(masking, "_drawn_circle", drawn)
    monkeypatch.setattr(SecureSum, "neighbourhood", Neighbourhood(neighbours=9, fewest=7))
    signed = federation(keys, SETTINGS)
    tampering(signed, f"query.{OPEN}", few)
    signed.round()
    assert shares_given(signed) == []
    opened = [m for step, _, m in signed.grid.seen if step == f"query.{OPEN}"]
    assert all("fewer than 16 clients signed" in each.error.reason for each in opened)
