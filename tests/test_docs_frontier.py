"""Where docs/frontier.md compares tools by accuracy, it says what its kept results say."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpacc.recipe.optimizers import rate_under_noise
from tests.frontier_page import PAGE, RESULTS, ROOT, kept_in, lead, section_of

PARTS = ("held_out", "validation")
FIRST = ROOT / "benchmarks/results/emails_first.jsonl"
WHITENED = ROOT / "benchmarks/results/whitened_rates.jsonl"
AT_ITS_RATE = {
    "e-mails": ("emails-2048", 48),
    "sentences": ("sentences-4608", 108),
    "reviews": ("endings-4096", 96),
}
"""Rows of whitened adapters: the task as results name it, and T."""
COMPARED = {
    "sentences-4608": ("## Sentences: ", 3),
    "sentiment-2048": ("## Whole reviews: ", 3),
    "sentiment-4096": ("## Twice as many reviews: ", 3),
    "endings-4096": ("## More of each review, ", 3),
    "emails-2048": ("## E-mails: ", 9),
}
"""Tasks on which tools are compared: how each one's section begins, and how many seeds it has."""


def test_every_command_on_the_page_exists() -> None:
    """Each names a script, and a subcommand that the script defines."""
    commands = re.findall(r"python (\S+\.py)(?: --task \w+)?(?: ([a-z]+))?", PAGE)
    assert ("benchmarks/frontier.py", "limits") in commands
    for script, subcommand in commands:
        source = (ROOT / script).read_text(encoding="utf-8")
        assert not subcommand or f'.command("{subcommand}")' in source


@pytest.mark.parametrize("task", list(COMPARED))
def test_every_row_of_a_comparison_is_kept_results_of_all_seeds(task: str) -> None:
    """Rate, noise, accuracy over seeds, loss and lead are those of the results; the best rates are
    those of the validation texts."""
    cells = cells_of(RESULTS, task)
    heading, seeds = COMPARED[task]
    rows = re.findall(
        r"^\| (\d) \| (\w+).*? \| (\S+) \| (\S+) \| (\S+ ± \S+)% \| (\S+) \| (.*?) ?\|$",
        section_of(heading),
        re.M,
    )
    assert len(rows) == len(cells) == 6
    ours: dict[str, list[dict[str, Any]]] = {}
    for epsilon, tool, rate, sigma, accuracy, loss, ahead in rows:
        cell = cells[tool, float(epsilon)]
        found = cell[float(rate)]
        assert sorted(each["run"].get("seed", 0) for each in found) == list(range(seeds))
        best = max(runs[0]["validation"]["accuracy"] for runs in cell.values())
        assert found[0]["validation"]["accuracy"] == best
        assert f"{found[0]['noise_multiplier']:.3f}" == sigma
        held = held_out(found)
        told = np.array([100 * each["accuracy"] for each in held])
        assert f"{told.mean():.2f} ± {told.std(ddof=1):.2f}" == accuracy
        assert f"{np.mean([each['loss'] for each in held]):.3f}" == loss
        if tool == "dpacc":
            ours[epsilon] = held
            assert not ahead
        else:
            gain, error = lead(ours[epsilon], held)
            assert f"{gain:+.2f} ± {error:.2f}" == ahead


def test_leads_in_standard_errors_are_those_of_kept_results() -> None:
    """Over blocks of texts, and over the seeds of both, where the page counts them so."""
    emails = errors_ahead("emails-2048")
    told = " ".join(section_of("## E-mails: ").split())
    texts, seeds = ([f"{each:.1f}" for each in emails[by]] for by in ("texts", "seeds"))
    assert f"over Opacus by {texts[0]} at ε = 1 and {texts[1]} at ε = 8, over Opake" in told
    assert f"over Opake by {texts[2]} and {texts[3]}; counted by seeds alone they are" in told
    assert f"by seeds alone they are {', '.join(seeds[:3])} and {seeds[3]}." in told
    told = " ".join(section_of("## Sentences: ").split())
    seeds = [f"{each:.1f}" for each in errors_ahead("sentences-4608")["seeds"]]
    assert f"the leads over Opacus are {seeds[0]} and {seeds[1]} standard errors" in told
    assert f"and those over Opake {seeds[2]} and {seeds[3]}," in told
    told = " ".join(section_of("## Whole reviews: ").split())
    reviews = errors_ahead("sentiment-2048")
    assert f"{reviews['texts'][2]:.1f} over Opake at ε = 1, and counted by seeds alone" in told
    assert f"counted by seeds alone that is {reviews['seeds'][2]:.1f}." in told


def test_what_is_told_of_more_of_each_review_is_of_kept_results() -> None:
    """Leads in errors over texts and seeds, loss beside untrained, how many were looked at, and
    plain LoRA at the rate that a recipe takes."""
    told = " ".join(section_of("## More of each review").split())
    ahead = errors_ahead("endings-4096")
    texts, seeds = ([f"{each:.1f}" for each in ahead[by]] for by in ("texts", "seeds"))
    assert f"leads both**, by {texts[1]} and {texts[3]} errors" in told
    assert f"by seeds alone by {seeds[1]} and {seeds[3]};" in told
    assert f"leads Opake by {texts[2]} and {seeds[2]}, and is level with Opacus" in told
    assert ahead["texts"][0] < 1 < min(ahead["texts"][1:])
    cells = cells_of(RESULTS, "endings-4096")
    losses = {tool: held_out(best_of(cells[tool, 1.0]))[0]["loss"] for tool, _ in cells}
    assert min(losses, key=lambda tool: losses[tool]) == "dpacc"
    assert sorted(losses.values())[0] < 0.490 < sorted(losses.values())[1]
    every = [each for each in kept_in(RESULTS) if each["task"] == "endings-4096"]
    sizes = {tuple(sum(n for _, n in e[part]["blocks"]) for part in PARTS) for e in every}
    assert sizes == {(10_000, 2_000)}
    rate = round(rate_under_noise(trained=81_408, steps=96), 4)
    plain = [each for each in every if each["run"]["learning_rate"] == rate]
    found = []
    for epsilon in (1.0, 8.0):
        accuracies = [
            100 * each["held_out"]["accuracy"]
            for each in plain
            if each["run"]["epsilon"] == epsilon and "method" not in each["run"]
        ]
        assert len(accuracies) == 3
        found.append(f"{np.mean(accuracies):.1f} ± {np.std(accuracies, ddof=1):.1f}%")
    assert f"three seeds) finds {' and '.join(found)} at {rate}, which" in told


def test_whitened_runs_at_their_own_rate_are_beside_the_rivals_best() -> None:
    """Accuracy, loss and leads of every row; all leads are four errors or more over texts."""
    section = section_of("## Whitened at the rate that it takes")
    rows = re.findall(r"^\| ([a-z]\S+) \| (\d) \|" + r" (\S.*?) \|" * 5 + "$", section, re.M)
    assert len(rows) == 2 * len(AT_ITS_RATE)
    spread = []
    for name, epsilon, rate, accuracy, loss, *ahead in rows:
        task, steps = AT_ITS_RATE[name]
        taken = rate_under_noise(trained=39_936, steps=steps, method="whitened")
        assert f"{taken:.4f}" == rate
        run = {"epsilon": float(epsilon), "learning_rate": float(rate), "batch": 128}
        ours = [
            each["held_out"]
            for each in kept_in(WHITENED)
            if each["task"] == task and run.items() <= each["run"].items()
        ]
        told = np.array([100 * each["accuracy"] for each in ours])
        assert len(told) == 3
        assert f"{told.mean():.2f} ± {told.std(ddof=1):.2f}%" == accuracy
        assert f"{np.mean([each['loss'] for each in ours]):.3f}" == loss
        for tool, lead_told in zip(("Opacus", "Opake"), ahead, strict=True):
            theirs = held_out(best_of(cells_of(RESULTS, task)[tool, float(epsilon)]))
            gain, error = lead(ours, theirs)
            assert f"{gain:+.2f} ± {error:.2f}" == lead_told
            assert gain / error >= 4
            if (name, tool) == ("sentences", "Opake"):
                spread.append(f"{in_seeds(ours, theirs):.1f}")
            else:
                assert in_seeds(ours, theirs) >= 4
    assert f"whose runs spread: {' and '.join(spread)}." in " ".join(section.split())


def test_what_emails_gave_with_three_seeds_is_of_the_first_of_nine() -> None:
    """The leads before six more seeds were run."""
    cells = cells_of(RESULTS, "emails-2048")
    told = " ".join(section_of("## E-mails: ").split())
    for tool in ("Opacus", "Opake"):
        leads = [
            lead(*(held_out(best_of(cells[each, epsilon]))[:3] for each in ("dpacc", tool)))
            for epsilon in (1.0, 8.0)
        ]
        words = " and ".join(f"{gain:.1f} ± {error:.1f}" for gain, error in leads)
        assert f"{words}{' ahead' if tool == 'Opacus' else ''} of {tool}" in told


def test_what_emails_gave_at_first_is_of_kept_results() -> None:
    """With fewer texts: the leads at rates to 1e-2 and to 3e-2, each best on validation texts."""
    cells = cells_of(FIRST, "emails-2048")
    counted = [
        (sum(count for _, count in each[part]["blocks"]) for part in ("held_out", "validation"))
        for each in kept_in(FIRST)
    ]
    assert {tuple(counts) for counts in counted} == {(1000, 300)}
    (one, eight), (one_more, eight_more) = (
        [
            lead(*(held_out(best_of(cells[tool, epsilon], most)) for tool in ("dpacc", "Opacus")))
            for epsilon in (1.0, 8.0)
        ]
        for most in (1e-2, 3e-2)
    )
    told = " ".join(section_of("## E-mails: ").split())
    assert f"dpacc was {one[0]:.1f} ± {one[1]:.1f} points ahead of Opacus at ε = 1" in told
    assert f"and {-eight[0]:.1f} ± {eight[1]:.1f} behind at ε = 8, where its best rate was" in told
    assert best_of(cells["dpacc", 8.0], 1e-2)[0]["run"]["learning_rate"] == 1e-2
    assert f"with 3e-2 for both, {one_more[0]:.1f} ± {one_more[1]:.1f} and" in told
    assert f"and {eight_more[0]:.1f} ± {eight_more[1]:.1f} ahead." in told


def cells_of(results: Path, task: str) -> dict[tuple[str, float], dict[float, list[Any]]]:
    """A comparison's runs by tool and ε, then by rate; the first of a rate has seed 0."""
    cells: dict[tuple[str, float], dict[float, list[Any]]] = {}
    for each in kept_in(results):
        run = each["run"]
        plain = run["tool"] == "dpacc" and "method" not in run
        if each["task"] == task and not plain and run["epsilon"]:
            cell = cells.setdefault((run["tool"], run["epsilon"]), {})
            cell.setdefault(run["learning_rate"], []).append(each)
    return cells


def best_of(cell: dict[float, list[Any]], most: float = math.inf) -> list[Any]:
    """The runs at the rate, of those up to `most`, that validation texts choose."""
    tried = [runs for rate, runs in cell.items() if rate <= most]
    best: list[Any] = max(tried, key=lambda runs: runs[0]["validation"]["accuracy"])
    assert len(best) >= 3
    return best


def held_out(runs: list[Any]) -> list[dict[str, Any]]:
    """What they found of the held-out texts."""
    return [each["held_out"] for each in runs]


def errors_ahead(task: str) -> dict[str, list[float]]:
    """dpacc's leads in standard errors, over texts and over seeds: over Opacus at ε = 1 and 8,
    then over Opake."""
    cells = cells_of(RESULTS, task)
    found: dict[str, list[float]] = {"texts": [], "seeds": []}
    for tool in ("Opacus", "Opake"):
        for epsilon in (1.0, 8.0):
            pair = [held_out(best_of(cells[each, epsilon])) for each in ("dpacc", tool)]
            gain, error = lead(*pair)
            found["texts"].append(gain / error)
            found["seeds"].append(in_seeds(*pair))
    return found


def in_seeds(ours: list[Any], theirs: list[Any]) -> float:
    """A lead in standard errors over the seeds of both."""
    found = [np.array([each["accuracy"] for each in runs]) for runs in (ours, theirs)]
    error = math.sqrt(sum(each.var(ddof=1) / len(each) for each in found))
    return float((found[0].mean() - found[1].mean()) / error)


@pytest.mark.parametrize("task", ["sentences-4608", "sentiment-2048"])
def test_plain_lora_is_what_the_page_says(task: str) -> None:
    """At the recipes' rate before, and at twice that: held-out accuracy of one run each."""
    kept = kept_in(RESULTS)
    plain = [
        each
        for each in kept
        if each["task"] == task and each["run"]["tool"] == "dpacc"
        if "method" not in each["run"] and each["run"]["epsilon"]
    ]
    assert {each["run"]["epsilon"] for each in plain} == {1.0, 8.0}
    section = " ".join(section_of(COMPARED[task][0]).split())
    for rate in (0.005, 0.01):
        told = [
            f"{100 * each['held_out']['accuracy']:.1f}%"
            for each in sorted(plain, key=lambda each: each["run"]["epsilon"])
            if each["run"]["learning_rate"] == rate
        ]
        assert f"{told[0]} and {told[1]} at {rate:g}" in section


def test_how_far_a_run_without_a_rate_is_behind_is_that_of_kept_results() -> None:
    """Points to the best row, of plain LoRA at the rate of its parameters and steps; of chats,
    whose rate is 1e-2 to two digits, percent of perplexity to the best run."""
    reached = " ".join(PAGE.split("## What is reached")[1].split())
    sentences = [f"{behind('sentences-4608', epsilon, 0.0162):.1f}" for epsilon in (1.0, 8.0)]
    told = " ".join(section_of("## Sentences: ").split())
    assert f"it is {' and '.join(sentences)} points behind over three seeds" in told
    for task, name, rate in (
        ("sentences-4608", "sentences", 0.0162),
        ("emails-2048", "e-mails", 0.0243),
        ("endings-4096", "reviews by 64 tokens", 0.0172),
    ):
        gaps = [f"{behind(task, epsilon, rate):.1f}" for epsilon in (1.0, 8.0)]
        assert f" {name} {' and '.join(gaps)};" in reached
    gaps = [f"{behind('sentiment-2048', epsilon, 0.01):.1f}" for epsilon in (1.0, 8.0)]
    assert f"whole reviews were not run so, and are {' and '.join(gaps)} behind at 1e-2" in reached
    chats = [e for e in kept_in(RESULTS) if (e["task"], e["layers"]) == ("chats-2048", 6)]
    plain = {"tool": "dpacc", "epsilon": 8.0, "batch": 128, "steps": 48, "learning_rate": 0.01}
    usual = [e for e in chats if e["run"] | {"seed": 0} == plain | {"average": 0.5, "seed": 0}]
    private = [e for e in chats if e["run"]["epsilon"] == 8.0 and "noise_share" not in e["run"]]
    best = min(e["held_out"]["perplexity"] for e in private if e["run"]["tool"] == "dpacc")
    more = np.mean([e["held_out"]["perplexity"] for e in usual]) / best - 1
    assert len(usual) == 3
    assert f"chats, six layers, at ε = 8 {more:.0%} more perplexity" in reached


def behind(task: str, epsilon: float, rate: float) -> float:
    """Points of plain LoRA at a rate to the best row of dpacc's."""
    tuned = held_out(best_of(cells_of(RESULTS, task)["dpacc", epsilon]))
    plain = {"tool": "dpacc", "epsilon": epsilon, "batch": 128, "average": 0.5}
    found = [
        each["held_out"]
        for each in kept_in(RESULTS)
        if each["task"] == task
        and {**each["run"], "seed": 0}
        == {**plain, "steps": each["run"]["steps"], "learning_rate": rate, "seed": 0}
    ]
    assert found
    ours, best = (np.mean([each["accuracy"] for each in runs]) for runs in (found, tuned))
    return float(100 * (best - ours))


def test_what_is_told_of_emails_is_of_kept_results() -> None:
    """Plain LoRA at three rates, how far it is behind, and bands at two rates."""
    kept = kept_in(RESULTS)
    ours = [e for e in kept if e["task"] == "emails-2048" and e["run"]["tool"] == "dpacc"]
    plain = {
        (run["epsilon"], run["learning_rate"], *run.get("plan", {}).values()): each["held_out"]
        for each in ours
        if "method" not in (run := each["run"]) and "seed" not in run
    }
    assert {sum(count for _, count in held["blocks"]) for held in plain.values()} == {2000}
    section = " ".join(section_of("## E-mails: ").split())
    rates, short = (0.005, 0.01, 0.03), {}
    for epsilon in (1.0, 8.0):
        told = [f"{plain[epsilon, rate]['accuracy']:.1%}" for rate in rates]
        assert f"{told[0]}, {told[1]} and {told[2]} at " in section
        tuned = held_out(best_of(cells_of(RESULTS, "emails-2048")["dpacc", epsilon]))
        best = np.mean([each["accuracy"] for each in tuned])
        for rate in rates:
            gap = 100 * (best - plain[epsilon, rate]["accuracy"])
            short.setdefault(rate, []).append(f"{gap:.1f}")
    assert f"it is {' and '.join(short[0.03])} points behind" in section
    assert f"at the recipes' rate before, 0.005, {' and '.join(short[0.005])} points" in section
    assert (
        f"{plain[8.0, 0.0335, 'banded']['accuracy']:.1%} are found at ε = 8 (one seed)" in section
    )
    bands = [
        f"{100 * plain[epsilon, rate, 'banded']['accuracy']:.1f}"
        for epsilon, rate in ((1.0, 0.18), (8.0, 0.163))
    ]
    usual = [f"{100 * plain[epsilon, 0.0243]['accuracy']:.1f}" for epsilon in (1.0, 8.0)]
    assert f"bands find {bands[0]} and {bands[1]}%, and independent noise {usual[0]}" in section
    assert f"independent noise {usual[0]} and {usual[1]}% (seed 0)" in section
