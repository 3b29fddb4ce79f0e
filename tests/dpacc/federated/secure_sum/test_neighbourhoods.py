"""How many neighbours are enough, against every way to count them, and sums among them."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord
from scipy import stats

from dpacc.errors import ConfigurationError
from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum import masking
from dpacc.federated.secure_sum.fixed_point import FixedPoint
from dpacc.federated.secure_sum.masking import SECAGG
from dpacc.federated.secure_sum.messages import KEYS, OPEN, SHARES, Party, Payload
from dpacc.federated.secure_sum.neighbourhoods import (
    LOSS_BITS,
    SECURITY_BITS,
    Neighbourhood,
    Sum,
    _upper_tail,
    both_secrets_chance,
    cut_chance,
    fitting_neighbourhood,
    loss_chance,
)
from dpacc.federated.secure_sum.settings import SecureSum
from tests.dpacc.federated.secure_sum.sums import STAGES, Federation, updates

DRAWN = SecureSum(clients=20, threshold=16, neighbours=9)
"""Of nine and oneself, six shares yield a secret."""


@pytest.mark.parametrize(("population", "marked", "drawn"), [(6, 2, 3), (7, 4, 2), (5, 5, 3)])
def test_tails_are_counted_exactly(population: int, marked: int, drawn: int) -> None:
    """Against every subset that can be drawn."""
    all_draws = list(combinations(range(population), drawn))
    for least in range(drawn + 2):
        hits = sum(sum(each < marked for each in draw) >= least for draw in all_draws)
        assert _upper_tail(population, marked, drawn, least) == Fraction(hits, len(all_draws))


@pytest.mark.parametrize(
    "of",
    [
        Sum(clients=1000, threshold=800, colluding=50),
        Sum(clients=1000, threshold=667, colluding=0),
        Sum(clients=400, threshold=380, colluding=8),
    ],
)
def test_what_is_chosen_is_safe_and_one_neighbour_less_is_not(of: Sum) -> None:
    """The three chances are small enough, by scipy's tails too; k − 1 has no t that would do."""
    found = fitting_neighbourhood(of)
    assert found is not None
    k, t = found.neighbours, found.fewest
    assert both_secrets_chance(of, found) + Fraction(cut_chance(of, found)) <= Fraction(
        1, 2**SECURITY_BITS
    )
    assert loss_chance(of, found) <= Fraction(1, 2**LOSS_BITS)
    tail = stats.hypergeom.sf(2 * t - k - 2, of.threshold - 1, of.colluding, k)
    theirs = (of.clients - of.colluding) * tail
    assert float(both_secrets_chance(of, found)) == pytest.approx(theirs, rel=1e-6, abs=1e-300)
    smaller = (Neighbourhood(neighbours=k - 1, fewest=each) for each in range(k // 2, k + 1))
    for each in smaller:
        unsafe = both_secrets_chance(of, each) + Fraction(cut_chance(of, each))
        assert unsafe * 2**SECURITY_BITS > 1 or loss_chance(of, each) * 2**LOSS_BITS > 1


def test_neighbours_grow_with_the_logarithm_of_clients() -> None:
    """Ten times as many, of whom a fifth may drop out and a twentieth collude: 154, then 218."""
    found = [
        fitting_neighbourhood(Sum(clients=n, threshold=4 * n // 5, colluding=n // 20))
        for n in (1_000, 10_000)
    ]
    assert [each and each.neighbours for each in found] == [154, 218]


def test_where_clients_are_few_everybody_is_a_neighbour() -> None:
    """Nothing would be saved, so nothing is left to chance."""
    for clients, threshold in ((5, 3), (20, 16), (50, 34)):
        assert SecureSum(clients=clients, threshold=threshold).neighbourhood is None
    assert SecureSum(clients=1000, threshold=800, protocol="secagg").neighbourhood is not None
    assert SecureSum(clients=1000, protocol="pairwise").neighbourhood is None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"neighbours": 2}, "take neighbours='auto'"),
        ({"neighbours": 10}, "everybody is as cheap"),
        ({"neighbours": 0}, "at least 1"),
        ({"neighbours": 9, "protocol": "pairwise", "threshold": 20}, "all are everybody's"),
        ({"neighbours": 9, "threshold": 12}, "hide too little, or too often"),
    ],
)
def test_neighbours_that_would_hide_nothing_are_refused(wrong: dict[str, Any], reason: str) -> None:
    """Too few, too many to be worth it, and where there are none."""
    with pytest.raises(ConfigurationError, match=reason):
        SecureSum(**{"clients": 20, "threshold": 16, **wrong})


def draws(n: int, k: int, *, times: int, seed: int) -> np.ndarray:
    """Whom each of n draws, [times, n, n]."""
    order = np.random.default_rng(seed).random((times, n, n)) + 2 * np.eye(n)
    found = np.zeros((times, n, n), dtype=bool)
    np.put_along_axis(found, np.argsort(order, axis=2)[:, :, :k], True, axis=2)
    return found


def test_both_secrets_are_as_likely_as_stated() -> None:
    """Among 20,000 random graphs of nine, two of whom collude, and the worst case is meant."""
    of, found = Sum(clients=9, threshold=9, colluding=2), Neighbourhood(neighbours=3, fewest=3)
    graphs = draws(9, 3, times=20_000, seed=0)
    colluding = graphs[:, 2:, :2].sum(axis=2)  # of each honest one's three
    seen = (4 + colluding >= 2 * found.fewest).any(axis=1).mean()
    stated = float(both_secrets_chance(of, found))
    one = float(_upper_tail(8, 2, 3, 2))
    assert seen == pytest.approx(1 - (1 - one) ** 7, abs=0.015)
    assert seen <= stated <= 7 * one + 1e-12


def test_a_cut_is_no_likelier_than_stated_whoever_drops_out() -> None:
    """Each of 300 graphs of nine, every set of six or more survivors, every way to part them.

    A set counts whose every member has t shares' holders in it.
    """
    of, found = Sum(clients=9, threshold=6, colluding=0), Neighbourhood(neighbours=3, fewest=2)
    graphs = draws(9, 3, times=300, seed=1)
    paired = graphs | graphs.transpose(0, 2, 1)
    circles = graphs | np.eye(9, dtype=bool)
    cut = np.zeros(len(graphs), dtype=bool)
    parts = [np.array(each, dtype=bool) for each in product((0, 1), repeat=9)]
    for alive in (each for each in parts if each.sum() >= of.threshold):
        held = (circles & alive).sum(axis=2) >= found.fewest
        whole = (held | ~alive).all(axis=1)
        for part in parts:
            both = 3 <= part.sum() <= alive.sum() - 3 and not part[~alive].any()
            if both and part[np.argmax(alive)]:
                cut |= whole & ~paired[:, part][:, :, alive & ~part].any(axis=(1, 2))
    assert 0 < cut.mean() <= cut_chance(of, found) < 0.25


def test_a_sum_is_lost_as_seldom_as_stated() -> None:
    """Twelve clients of whom two are gone, among 10,000 graphs: below the bound, and not far."""
    of, found = Sum(clients=12, threshold=10, colluding=0), Neighbourhood(neighbours=5, fewest=4)
    graphs = draws(12, 5, times=10_000, seed=2)
    alive = np.arange(12) >= 2
    held = (graphs & alive).sum(axis=2) + alive
    seen = (held < found.fewest).any(axis=1).mean()
    stated = float(loss_chance(of, found))
    assert seen <= stated <= 12 * seen + 1e-3
    assert stated == pytest.approx(
        10 * stats.hypergeom.sf(2, 11, 2, 5) + 2 * stats.hypergeom.sf(1, 11, 1, 5)
    )


def exact_mean(given: list[np.ndarray]) -> np.ndarray:
    grid = FixedPoint.fitting(clients=20, reach=DRAWN.reach)
    whole = sum(grid.rounded(each.astype(np.float64)) for each in given)
    return (whole * grid.spacing / len(given)).astype(np.float32)


@pytest.mark.parametrize("stage", STAGES)
def test_a_sum_among_neighbours_is_exact_whoever_drops_out(stage: str) -> None:
    """Four of twenty gone at any stage: the mean of those whose numbers arrived, bit for bit.

    Each client holds shares of those alone that drew it, and learns no other's.
    """
    given = updates(20)
    federation = Federation(given, DRAWN, lost={stage: [1, 7, 12, 20]})
    report = federation.round()
    gone = () if stage == STAGES[3] else (0, 6, 11, 19)
    arrived = [each for at, each in enumerate(given) if at not in gone]
    assert len(report.survivors) == len(arrived)
    assert np.array_equal(federation.moved, exact_mean(arrived))
    held = Counter(
        len(reply.content.config_records["secure-sum"]["nodes"])
        for step, _, reply in federation.grid.seen
        if step == STAGES[1]
    )
    assert set(held) == {9}


def test_below_the_threshold_no_neighbourhood_opens_anything() -> None:
    """Five of twenty gone where sixteen are needed: the adapter stays as it was."""
    federation = Federation(updates(20), DRAWN, lost={"train": [2, 4, 6, 8, 10]})
    report = federation.round()
    assert report.survivors == ()
    assert not federation.moved.any()


class Neighbours:
    """Twenty parties whose server is the test."""

    def __init__(self, **beside: list[str]) -> None:
        self.parties = {str(n): _party(str(n)) for n in range(1, 21)}
        offers: Any = {n: self.ask(n, KEYS, {}) for n in self.parties}
        self.roster: Any = {
            "nodes": list(offers),
            "mask-keys": [offers[n]["mask-key"] for n in offers],
            "seal-keys": [offers[n]["seal-key"] for n in offers],
            **beside,
        }
        self.dealt: Any = {n: self.ask(n, SHARES, self.roster) for n in self.parties}

    def ask(self, node: str, stage: str, told: Payload) -> Any:
        return SECAGG.queries[stage]({"session": "s", **told}, self.parties[node])

    def circle(self, node: str) -> list[str]:
        return sorted([node, *self.dealt[node]["nodes"]])

    def trained(self, present: list[str] | None = None) -> Neighbours:
        """All have sent their numbers."""
        for node, party in self.parties.items():
            told = {"session": "s", **self.forwarded(node, present or list(self.parties))}
            SECAGG.require(told, party)
            SECAGG.protect(np.zeros(3, dtype=np.int64), told, party)
        return self

    def forwarded(self, node: str, present: list[str]) -> Payload:
        sources = [n for n in present if n != node and node in self.circle(n)]
        boxes, said = [], []
        for peer in sources:
            told = self.dealt[peer]
            boxes.append(dict(zip(told["nodes"], told["sealed"], strict=True))[node])
            said.append(told["commitments"][self.circle(peer).index(node)])
        return {"present": present, "sources": sources, "sealed": boxes, "commitments": said}


def _party(node: str) -> Party:
    return Party(node=node, settings=DRAWN, state=ConfigRecord({"session": "s", "next": ""}))


def test_nobody_but_a_client_decides_whom_it_draws() -> None:
    """2,000 draws from one list: each other client as often as any (χ², 1 in 10⁶ to fail).

    Whoever orders the list, or names neighbours beside it, changes nothing.
    """
    nodes, party = [str(n) for n in range(20, 0, -1)], _party("7")
    counts: Counter[str] = Counter()
    for _ in range(2_000):
        counts.update(masking._drawn_circle(nodes, party))
    assert counts.pop("7") == 2_000
    assert len(counts) == 19
    mean = 2_000 * 9 / 19
    # Nine different ones a time vary by 10/18 of what independent draws do.
    chi = sum((seen - mean) ** 2 for seen in counts.values()) / (mean * 10 / 19) * 18 / 19
    assert stats.chi2.sf(chi, 18) > 1e-6
    drawn = Neighbours(hint=nodes[:9]).dealt["7"]["nodes"]
    assert sorted(drawn) != sorted(nodes[:9])


def test_one_secret_of_a_client_at_most_whatever_its_neighbours_are_told() -> None:
    """Every split of a circle of ten: six shares of both secrets would need twelve."""
    everybody = Neighbours().trained()
    nodes = list(everybody.parties)
    rest = [n for n in nodes if n != "3"]
    found: dict[str, int] = {"seed": 0, "key": 0}
    for at, node in enumerate([n for n in everybody.circle("3") if n != "3"]):
        lists = (nodes, []) if at % 2 else (rest, ["3"])
        given = everybody.ask(node, OPEN, {"arrived": lists[0], "dropped": lists[1]})
        assert "3" in given["nodes"]
        found["key" if lists[1] else "seed"] += 1
    assert sum(found.values()) == DRAWN.fewest_shares + 3
    assert min(found.values()) < DRAWN.fewest_shares


@pytest.mark.parametrize("change", ["both", "short", "other"])
def test_lists_that_are_not_of_all_are_refused(change: str) -> None:
    """A client on both lists, one on neither that is nobody's neighbour, and a stranger."""
    everybody = Neighbours().trained()
    nodes = list(everybody.parties)
    far = next(
        n for n in nodes if n not in everybody.circle("1") and "1" not in everybody.circle(n)
    )
    lists = {
        "both": (nodes, [far]),
        "short": ([n for n in nodes if n != far], []),
        "other": (nodes, ["99"]),
    }[change]
    with pytest.raises(RequestRefused, match=r"both secrets|list of survivors"):
        everybody.ask("1", OPEN, {"arrived": lists[0], "dropped": lists[1]})
    assert not list(everybody.parties["1"].state)


def test_whose_neighbours_are_gone_neither_trains_nor_opens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sixteen are there, but of the ten of client 1 six alone, where seven are needed."""
    monkeypatch.setattr(SecureSum, "neighbourhood", Neighbourhood(neighbours=9, fewest=7))
    everybody = Neighbours()
    for node, late in (("1", True), ("2", False)):
        party, nodes = everybody.parties[node], list(everybody.parties)
        gone = [n for n in everybody.circle(node) if n != node][:4]
        left = [n for n in nodes if n not in gone]
        told = {"session": "s", **everybody.forwarded(node, nodes if late else left)}
        if late:
            SECAGG.require(told, party)
            SECAGG.protect(np.zeros(3, dtype=np.int64), told, party)
        lists = {"session": "s", "arrived": left, "dropped": gone}
        stage = partial(SECAGG.queries[OPEN], lists) if late else partial(SECAGG.require, told)
        with pytest.raises(RequestRefused, match="6 of those that hold this client's secrets"):
            stage(party)


def test_a_client_whose_shares_too_few_hold_is_left_out_before_anybody_trains(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Client 1 drew three that hand out nothing: nobody is to blame, and the others add up."""

    def drawn(nodes: list[str], party: Party) -> list[str]:
        if party.node == "1":
            return sorted(["1", "2", "3", "4", "5", "6", "7", "18", "19", "20"])
        others = [n for n in nodes if n != party.node and 1 < int(n) < 18]
        return sorted([party.node, *others[:9]])

    monkeypatch.setattr(masking, "_drawn_circle", drawn)
    monkeypatch.setattr(SecureSum, "neighbourhood", Neighbourhood(neighbours=9, fewest=8))
    federation = Federation(updates(20), DRAWN, lost={STAGES[1]: [18, 19, 20]})
    report = federation.round()
    assert len(report.survivors) == 16
    assert report.failed["node 1"] == "too few that it drew are there"
    assert federation.history.expelled == {}
    assert federation.fixed[0].asked == 0
