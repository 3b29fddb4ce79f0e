"""Where docs/frontier.md tells of Opacus and Opake on chats at small ε, it says what runs say."""

from __future__ import annotations

from tests.frontier_page import PAGE, RESULTS, kept_in, lead


def test_what_is_told_of_opacus_at_small_epsilons_is_of_kept_results() -> None:
    """Perplexities held out, and how far independent noise and bands are from them."""
    kept = [each for each in kept_in(RESULTS) if each["task"] == "chats-2048"]
    usual = {"tool", "epsilon", "batch", "steps", "learning_rate", "average"}
    told = " ".join(PAGE.split()).split("**Opacus at ε = 1 is level")[1].split("- **")[0]
    for epsilon in (1.0, 3.0):
        runs = [each for each in kept if each["run"]["epsilon"] == epsilon]
        found = {
            each["run"]["learning_rate"]: each for each in runs if "average" not in each["run"]
        }
        opacus = found[0.003]["held_out"]
        assert f"{opacus['perplexity']:.2f}" in told
        for rate, names in ((0.01, usual), (0.1, usual | {"plan"})):
            (ours,) = (
                each["held_out"]
                for each in runs
                if {*each["run"]} == names and each["run"]["learning_rate"] == rate
                if each["run"]["batch"] == 128
            )
            gain, error = lead([opacus], [ours])
            assert f"{abs(gain):.1f} ± {error:.1f}%" in told


def test_what_is_told_of_opake_at_small_epsilons_is_of_kept_results() -> None:
    """Perplexities held out, and by how much dpacc's bands and independent noise lead."""
    kept = [each for each in kept_in(RESULTS) if each["task"] == "chats-2048"]
    usual = {"tool", "epsilon", "batch", "steps", "learning_rate", "average"}
    told = " ".join(PAGE.split()).split("**Opake at ε = 1 and 3**")[1].split("- **")[0]
    for epsilon in (1.0, 3.0):
        runs = [each for each in kept if each["run"]["epsilon"] == epsilon]
        theirs = {"plan" in r["run"]: r["held_out"] for r in runs if r["run"]["tool"] == "Opake"}
        alone, bands = (
            next(
                each["held_out"]
                for each in runs
                if {*each["run"]} == names
                if (each["run"]["learning_rate"], each["run"]["batch"]) == (rate, 128)
            )
            for rate, names in ((0.01, usual), (0.1, usual | {"plan"}))
        )
        for opake, ours in ((False, alone), (False, bands), (True, bands)):
            assert f"{theirs[opake]['perplexity']:.2f}" in told
            gain, error = lead([theirs[opake]], [ours])
            assert f"{gain:.1f} ± {error:.1f}%" in told
