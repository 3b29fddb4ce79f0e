"""Where docs/frontier.md tells of other bases, it says what its kept results say."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dpacc.recipe.optimizers import rate_under_noise
from tests.frontier_page import ROOT, kept_in, lead, section_of

BASES = ROOT / "benchmarks/results/other_bases.jsonl"
NAMES = {"gemma-3-270m": "Gemma 3", "qwen2.5-coder-0.5b-instruct": "Qwen2.5-Coder"}
HEADING = "## Other bases"


def noise_of(run: dict[str, Any]) -> str:
    """How a row names it, less its number of bands."""
    if run["epsilon"] is None:
        return "none"
    return "bands" if "plan" in run else "independent"


def base_of(kept: dict[str, Any]) -> str:
    """How a row names the base."""
    return NAMES[kept["task"].removeprefix("chats-2048-")]


def test_every_row_of_other_bases_is_a_kept_result() -> None:
    """Base, ε, noise, rate, σ, perplexities and loss are those of one run; none is left out."""
    kept = kept_in(BASES)
    rows = re.findall(
        r"^\| (\w.*?) \| ([18∞]) \|" + r" (.+?) \|" * 6 + "$", section_of(HEADING), re.M
    )
    found = set()
    for each in kept:
        run, held = each["run"], each["held_out"]
        figures = (each["validation"]["perplexity"], held["perplexity"])
        found.add(
            (
                base_of(each),
                f"{run['epsilon']:g}" if run["epsilon"] else "∞",
                noise_of(run),
                f"{run['learning_rate']:g}",
                f"{each['noise_multiplier']:.3f}",
                *(f"{one:.2f}" for one in figures),
                f"{held['loss']:.3f}",
            )
        )
    told = [(*row[:2], re.sub(r"^\d+ (?=bands)", "", row[2]), *row[3:]) for row in rows]
    assert {*told} == found
    assert len(told) == len(kept)
    assert {each["layers"] for each in kept} == {6}


def best_of(base: str) -> dict[tuple[float | None, str], dict[str, Any]]:
    """Of each ε and noise the run with the best validation perplexity."""
    best: dict[tuple[float | None, str], dict[str, Any]] = {}
    for each in kept_in(BASES):
        cell = each["run"]["epsilon"], noise_of(each["run"])
        if base_of(each) == base:
            usual = best.get(cell, each)
            best[cell] = min(usual, each, key=lambda one: one["validation"]["perplexity"])
    return best


@pytest.mark.parametrize(
    ("base", "epsilon"), [(base, epsilon) for base in NAMES.values() for epsilon in (8.0, 1.0)]
)
def test_what_bands_win_on_other_bases_is_what_runs_say(base: str, epsilon: float) -> None:
    """Over the best run of independent noise, and as a share of the gap to no noise."""
    best = best_of(base)
    usual, bands = (best[epsilon, noise]["held_out"] for noise in ("independent", "bands"))
    none = best[None, "none"]["held_out"]
    gain, error = lead([usual], [bands])
    share = (usual["loss"] - bands["loss"]) / (usual["loss"] - none["loss"])
    told = " ".join(section_of(HEADING).split())
    assert f"{gain:.1f} ± {error:.1f} " in told
    assert f"{share:.0%} " in told
    assert f"{share:.0%} on {base}" in section_of("## What is reached")


@pytest.mark.parametrize(("base", "untrained"), [("Gemma 3", 33.17), ("Qwen2.5-Coder", 80.10)])
def test_at_the_best_rate_of_the_smaller_base_these_are_worse_than_untrained(
    base: str, untrained: float
) -> None:
    """Independent noise at ε = 8 at 1e-2, and at three tenths of it far better."""
    told = " ".join(section_of(HEADING).split())
    assert f"{untrained:.2f}" in told
    runs = {
        each["run"]["learning_rate"]: each["held_out"]["perplexity"]
        for each in kept_in(BASES)
        if base_of(each) == base
        if (each["run"]["epsilon"], noise_of(each["run"])) == (8.0, "independent")
    }
    assert runs[0.003] < untrained < runs[0.01]


def test_what_bands_win_at_the_rates_that_recipes_take_is_what_runs_say() -> None:
    """On Gemma, near the rate without correlation and what is made of it; and beside the best."""
    runs = {
        (noise_of(each["run"]), each["run"]["epsilon"], each["run"]["learning_rate"]): each
        for each in kept_in(BASES)
        if base_of(each) == "Gemma 3"
    }
    less = []
    for rate in (0.0045, 0.002):
        for epsilon in (8.0, 1.0):
            usual, bands = (
                runs[noise, epsilon, at]["held_out"]["perplexity"]
                for noise, at in (("independent", rate), ("bands", 0.03))
            )
            less.append(f"{100 * (1 - bands / usual):.1f}")
    taken = rate_under_noise(trained=6 * 105_472, steps=48, gain=0.96)
    told = " ".join(section_of("## What is reached").split())
    assert f"without correlation is {taken:.1e} now".replace("e-0", "e-") in told
    assert f"have {less[0]} and {less[1]}% less perplexity" in told
    assert f"{less[2]} and {less[3]}% less than it has at its best" in told
    assert {best_of("Gemma 3")[e, "independent"]["run"]["learning_rate"] for e in (8.0, 1.0)} == {
        0.002
    }
