"""With how many others each client shares its secrets, so that its work does not grow with all.

Each client draws k others by itself, uniformly, once it has seen everybody's keys: it deals shares
of its two secrets to them, and masks its numbers with them and with those that drew it. Nobody
else has a say in whom it draws, which is what Bell et al. 2020 do against a server that cheats
(doi 10.1145/3372297.3417885, section 4); a graph that came out of the keys could be chosen among
many by whoever sends his last. Chances below are over these draws, for every choice of who
colludes and who drops out that knows nothing of them, unless said otherwise.

A client and its k others are K = k + 1; t of their shares yield one of its secrets.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from dpacc.federated.secure_sum.fixed_point import Doubles

SECURITY_BITS = 40
"""No more than 2⁻⁴⁰ is the chance that draws of one sum hide a client less than they should."""
LOSS_BITS = 20
"""No more than 2⁻²⁰ is the chance that a sum of enough clients cannot be opened."""


@dataclass(frozen=True, kw_only=True)
class Sum:
    """What the numbers of a neighbourhood depend on.

    Args:
        clients: n, all that take part.
        threshold: T, the fewest whose sum is opened.
        colluding: c, how many work together with the server.
    """

    clients: int
    threshold: int
    colluding: int


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """Whom a client's secrets are shared with.

    Args:
        neighbours: k.
        fewest: t, how many shares of K = k + 1 yield a secret.
    """

    neighbours: int
    fewest: int


@lru_cache(maxsize=64)
def fitting_neighbourhood(of: Sum, *, neighbours: int | None = None) -> Neighbourhood | None:
    """The smallest neighbourhood that is safe enough and opens often enough, if any is.

    Each client masks with those that it drew and those that drew it, 2k in the mean. Unless k is
    given, 2k is at most half of all others; else everybody is simpler.

    Args:
        of: the sum.
        neighbours: k, where that is given.

    >>> fitting_neighbourhood(Sum(clients=1000, threshold=800, colluding=50))
    Neighbourhood(neighbours=154, fewest=95)
    >>> fitting_neighbourhood(Sum(clients=20, threshold=15, colluding=2)) is None
    True
    """
    wanted = range(1, (of.clients - 1) // 4 + 1) if neighbours is None else [neighbours]
    for k in wanted:
        for fewest in _promising(of, k):
            found = Neighbourhood(neighbours=k, fewest=fewest)
            hidden = both_secrets_chance(of, found) + Fraction(cut_chance(of, found))
            if 2**SECURITY_BITS * hidden <= 1 and 2**LOSS_BITS * loss_chance(of, found) <= 1:
                return found
    return None


def _promising(of: Sum, k: int) -> list[int]:
    """Each t from K/2 to K for which both chances seem small enough in doubles."""
    fewest = np.arange(k // 2 + 1, k + 2)
    both = _log_tails(of.threshold - 1, of.colluding, k)[2 * fewest - k - 1]
    gone = of.clients - of.threshold
    arrived = _log_tails(of.clients - 1, gone, k)[np.minimum(k + 2 - fewest, k + 1)]
    dropped = _log_tails(of.clients - 1, max(gone - 1, 0), k)[k + 1 - fewest]
    lost = np.logaddexp(np.log(of.threshold) + arrived, np.log(gone) + dropped if gone else -np.inf)
    slack = 1e-6
    good = np.log(of.clients - of.colluding) + both <= slack - SECURITY_BITS * math.log(2)
    return [int(t) for t in fewest[good & (lost <= slack - LOSS_BITS * math.log(2))]]


def both_secrets_chance(of: Sum, found: Neighbourhood) -> Fraction:
    """The chance that t shares of both secrets of some honest client can be collected, at most.

    A server that tells some clients that one is gone, and others that it is there, gets one share
    of each of K − j clients and both of the j that collude: t of either only if K + j ≥ 2t. So
    this is (n − c)·P[J ≥ 2t − K], J being hypergeometric: k drawn of T − 1 others, c of which
    collude. T − 1 are the fewest among whom keys are ever exchanged, with whom it is likeliest.
    """
    least = 2 * found.fewest - found.neighbours - 1
    tail = _upper_tail(of.threshold - 1, of.colluding, found.neighbours, least)
    return min(Fraction(1), (of.clients - of.colluding) * tail)


def cut_chance(of: Sum, found: Neighbourhood) -> float:
    """The chance that the sum of some honest clients can be told from that of the others, at most.

    It takes a set S of honest survivors of which none is masked with any other of them, R. Both of
    a pair are masked if one drew the other; a server that keeps that from one of them is found out
    in signed sums alone, where survivors are those that sign the same list of who drew whom. All
    have t shares' holders among survivors, of which at most 2t − K − 1 collude (else the chance
    above has happened), so that S and R hold m = K − t + 1 or more each, and together T − c. No
    matter who drops out, even by choice of one who has seen the draws, this is at most

    Σ_s Σ_r C(h, s)·C(h−s, r)·e_r^s·e_s^r ≤ Σ_s C(h, s)·e_r'^s·Σ_r C(h−s, r)·e_s^r, r ≥ r',

    h being n − c, e_s = C(n−1−s, k)/C(n−1, k) the chance to draw none of s, and r' the larger of m
    and T − c − s. The inner sum is at most (1 + e_s)^(h−s), and as many terms as it has times the
    largest, which is where r is just below (h − s + 1)·e_s/(1 + e_s), or at r'.
    """
    honest, least = of.clients - of.colluding, found.neighbours + 2 - found.fewest
    sizes = np.arange(least, honest - least + 1)
    if not len(sizes):
        return 0.0
    fewest = np.maximum(least, of.threshold - of.colluding - sizes)
    missing = _log_missing(of.clients - 1, sizes, found.neighbours)
    rest, missed = honest - sizes, np.exp(missing)
    largest = np.maximum(fewest, np.floor((rest + 1) * missed / (1 + missed)))
    inner = np.minimum(
        rest * np.log1p(missed),
        np.log(rest - fewest + 1) + _log_choose(rest, largest) + largest * missing,
    )
    outer = sizes * _log_missing(of.clients - 1, fewest, found.neighbours)
    logs = _log_choose(honest, sizes) + outer + inner
    # Logarithms of gamma functions are good to 12 digits; this is a millionth more.
    return float(min(1.0, (1 + 1e-6) * np.exp(np.minimum(logs, 0.0)).sum()))


def loss_chance(of: Sum, found: Neighbourhood) -> Fraction:
    """The chance that T clients are there, and too few hold shares of somebody's secret, at most.

    D = n − T are gone, whoever they are. Of one whose numbers arrived they may hold k + 1 − t of
    its own and k others' shares, of one that is gone itself k − t of k. Union over all n.
    """
    k, gone = found.neighbours, of.clients - of.threshold
    if not gone:
        return Fraction(0)
    arrived = _upper_tail(of.clients - 1, gone, k, k + 2 - found.fewest)
    dropped = _upper_tail(of.clients - 1, gone - 1, k, k + 1 - found.fewest)
    return min(Fraction(1), of.threshold * arrived + gone * dropped)


def circle_bits(circle: Collection[str], nodes: Sequence[str]) -> bytes:
    """Which of these nodes a circle holds, a bit each, the first one's the lowest.

    >>> circle_bits(["b", "c"], ["a", "b", "c"])
    b'\\x06'
    """
    whole = sum(1 << at for at, node in enumerate(nodes) if node in circle)
    return whole.to_bytes(-(-len(nodes) // 8), "little")


def who_drew(node: str, circles: Mapping[str, bytes], nodes: Sequence[str]) -> set[str]:
    """In whose circle a node is, itself among them.

    >>> sorted(who_drew("b", {"a": bytes([3]), "b": bytes([6])}, ["a", "b", "c"]))
    ['a', 'b']
    """
    at = nodes.index(node)
    return {dealer for dealer, bits in circles.items() if _whole(bits) >> at & 1}


def with_holders(
    some: Iterable[str], *, circles: Mapping[str, bytes], nodes: Sequence[str], fewest: int
) -> set[str]:
    """Those of some of whose circles `fewest` are among them too, and so on.

    Args:
        some: clients.
        circles: whom each drew, as bits.
        nodes: in the order of the bits.
        fewest: t.
    """
    left = set(some)
    while True:
        there = _whole(circle_bits(left, nodes))
        lonely = {n for n in left if (_whole(circles[n]) & there).bit_count() < fewest}
        if not lonely:
            return left
        left -= lonely


def _whole(bits: bytes) -> int:
    return int.from_bytes(bits, "little")


def _upper_tail(population: int, marked: int, drawn: int, least: int) -> Fraction:
    """P[at least so many of those drawn are marked], exactly.

    >>> _upper_tail(4, 2, 2, 1)
    Fraction(5, 6)
    """
    ways = sum(
        math.comb(marked, j) * math.comb(population - marked, drawn - j)
        for j in range(max(least, 0), min(marked, drawn) + 1)
    )
    return Fraction(ways, math.comb(population, drawn))


def _log_tails(population: int, marked: int, drawn: int) -> Doubles:
    """The logarithm of `_upper_tail` for every least number from 0 to drawn + 1."""
    j = np.arange(drawn + 1)
    possible = (j <= marked) & (drawn - j <= population - marked)
    some = np.where(possible, j, max(0, drawn + marked - population))
    ways = _log_choose(marked, some) + _log_choose(population - marked, drawn - some)
    logs = np.where(possible, ways - _log_choose(population, np.array(drawn)), -np.inf)
    return np.append(np.logaddexp.accumulate(logs[::-1])[::-1], -np.inf)


def _log_choose(of: int | npt.NDArray[Any], some: npt.NDArray[Any]) -> Doubles:
    return np.asarray(gammaln(of + 1) - gammaln(some + 1) - gammaln(of - some + 1))


def _log_missing(population: int, some: npt.NDArray[Any], drawn: int) -> Doubles:
    """log(C(population − s, drawn)/C(population, drawn)); minus infinity where none can miss s."""
    left = population - some
    possible = left >= drawn
    left = np.where(possible, left, drawn)
    logs = gammaln(left + 1) - gammaln(left - drawn + 1)
    whole = gammaln(population + 1) - gammaln(population - drawn + 1)
    return np.where(possible, logs - whole, -np.inf)
