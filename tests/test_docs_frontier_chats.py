"""Where docs/frontier.md tells of chats, it says what its kept results and closed forms say."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import (
    calibrate_allocated_noise,
    calibrate_banded_noise,
    calibrate_noise,
)
from dpacc_accounting.factorization.banded import inverse_series
from dpacc_accounting.factorization.workload import Workload

from tests.frontier_page import GEOMETRY, PAGE, RESULTS, ROOT, kept_in, lead, section_of

SUBSPACE = ROOT / "benchmarks/results/subspace.jsonl"
DYNAMIC_RANK = ROOT / "benchmarks/results/dynamic_rank.jsonl"
ONE_FACTOR = ROOT / "benchmarks/results/one_factor.jsonl"
WHAT_A_IS = {
    None: "learns, too",
    4: "learns, a quarter as fast",
    "ffa": "as drawn",
    "inputs whitened": "inputs white",
    "main inputs": "main directions",
}
"""What A is, by a run's `geometry`, `method` or `lift`."""

COMMON = ("learning_rate", "average", "noise_share", "max_grad_norm")
"""Settings of runs that differ in their noise alone."""

NAMES = {
    "public diagonal": "a public diagonal",
    "outputs whitened": "whitened outputs",
    "tangent of the spectrum": "the tangent space",
    "kalman": "a Kalman filter",
}


def test_every_row_of_chats_is_a_kept_result() -> None:
    """ε, what was changed, rate, noise and both figures are those of one run; none is left out."""
    kept = kept_in(RESULTS)
    found = {
        (
            f"{each['run']['epsilon'] or math.inf:g}".replace("inf", "∞"),
            changed(each),
            f"{each['run']['learning_rate']:g}",
            f"{each['noise_multiplier']:.3f}",
            f"{each['validation']['perplexity']:.2f}",
            f"{each['validation']['loss']:.3f}",
        )
        for each in kept
        if each["task"] == "chats-2048"
    }
    rows = rows_of("## What limits, so far")
    assert {(e, re.sub(r" \d+ bands", " bands", told), *more) for e, told, *more in rows} == found
    assert len(rows) == len(found) >= 2


def test_the_bands_of_a_row_are_those_that_its_noise_is_the_price_of() -> None:
    """b bands cost what ⌈T/b⌉ steps of bB do, so that another number would have another σ."""
    named = {
        (float(epsilon), int(bands[1]), int(steps[1]) if steps else 48, sigma)
        for epsilon, told, _, sigma, *_ in rows_of("## What limits, so far")
        if (bands := re.search(r" (\d+) bands", told))
        for steps in [re.search(r"(\d+) steps of", told)]
    }
    assert len(named) >= 3
    for epsilon, bands, steps, sigma in named:
        price = calibrate_noise(
            dataset_size=2048,
            batch_size=3 * 2048 // steps * bands,
            steps=math.ceil(steps / bands),
            epsilon=epsilon,
            delta=2048**-1.1,
        )
        assert price.noise_multiplier == pytest.approx(float(sigma), abs=6e-4)


def test_what_correlation_leaves_is_what_the_closed_form_says() -> None:
    """How much of independent noise the bands of the rows leave at each ε, and by how much they
    raise the rate."""
    told = " ".join(PAGE.split()).split("**At ε = 1 correlation cannot do it**")[1]
    raised = []
    asked = {1.0: (4, "0.94"), 3.0: (16, "0.69"), 8.0: (16, "0.47")}
    for epsilon, (bands, left) in asked.items():
        found = calibrate_banded_noise(
            dataset_size=2048,
            batch_size=128,
            steps=48,
            epsilon=epsilon,
            delta=2048**-1.1,
            bands=bands,
            workload=Workload.constant(steps=48, momentum=0.9, averaged=0.5),
        )
        assert f"{found.error:.2f}" == left
        column = np.zeros(48)
        column[:bands] = found.coefficients
        grown = math.sqrt(np.square(inverse_series(column)).cumsum().mean())
        more = found.calibration.noise_multiplier / found.independent_noise
        raised.append(f"{more * grown:.1f}")
    assert f"at three passes of chats {raised[0]}, {raised[1]} and {raised[2]} times" in told
    assert "4 bands, leaves 0.94 of" in told
    assert "16 bands leave 0.69 at ε = 3 and 0.47 at ε = 8" in told


def test_what_a_fifth_takes_is_read_off_kept_results() -> None:
    """On the line between ε = 3 and ε = 1, and what allocation and more data leave there."""
    kept = kept_in(RESULTS)
    losses = {
        each["noise_multiplier"]: each["held_out"]["loss"]
        for each in kept
        if each["task"] == "chats-2048" and each["run"]["tool"] == "dpacc"
        if {*each["run"]} <= {"tool", "epsilon", "batch", "steps", *COMMON}
        if each["run"]["learning_rate"] == (0.01 if each["run"]["epsilon"] else 0.003)
    }
    none, *four = (losses[sigma] for sigma in sorted(losses))
    told = " ".join(PAGE.split()).split("**A fifth at ε = 1 takes two thirds of the noise.**")[1]
    *most, last = (f"{loss:.3f}" for loss in four)
    assert f"the held-out loss is {', '.join(most)} and {last}:" in told
    (less, more), fifth = sorted(losses)[-2:], 0.2 * (four[-1] - none)
    slope = (four[-1] - four[-2]) / (more - less)
    assert f"{1 - fifth / slope / more:.2f}" == "0.67"
    shared: Any = {"dataset_size": 2048, "batch_size": 512, "epsilon": 1.0, "delta": 2048**-1.1}
    allocated = calibrate_allocated_noise(**shared, epochs=3).noise_multiplier
    left = allocated / more / math.sqrt(512 / 128)
    assert f"{left:.2f}" == "0.83"
    assert f"{slope * more * (1 - left) / (four[-1] - none):.0%}" == "11%"
    assert f"{slope * more * (1 - 0.74) / (four[-1] - none):.0%}" == "16%"
    assert "0.74 on that line would win 16%" in " ".join(PAGE.split())
    larger = calibrate_banded_noise(
        dataset_size=16_384,
        batch_size=128,
        steps=384,
        epsilon=1.0,
        delta=16_384**-1.1,
        bands=16,
        workload=Workload.constant(steps=384, momentum=0.9, averaged=0.5),
    )
    assert f"{larger.error:.2f}" == "0.70"


def test_the_shares_of_the_gap_are_those_of_kept_results() -> None:
    """Of the held-out loss between independent noise and none, how much bands win at each ε."""
    kept = kept_in(RESULTS)
    losses: dict[tuple[Any, ...], dict[int, float]] = {}
    for each in kept:
        run = each["run"]
        if each["task"] == "chats-2048" and run["tool"] == "dpacc" and "noise_share" not in run:
            key = run["epsilon"], changed(each).split(", seed")[0], run["learning_rate"]
            losses.setdefault(key, {})[run.get("seed", 0)] = each["held_out"]["loss"]
    none = losses[None, "no noise, no clipping", 0.003][0]

    def shares(epsilon: float, row: tuple[str, float]) -> np.ndarray:
        alone, ours = losses[epsilon, "nothing", 0.01], losses[epsilon, *row]
        return np.array([100 * (alone[at] - ours[at]) / (alone[at] - none) for at in ours])

    adamw, sgd = "banded noise, bands", "banded noise, bands, SGD with momentum 0.9"
    told = [round(float(share)) for share in shares(8.0, (sgd, 0.6))]
    assert told == [39, 43]
    assert round(shares(8.0, (adamw, 0.1)).mean()) == 31
    both = ([*losses[8.0, *row].values()] for row in (("nothing", 0.01), (adamw, 0.1)))
    alone, ours = (np.array(each) for each in both)
    error = math.hypot(alone.std(ddof=1), ours.std(ddof=1)) / math.sqrt(3)
    assert round(100 * error / (alone.mean() - none)) == 2
    assert round(float(shares(1.0, (sgd, 0.1))[0])) == 10
    assert round(float(shares(3.0, (adamw, 0.1))[0])) == 12
    section = PAGE.split("## What is reached")[1]
    assert "| 31 ± 2% in AdamW, three seeds; 39% and 43% in SGD, two seeds |" in section
    assert "| ε = 1: a fifth of that gap | 10%, one seed |" in section
    assert "That is 12% of the gap" in PAGE
    bands, usual = (
        next(
            each["held_out"]
            for each in kept
            if (run := each["run"])["learning_rate"] == rate and "chats" in each["task"]
        )
        for rate in (0.0335, 0.005)
    )
    more, (ahead, error) = bands["loss"] - ours.mean(), lead([bands], [usual])
    section = " ".join(section.split())
    assert f"have {bands['perplexity']:.2f} held out: {math.exp(more) - 1:.0%} more than" in section
    assert f"and {ahead:.1f} ± {error:.1f}% more than independent" in section
    assert f"which has {usual['perplexity']:.2f}" in section


def rows_of(heading: str) -> list[tuple[str, ...]]:
    """The six columns of the table of a section whose runs are one a row."""
    section = section_of(heading)
    row = r"^\| ([∞\d.]+) \| (.*?) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$"
    return re.findall(row, section, re.M)


def changed(kept: dict[str, Any]) -> str:
    """How a row names a run, less its number of bands."""
    run = kept["run"]
    plan = run.get("plan", {})
    cut = f"{run['steps']} steps of {run['batch']}"
    noise = "bands" if "bands" in plan else "independent noise"
    tools = {
        "Opacus": [f"Opacus 1.6, {cut}"],
        "Opake": [f"Opake 0.16, {noise}"],
        "dpacc": [
            "no noise, no clipping" if run["epsilon"] is None else "",
            "half the noise (an oracle, not private)" if "noise_share" in run else "",
            "C = 5" if run.get("max_grad_norm") == 5 else "",
            "`whitened`" if "method" in run else "",
            "banded noise, bands" if "correlation" in plan else "",
            "allocated" if "sampling" in plan else "",
            "SGD with momentum 0.9" if "momentum" in run else "",
            cut if run["batch"] != 128 else "",
            f"rank {run['rank']}, alpha {run['alpha']}" if "rank" in run else "",
            f"the top {kept['layers']} layers" if kept["layers"] != 6 else "",
        ],
    }
    told = [part for part in tools[run["tool"]] if part] or ["nothing"]
    return ", ".join([*told, *([f"seed {run['seed']}"] if "seed" in run else [])])


def test_every_row_of_what_was_tried_with_gradients_is_a_kept_result() -> None:
    """What was tried, rate and both perplexities are those of one run, and none is left out."""
    kept = kept_in(GEOMETRY)
    found = {
        (
            f"{each['run']['epsilon']:g}",
            tried(each["run"]),
            f"{each['run']['learning_rate']:g}",
            f"{each['validation']['perplexity']:.2f}",
            f"{each['held_out']['perplexity']:.2f}",
        )
        for each in kept
    }
    assert {each["layers"] for each in kept} == {3}
    assert {NAMES[each["run"]["geometry"]] for each in kept if "geometry" in each["run"]} == set(
        NAMES.values()
    )
    section = section_of("## What was tried with noised gradients")
    rows = re.findall(r"^\| (\d+) \| (.*) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.M)
    assert set(rows) == found
    assert len(rows) == len(kept) >= 10


def test_every_row_of_reviews_is_a_kept_result() -> None:
    """ε, noise, rate, σ, perplexities and loss are those of one run; none is left out; and what
    bands win is their share of the gap to no noise, with its error over blocks."""
    kept = [each for each in kept_in(RESULTS) if each["task"] == "reviews-2048"]
    section = section_of("## Reviews: ")
    rows = re.findall(
        r"^\| (\S) \| (.+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.M
    )
    found, runs = set(), {}
    for each in kept:
        run, held = each["run"], each["held_out"]
        epsilon = f"{run['epsilon'] or math.inf:g}".replace("inf", "∞")
        noise = "bands" if "plan" in run else "independent" if run["epsilon"] else "none"
        runs[epsilon, noise] = held
        figures = (each["validation"]["perplexity"], held["perplexity"])
        told = (f"{run['learning_rate']:g}", f"{each['noise_multiplier']:.3f}")
        found.add(
            (epsilon, noise, *told, *(f"{one:.2f}" for one in figures), f"{held['loss']:.3f}")
        )
    assert {(e, re.sub(r"\d+ bands", "bands", noise), *more) for e, noise, *more in rows} == found
    assert len(rows) == len(kept) == 7
    won, shares = [], []
    for epsilon in "831":
        usual, bands = runs[epsilon, "independent"], runs[epsilon, "bands"]
        gain, error = lead([usual], [bands])
        won.append(f"{gain:.1f} ± {error:.1f}")
        gap = usual["loss"] - runs["∞", "none"]["loss"]
        shares.append(f"{(usual['loss'] - bands['loss']) / gap:.0%}")
    told = " ".join(section.split())
    assert f"**Bands close {shares[0]} of the gap in loss** between" in told
    assert f"at ε = 8, {shares[1]} at ε = 3 and {shares[2]} at ε = 1" in told
    assert f"{won[0]}, {won[1]} and {won[2]} hundredths of loss a token" in told


def test_every_row_of_one_factor_is_a_kept_result() -> None:
    """What A is, rank, rate and both perplexities are those of one run; none is left out; and both
    factors, of the first table's run, are ahead of all."""
    kept = kept_in(ONE_FACTOR)
    both = {"tool": "dpacc", "epsilon": 1.0, "batch": 128, "steps": 48, "average": 0.5}
    ahead = [e for e in kept_in(RESULTS) if e["run"] == {**both, "learning_rate": 0.01}]
    (ahead,) = (each for each in ahead if each["task"] == "chats-2048" and each["layers"] == 6)
    changed = ("learning_rate", "method", "geometry", "rank", "alpha", "lift")
    found = set()
    for each in (ahead, *kept):
        run = each["run"]
        assert {name: run[name] for name in run if name not in changed} == both
        assert (each["task"], each["layers"]) == ("chats-2048", 6)
        a = WHAT_A_IS[run.get("geometry", run.get("method", run.get("lift")))]
        figures = (each[part]["perplexity"] for part in ("validation", "held_out"))
        told = f"{run['learning_rate']:g}", *(f"{figure:.2f}" for figure in figures)
        found.add((a, str(run.get("rank", 8)), *told))
    section = section_of("## What training B alone is worth")
    rows = re.findall(r"^\| (.+) \| (\d) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.M)
    assert set(rows) == found
    assert len(rows) == len(kept) + 1 >= 10
    gap = min(each["held_out"]["loss"] for each in kept) - ahead["held_out"]["loss"]
    assert f"by {gap:.3f} a token of loss, held out" in " ".join(section.split())


def test_every_row_of_the_subspace_is_a_kept_result() -> None:
    """Directions, first steps, rates and both perplexities are those of one run; none is left out;
    and plain LoRA, which is beside them, is ahead of each."""
    kept = kept_in(SUBSPACE)
    assert {(each["task"], each["layers"]) for each in kept} == {("chats-2048", 3)}
    found = {
        (
            str(each["run"]["plan"]["subspace"]["rank"]),
            str(each["run"]["plan"]["subspace"]["steps"]),
            f"{each['run']['learning_rate']:g}",
            f"{each['run']['plan']['subspace']['rate'] * each['run']['learning_rate']:g}",
            f"{each['validation']['perplexity']:.2f}",
            f"{each['held_out']['perplexity']:.2f}",
        )
        for each in kept
    }
    section = section_of("## What DP-SFT is worth")
    rows = re.findall(
        r"^\| k = (\d+) \| (\d+) \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", section, re.M
    )
    assert set(rows) == found
    assert len(rows) == len(kept) >= 2
    plain = kept_in(GEOMETRY)
    (alone,) = (
        each for each in plain if "plan" not in each["run"] and "geometry" not in each["run"]
    )
    told = (f"{alone['validation']['perplexity']:.2f}", f"{alone['held_out']['perplexity']:.2f}")
    assert (f"| plain LoRA | | 0.01 | | {told[0]} | {told[1]} |") in section
    assert alone["held_out"]["perplexity"] < min(e["held_out"]["perplexity"] for e in kept)


def test_every_row_of_changing_ranks_is_a_kept_result() -> None:
    """Each run at its own rank and at each that it was cut to; none is left out."""
    kept = kept_in(DYNAMIC_RANK)
    assert {(each["task"], each["layers"]) for each in kept} == {("chats-2048", 3)}
    assert {(each["run"]["epsilon"], each["run"]["learning_rate"]) for each in kept} == {(8, 0.01)}
    found = set()
    for each in kept:
        own = each["run"].get("rank", 8)
        name = "`dylora`" if each["run"].get("method") == "dylora" else "plain LoRA"
        for rank in (own, *each.get("cuts", [])):
            cut = "" if rank == own else f" at rank {rank}"
            figures = [each[part + cut]["perplexity"] for part in ("validation", "held_out")]
            found.add((name, str(own), str(rank), *(f"{figure:.2f}" for figure in figures)))
    section = section_of("## What DP-DyLoRA is worth")
    rows = re.findall(r"^\| (.+) \| (\d) \| (\d) \| (\S+) \| (\S+) \|$", section, re.M)
    assert set(rows) == found
    assert len(rows) >= 4


def tried(run: dict[str, Any]) -> str:
    """A run's row: what it changed, and where its noise or optimizer is not the usual one."""
    noise = [] if "plan" in run else ["independent noise"]
    optimizer = [] if "momentum" in run else ["AdamW"]
    return ", ".join([NAMES.get(run.get("geometry", ""), "nothing"), *noise, *optimizer])
