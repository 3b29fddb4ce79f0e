"""What the test suites of seven other accountants expect, asked of this one.

`peer_prices.json` holds their settings and values, each with its source and with how it relates to
the exact price. Every relation has one check below: what is exact is met and never undercut, an
estimate is met within what it is worth, a bound is not exceeded, and what cannot be asked is
refused by name. A `note` says where a setting had to be read: their δ = 0, for one, is asked at
1e-300.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dpacc_accounting import (
    Adjacency,
    Event,
    Gaussian,
    attack_advantage,
    calibrate_event,
    calibrate_noise_to_advantage,
    calibrate_noise_to_detection,
    calibrate_steps,
    delta,
    epsilon,
    event_from_json,
    from_dp_event,
    group_epsilon,
    true_positive_rate,
)
from dpacc_accounting.pld.composed_loss import Bounds, ComposedLoss
from dpacc_accounting.pld.event_losses import directed_branches
from dpacc_accounting.renyi.divergence import event_divergences

FILE = json.loads((Path(__file__).parents[1] / "peer_prices.json").read_text())
VALUES: list[dict[str, Any]] = FILE["values"]
COUNTS = {
    "exact": 348,
    "loose": 4,
    "one-direction": 106,
    "peer-renyi": 44,
    "peer-fourier": 36,
    "peer-prv": 33,
    "upper-bound": 27,
    "negative-epsilon": 25,
    "round-trip": 10,
    "equal-event": 6,
    "runs": 6,
    "peer-pld": 5,
    "peer-below": 3,
    "refused": 4,
    "range": 2,
    "tighter-event": 1,
}
# A grid is fitted so that it raises ε by a ten-thousandth.
GRID = 1.5e-4
# What the grid of a single release adds to δ.
ONE_RELEASE = 1e-3
# What fixed grids of the peers are worth.
FIXED_GRID = 1e-4
# prv-accountant's own bound on its error of ε.
PRV_ERROR = 0.01


def document(part: Any, scale: float) -> Any:
    """An event's document with a number for the scale that is solved for."""
    if isinstance(part, dict):
        return {key: document(value, scale) for key, value in part.items()}
    if isinstance(part, list):
        return [document(value, scale) for value in part]
    if part == "1/sigma":
        return 1 / scale
    if isinstance(part, str) and part.startswith("sigma"):
        return scale / float(part.partition("/")[2] or 1)
    return part


def event_of(value: dict[str, Any], scale: float = 1.0) -> Event:
    return event_from_json(document=document(value["event"], scale))


def adjacency_of(value: dict[str, Any]) -> Adjacency:
    return Adjacency(value.get("adjacency", "add-or-remove"))


def interval(value: dict[str, Any], event: Event) -> tuple[float, float]:
    """ε at the δ that is given, from below and from above."""
    price = epsilon(event=event, delta=value["given"], adjacency=adjacency_of(value))
    return (0.0 if price.epsilon == math.inf else price.epsilon - price.slack), price.epsilon


def divergence(event: Event, adjacency: Adjacency, order: float) -> float:
    found = event_divergences(event=event, adjacency=adjacency, orders=np.array([float(order)]))
    return float(found[0])


def answer(value: dict[str, Any]) -> float:
    """Ours."""
    where, given = adjacency_of(value), value["given"]
    match value["ask"]:
        case "delta":
            return delta(event=event_of(value), epsilon=given, adjacency=where).delta
        case "epsilon":
            return interval(value, event_of(value))[1]
        case "epsilon-rdp":
            event = event_of(value)
            return epsilon(event=event, delta=given, adjacency=where, method="rdp").epsilon
        case "rdp" | "rdp-selected":
            return divergence(event_of(value), where, given)
        case "tpr":
            return true_positive_rate(event=event_of(value), false_positives=given, adjacency=where)
        case "advantage":
            return attack_advantage(event=event_of(value), adjacency=where)
        case "sigma":
            return scale_of(value)
        case "decay":
            return 1 / scale_of(value)
        case "steps":
            sample = value["event"]["of"]
            most = calibrate_steps(
                dataset_size=1000,
                batch_size=round(1000 * sample["probability"]),
                noise_multiplier=sample["of"]["noise_multiplier"],
                epsilon=given[0],
                delta=given[1],
            )
            return most.steps
        case "user-epsilon":
            size, lost = given
            return group_epsilon(
                event=event_of(value), size=size, delta=lost, adjacency=where
            ).epsilon
    raise AssertionError(value["ask"])


def scale_of(value: dict[str, Any]) -> float:
    """The least noise for the (ε, δ) that is given."""
    target, lost = value["given"]
    return calibrate_event(
        event=lambda scale: event_of(value, scale),
        epsilon=target,
        delta=lost,
        adjacency=adjacency_of(value),
    ).scale


def directed(event: Event, adjacency: Adjacency, direction: str, at: float) -> Bounds:
    """δ at one ε for a unit that is removed, or added, alone."""
    branches = directed_branches(event=event, adjacency=adjacency)
    branch = branches[-1 if direction == "added" else 0]
    if not branch.laws:
        return Bounds(0.0, 0.0)
    return ComposedLoss(branch.laws, branch.times).delta_bounds(epsilon=at)[0]


def exact(value: dict[str, Any]) -> None:
    """Never below, by more than the digits they print, and above by the grid at most."""
    expected, found = float(value["value"]), answer(value)
    if expected == math.inf:
        assert found == expected
        return
    assert found >= expected - value["within"]
    slack = 0.0 if value["ask"] == "rdp" else GRID * abs(expected)
    assert found <= expected + value["within"] + slack
    if value["ask"] == "epsilon":
        assert interval(value, event_of(value))[0] <= expected + value["within"]


def loose(value: dict[str, Any]) -> None:
    """Exact, and not met: what is claimed lies above the truth, by at most two hundredths of it."""
    assert value["value"] <= answer(value) <= 1.02 * value["value"]


def one_direction(value: dict[str, Any]) -> None:
    """Met in that direction, by a grid of one release, and not undercut by the worse of both."""
    expected, within = value["value"], value["within"]
    if value["ask"] == "sigma" and "discrete-gaussian" in json.dumps(value["event"]):
        # What they call a direction is the worse one in each of these.
        assert expected - within <= scale_of(value) <= expected + within
        return
    if value["ask"] == "sigma":
        target, lost = value["given"]
        less, more = (
            directed(event_of(value, scale), adjacency_of(value), value["direction"], target)
            for scale in (expected - within, expected + within)
        )
        assert more.low <= lost <= less.high
        assert scale_of(value) >= expected - within
        return
    bounds = directed(event_of(value), adjacency_of(value), value["direction"], value["given"])
    assert bounds.low - within <= expected <= bounds.high + within
    assert bounds.high <= expected + ONE_RELEASE
    assert answer(value) >= expected - within


def negative_epsilon(value: dict[str, Any]) -> None:
    """Refused by name; what it stands for, `1 − e^ε + e^ε·δ(−ε)` the other way round, is met."""
    event, where, at = event_of(value), adjacency_of(value), value["given"]
    with pytest.raises(ValueError, match="epsilon="):
        delta(event=event, epsilon=at, adjacency=where)
    other = "removed" if value.get("direction") == "added" else "added"
    bounds = directed(event, where, other, -at)
    low, high = (-math.expm1(at) + math.exp(at) * bound for bound in (bounds.low, bounds.high))
    assert low - value["within"] <= value["value"] <= high + value["within"]
    assert high <= value["value"] * (1 + GRID) + value["within"]


def peer_renyi(value: dict[str, Any]) -> None:
    """No more than their bound by Rényi divergence, and no less than what is certain."""
    found, event, where = answer(value), event_of(value), adjacency_of(value)
    # Both search orders numerically, and stop where a millionth is left.
    assert found <= value["value"] * (1 + 1e-6) + value["within"]
    if value["ask"] == "epsilon-rdp":
        assert found >= interval(value, event)[0]
    elif value["ask"] == "rdp-selected":
        assert found >= blind(event, where, value["given"])
    else:
        assert found >= 0.9 * value["value"]


def blind(event: Any, adjacency: Adjacency, order: float) -> float:
    """What a search costs that takes one of its runs without looking, if there is any."""
    once = divergence(event.event, adjacency, order)
    some = -math.expm1(-event.mean_runs) if math.isinf(event.shape) else 1.0
    moment = math.log(some) + (order - 1) * once
    none = math.log1p(-some) if some < 1 else -math.inf
    return float(np.logaddexp(moment, none)) / (order - 1) * (1 - 1e-9) - 1e-12


def peer_fourier(value: dict[str, Any]) -> None:
    """Their estimate, on a fixed grid, lies in our interval, which is narrow."""
    expected, event = value["value"], event_of(value)
    assert answer(value) >= expected * (1 - FIXED_GRID) - value["within"]
    assert answer(value) <= expected * (1 + 20 * FIXED_GRID)
    if value["ask"] == "epsilon":
        assert interval(value, event)[0] <= expected * (1 + FIXED_GRID)
    else:
        low = directed(event, adjacency_of(value), "removed", value["given"]).low
        assert low <= expected * (1 + FIXED_GRID) + value["within"]


def peer_prv(value: dict[str, Any]) -> None:
    """The upper end of their interval, 0.02 wide, which meets ours."""
    expected = value["value"]
    if value["ask"] == "sigma":
        assert expected - value["within"] <= answer(value) <= expected + value["within"]
        return
    low, high = interval(value, event_of(value))
    assert low <= expected
    assert expected - 2 * PRV_ERROR <= high <= expected * (1 + GRID)


def peer_pld(value: dict[str, Any]) -> None:
    """Their discretised loss, rounded up on a fixed grid, agrees to a thousandth."""
    low, high = interval(value, event_of(value))
    assert low <= value["value"] + value["within"]
    assert high == pytest.approx(value["value"], rel=1e-3)


def peer_below(value: dict[str, Any]) -> None:
    """They state less than is certain: a central limit, or a window that losses run around."""
    if value["ask"] == "sigma":
        target, lost = value["given"]
        event = event_of(value, value["value"])
        price = epsilon(event=event, delta=lost, adjacency=adjacency_of(value))
        assert price.epsilon - price.slack > target
        assert scale_of(value) > value["value"] + value["within"]
        return
    most = max(np.atleast_1d(value["value"]))
    assert interval(value, event_of(value))[0] > most


def upper_bound(value: dict[str, Any]) -> None:
    """Their bound is not exceeded."""
    assert 0 < answer(value) <= float(value["value"]) + value["within"]


def equal_event(value: dict[str, Any]) -> None:
    """Two descriptions of one release have one price."""
    assert answer(value) == pytest.approx(other_price(value), rel=value["within"])


def tighter_event(value: dict[str, Any]) -> None:
    """Theirs has the price of the other event; ours, of the same release, is less."""
    assert answer(value) < other_price(value)


def other_price(value: dict[str, Any]) -> float:
    other = value["value"]
    event = event_from_json(document=other["same_as"])
    price = epsilon(event=event, delta=value["given"], adjacency=Adjacency(other["adjacency"]))
    return price.epsilon


def round_trip(value: dict[str, Any]) -> None:
    """The noise that is found has the price that was asked for, and hardly less."""
    if value["ask"] == "sigma":
        scale, (target, lost) = scale_of(value), value["given"]
        event, where = event_of(value, scale), adjacency_of(value)
        found = epsilon(event=event, delta=lost, adjacency=where).epsilon
        assert target - value["within"] * 2 <= found <= target
        return
    repeated = value["event"]
    sample = repeated["of"]
    size = {"dataset_size": 10_000, "steps": repeated["times"]}
    batch = round(10_000 * sample.get("probability", 1))
    if value["ask"] == "sigma-advantage":
        found = calibrate_noise_to_advantage(**size, batch_size=batch, advantage=value["given"])
        assert 0.998 * value["value"] <= found.guarantee.delta <= value["value"]
        return
    caught, false = value["given"]
    noise = calibrate_noise_to_detection(
        **size, batch_size=batch, true_positives=caught, false_positives=false
    ).noise_multiplier
    reached = true_positive_rate(event=event_of(value, noise), false_positives=false)
    assert 1 - value["value"] - value["within"] <= reached <= caught


def within_range(value: dict[str, Any]) -> None:
    """Between the two ends that they allow."""
    low, high = value["value"]
    assert low < answer(value) <= high


def runs(value: dict[str, Any]) -> None:
    """They state no value: ours is finite, and of a search no less than of a run chosen blindly."""
    found = answer(value)
    assert 0 < found < math.inf
    if value["event"]["event"] == "selected":
        some = -math.expm1(-value["event"]["mean_runs"])
        once = Gaussian(noise_multiplier=value["event"]["of"]["noise_multiplier"])
        assert found >= epsilon(event=once, delta=value["given"] / some).epsilon * (1 - 1e-9)


def refused(value: dict[str, Any]) -> None:
    """Not priced here, for a reason that the error names."""
    if value.get("event", {}).get("event") == "laplace":
        with pytest.raises(ValueError, match=r"noise_multiplier=0.0 is not a finite number above"):
            event_of(value)
    elif "event" in value:
        with pytest.raises(ValueError, match="an answer shows that its unit is there"):
            answer(value)
    else:
        kind = getattr(dp_accounting, value["note"])
        theirs = kind(1000, 16, dp_accounting.GaussianDpEvent(1.0))
        with pytest.raises(ValueError, match="a unit may be drawn several times"):
            from_dp_event(event=theirs)


CHECKS = {
    "exact": exact,
    "loose": loose,
    "one-direction": one_direction,
    "negative-epsilon": negative_epsilon,
    "peer-renyi": peer_renyi,
    "peer-fourier": peer_fourier,
    "peer-prv": peer_prv,
    "peer-pld": peer_pld,
    "peer-below": peer_below,
    "upper-bound": upper_bound,
    "equal-event": equal_event,
    "tighter-event": tighter_event,
    "round-trip": round_trip,
    "range": within_range,
    "runs": runs,
    "refused": refused,
}


def test_every_value_has_a_source_and_a_check() -> None:
    """660 values, counted by relation, each from a named revision of a named test."""
    assert Counter(value["relation"] for value in VALUES) == COUNTS
    assert sum(COUNTS.values()) == 660
    assert CHECKS.keys() == COUNTS.keys()
    assert {value["source"] for value in VALUES} == FILE["sources"].keys()
    assert all(
        "@" in source and value["test"]
        for source in FILE["sources"].values()
        for value in VALUES[:1]
    )
    owners = {source.partition("/")[0] for source in FILE["sources"].values()}
    assert len(owners) == 8


@pytest.mark.parametrize(
    "value", VALUES, ids=lambda v: f"{v['relation']}-{v['ask']}-{v['source']}-{v['test'][:40]}"
)
def test_it_relates_as_stated(value: dict[str, Any]) -> None:
    """See the check of its relation."""
    CHECKS[value["relation"]](value)
