"""Compressed updates: unbiased, within their bound, exact on the wire, and never trusted."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dpacc.errors import ConfigurationError
from dpacc.federated.updates.compressed_updates import (
    BLOCK,
    Sent,
    compress,
    decompress,
    error_bound,
    expected_arrays,
    from_integer_sum,
    payload_bytes,
    to_integers,
)
from dpacc.federated.updates.compression import Compression, PublicCoins

UNBIASED = [
    Compression(bits=8),
    Compression(bits=4),
    Compression(bits=8, limit=4.0),
    Compression(keep=0.25, selection="random"),
    Compression(bits=4, keep=0.5, selection="random"),
    Compression(bits=4, keep=0.5, selection="random", limit=8.0),
]
LARGEST = [Compression(keep=0.01), Compression(keep=0.3), Compression(bits=4, keep=0.1)]
ALL = UNBIASED + LARGEST
NAMED = {"ids": lambda each: each.words}


def coins(number: int = 1, client: str = "north") -> PublicCoins:
    return PublicCoins(run="a run", number=number, client=client)


def drawn(count: int = 3000, seed: int = 0) -> np.ndarray:
    """A vector with all numbers within ±3.9."""
    values = np.random.default_rng(seed).normal(size=count).clip(-3.9, 3.9)
    return values.astype(np.float32)


def crossed(vector: np.ndarray, compression: Compression, number: int = 1) -> np.ndarray:
    """What arrives of it."""
    sent = compress(vector, compression=compression, coins=coins(number))
    return decompress(sent, compression=compression, count=len(vector), coins=coins(number))


@pytest.mark.parametrize("compression", UNBIASED, **NAMED)
def test_the_mean_over_many_rounds_is_the_vector(compression: Compression) -> None:
    """E‖mean − x‖² is at most bound/rounds where there is no bias; no mean strays further."""
    vector, rounds = drawn(500), 400
    arrived = [crossed(vector, compression, number) for number in range(rounds)]
    bound = error_bound(vector, compression=compression)
    missed = float(np.square(np.mean(arrived, axis=0) - vector).sum())
    assert 0 < missed < 1.5 * bound / rounds


def test_the_check_on_bias_can_fail() -> None:
    """Keeping the largest is biased: the mean over rounds misses as much as one round does."""
    vector = drawn(500)
    compression = Compression(keep=0.25)
    arrived = [crossed(vector, compression, number) for number in range(3)]
    assert np.square(np.mean(arrived, axis=0) - vector).sum() == pytest.approx(
        error_bound(vector, compression=compression), rel=1e-6
    )


@pytest.mark.parametrize("compression", ALL, **NAMED)
def test_the_mean_squared_error_stays_below_its_bound(compression: Compression) -> None:
    """Over many rounds; half of a percent is left to chance where the bound is reached."""
    vector = drawn(500)
    squares = [
        float(np.square(crossed(vector, compression, number) - vector).sum())
        for number in range(400)
    ]
    spread = np.std(squares) / 20
    assert np.mean(squares) <= error_bound(vector, compression=compression) + 4 * spread
    assert np.mean(squares) > 0


def test_the_bound_is_reached_where_it_can_be() -> None:
    """Numbers halfway between two codes, and random places, err by the whole bound."""
    halfway = np.float32([1.0] + [0.5 / 7] * 699)
    found = [
        float(np.square(crossed(halfway, Compression(bits=4), number) - halfway).sum())
        for number in range(50)
    ]
    assert np.mean(found) == pytest.approx(
        error_bound(halfway, compression=Compression(bits=4)), rel=0.01
    )
    random, vector = Compression(keep=0.25, selection="random"), drawn(1000)
    found = [
        float(np.square(crossed(vector, random, number) - vector).sum()) for number in range(400)
    ]
    assert np.mean(found) == pytest.approx(error_bound(vector, compression=random), rel=0.02)


@pytest.mark.parametrize("compression", ALL, **NAMED)
@pytest.mark.parametrize("count", [1, 2, 7, BLOCK, BLOCK + 1])
def test_what_is_sent_depends_on_data_only_in_its_numbers(
    compression: Compression, count: int
) -> None:
    """Types, shapes and bytes are those announced for every length, zeros and huge ones alike."""
    expected = expected_arrays(compression, count=count)
    for vector in (drawn(count), np.zeros(count, np.float32), np.full(count, 3e30, np.float32)):
        sent = compress(vector, compression=compression, coins=coins())
        assert {name: (a.dtype, a.shape) for name, a in sent.items()} == expected
        assert sum(a.nbytes for a in sent.values()) == payload_bytes(compression, count=count)


@pytest.mark.parametrize("compression", ALL, **NAMED)
def test_numbers_on_the_grid_cross_exactly(compression: Compression) -> None:
    """What codes and places can say arrives bit for bit, whatever the coins."""
    count, levels = 2048, compression.levels if compression.bits < 32 else 127
    vector = np.zeros(count, np.float32)
    gain = compression.gain(count)
    places = (
        coins().places(compression, count)
        if compression.selection == "random" and compression.keep < 1
        else np.sort(np.random.default_rng(1).permutation(count)[: compression.kept(count)])
    )
    codes = np.random.default_rng(2).integers(1, levels + 1, size=len(places))
    codes[::BLOCK] = levels  # each block's largest, so that its scale is the same
    spacing = (compression.limit or levels) / levels
    vector[places] = codes * spacing / gain
    arrived = crossed(vector, compression)
    np.testing.assert_allclose(arrived[places], codes * spacing, rtol=1e-6)
    assert not arrived[np.setdiff1d(np.arange(count), places)].any()


def test_the_largest_are_kept_as_they_are() -> None:
    """Without codes, the k numbers largest in size arrive bit for bit, all others as 0."""
    vector = drawn()
    for keep in (0.01, 0.3):
        arrived = crossed(vector, Compression(keep=keep))
        kept = np.argsort(-np.abs(vector), kind="stable")[: Compression(keep=keep).kept(3000)]
        assert np.array_equal(arrived[kept], vector[kept])
        assert np.count_nonzero(arrived) == len(kept)


def test_no_code_leaves_its_range_however_the_coins_fall() -> None:
    """A coin next to 1 does not push a block's largest number a code too far."""

    class Ones(PublicCoins):
        def rounding(self, count: int) -> np.ndarray:
            return np.full(count, np.nextafter(1.0, 0.0))

    ones = Ones(run="r", number=1, client="a")
    for bits in (8, 4):
        compression = Compression(bits=bits)  # type: ignore[arg-type]
        sent = compress(np.float32([-1, 1, 0.3]), compression=compression, coins=ones)
        arrived = decompress(sent, compression=compression, count=3, coins=ones)
        assert arrived[1] == 1.0
        assert np.abs(arrived).max() <= 1.0


def test_clients_draw_coins_of_their_own_and_the_same_ones_again() -> None:
    """Errors of different clients are independent; one client's request gives the same bytes."""
    compression = Compression(bits=4, keep=0.5, selection="random")
    places = {name: coins(client=name).places(compression, 100).tolist() for name in ("a", "b")}
    assert places["a"] != places["b"]
    assert places["a"] == coins(client="a").places(compression, 100).tolist()
    assert places["a"] != coins(number=2, client="a").places(compression, 100).tolist()
    assert (coins(client="a").rounding(100) != coins(client="b").rounding(100)).all()


def test_places_are_drawn_evenly() -> None:
    """Over 4000 rounds each of 20 places is drawn as often as chance says."""
    compression = Compression(keep=0.25, selection="random")
    counts = np.zeros(20)
    for number in range(4000):
        counts[coins(number).places(compression, 20)] += 1
    assert (np.abs(counts - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75)).all()


@pytest.mark.parametrize("keep", [1.0, 0.25])
def test_summed_codes_are_the_codes_of_the_sum(keep: float) -> None:
    """The mean read from the whole-number sum is the mean of what each client sent alone."""
    compression = Compression(bits=8, keep=keep, selection="random", limit=16.0)
    vectors = {name: drawn(300, seed=at) for at, name in enumerate(("a", "b", "c"))}
    total = np.zeros(compression.kept(300), np.int64)
    alone = []
    for name, vector in vectors.items():
        own = coins(client=name)
        total += to_integers(vector, compression=compression, coins=own)
        sent = compress(vector, compression=compression, coins=own)
        alone.append(decompress(sent, compression=compression, count=300, coins=own))
    found = from_integer_sum(
        total, compression=compression, count=300, clients=3, coins=coins(client="server")
    )
    np.testing.assert_allclose(found, np.mean(alone, axis=0), rtol=1e-12, atol=1e-12)


def test_a_sum_that_no_clients_could_have_made_is_refused() -> None:
    """Of another length, or larger than all codes together."""
    compression = Compression(bits=8, limit=1.0)
    for total in (np.zeros(9, np.int64), np.full(10, 2 * 127 + 1)):
        with pytest.raises(ConfigurationError, match="sum of 2 updates"):
            from_integer_sum(total, compression=compression, count=10, clients=2, coins=coins())
    with pytest.raises(ConfigurationError, match="public limit"):
        to_integers(drawn(10), compression=Compression(bits=8), coins=coins())


def change(name: str, at: int, value: float) -> Callable[[Sent], None]:
    def edit(sent: Sent) -> None:
        sent[name] = sent[name].copy()
        sent[name][at] = value

    return edit


HOSTILE: list[tuple[Compression, Callable[[Sent], object]]] = [
    (Compression(bits=8), change("codes", 3, -128)),
    (Compression(bits=4), change("codes", 3, 0x07)),
    (Compression(bits=4), change("codes", -1, 0x98)),
    (Compression(bits=8), change("scales", 0, np.nan)),
    (Compression(bits=8), change("scales", 0, np.inf)),
    (Compression(bits=8), change("scales", 0, -1.0)),
    (Compression(bits=8), lambda sent: sent.pop("scales")),
    (Compression(bits=8), lambda sent: sent.update(places=np.zeros(1, np.uint8))),
    (Compression(bits=8), lambda sent: sent.update(codes=sent["codes"].astype(np.int16))),
    (Compression(bits=8), lambda sent: sent.update(codes=sent["codes"][:-1])),
    (Compression(bits=8), lambda sent: sent.update(codes=sent["codes"].reshape(1, -1))),
    (Compression(keep=0.5), change("values", 0, np.nan)),
    (Compression(keep=0.5), change("places", 0, 0xFF)),
    (Compression(keep=0.5), change("places", -1, 0x01)),
    (Compression(keep=0.01), change("places", 0, 2**32 - 1)),
    (Compression(keep=0.01), change("places", -1, 2**32 - 1)),
    (Compression(keep=0.01), lambda sent: sent.update(places=sent["places"][::-1].copy())),
    (Compression(keep=0.01), lambda sent: sent.update(places=np.zeros_like(sent["places"]))),
]


@pytest.mark.parametrize("case", range(len(HOSTILE)))
def test_arrays_that_compress_would_not_write_are_refused(case: int) -> None:
    """Codes and places out of range, senseless scales, other arrays: refused, never guessed at."""
    compression, spoil = HOSTILE[case]
    sent = compress(drawn(301), compression=compression, coins=coins())
    decompress(sent, compression=compression, count=301, coins=coins())
    spoil(sent)
    with pytest.raises(ConfigurationError, match="compressed update"):
        decompress(sent, compression=compression, count=301, coins=coins())


def test_random_bytes_are_refused_or_read_as_numbers() -> None:
    """Whatever bytes fill arrays of the agreed shapes, what comes out is finite or an error."""
    draw = np.random.default_rng(4)
    refused = 0
    for compression in ALL * 20:
        sent = {
            name: np.frombuffer(draw.bytes(kind.itemsize * shape[0]), dtype=kind)
            for name, (kind, shape) in expected_arrays(compression, count=97).items()
        }
        try:
            found = decompress(sent, compression=compression, count=97, coins=coins())
        except ConfigurationError:
            refused += 1
        else:
            assert np.isfinite(found).all()
    assert 0 < refused < len(ALL) * 20
