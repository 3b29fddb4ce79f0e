"""Where docs/frontier.md tells of Opacus and Opake on chats at small ε, it says what runs say."""

from __future__ import annotations

from typing import Any

import pytest

from tests.frontier_page import PAGE, RESULTS, kept_in, lead

USUAL = {"tool", "epsilon", "batch", "steps", "learning_rate", "average"}


def told_of(opening: str) -> str:
    """The point of the page that begins so."""
    return " ".join(PAGE.split()).split(f"- **{opening}")[1].split("- **")[0]


def runs_at(epsilon: float) -> list[dict[str, Any]]:
    """All kept runs of chats."""
    kept = kept_in(RESULTS)
    return [r for r in kept if r["task"] == "chats-2048" and r["run"]["epsilon"] == epsilon]


def ours(runs: list[dict[str, Any]]) -> list[Any]:
    """What dpacc's independent noise, and its bands, have of held-out texts."""
    found = []
    for rate, names in ((0.01, USUAL), (0.1, USUAL | {"plan"})):
        asked = [each for each in runs if {*each["run"]} == names and each["run"]["batch"] == 128]
        (one,) = (r["held_out"] for r in asked if r["run"]["learning_rate"] == rate)
        found.append(one)
    return found


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_what_is_told_of_opacus_at_small_epsilons_is_of_kept_results(epsilon: float) -> None:
    """Perplexities held out, and how far independent noise and bands are from them."""
    told, runs = told_of("Opacus at ε = 1 is level"), runs_at(epsilon)
    rates = {r["run"]["learning_rate"]: r for r in runs if r["run"]["tool"] == "Opacus"}
    opacus = rates[0.003]["held_out"]
    assert f"{opacus['perplexity']:.2f}" in told
    for one in ours(runs):
        gain, error = lead([opacus], [one])
        assert f"{abs(gain):.1f} ± {error:.1f}%" in told


@pytest.mark.parametrize("epsilon", [1.0, 3.0])
def test_what_is_told_of_opake_at_small_epsilons_is_of_kept_results(epsilon: float) -> None:
    """Perplexities held out, and by how much dpacc's bands and independent noise lead."""
    told, runs = told_of("Opake at ε = 1 and 3**"), runs_at(epsilon)
    theirs = {"plan" in r["run"]: r["held_out"] for r in runs if r["run"]["tool"] == "Opake"}
    alone, bands = ours(runs)
    for has_bands, one in ((False, alone), (False, bands), (True, bands)):
        assert f"{theirs[has_bands]['perplexity']:.2f}" in told
        gain, error = lead([theirs[has_bands]], [one])
        assert f"{gain:.1f} ± {error:.1f}%" in told
