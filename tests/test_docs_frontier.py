"""Where docs/frontier.md compares tools by accuracy, it says what its kept results say."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest

from tests.frontier_page import GEOMETRY, PAGE, RESULTS, ROOT, kept_in, per_block, section_of

COMPARED = {
    "sentences-4608": ("## Sentences: ", 6),
    "sentiment-2048": ("## Whole reviews: ", 6),
    "sentiment-4096": ("## Twice as many reviews: ", 6),
    "emails-2048": ("## E-mails: ", 6),
}
"""Tasks on which tools are compared, each with how its section begins, and how many rows it has."""


def test_every_command_on_the_page_exists() -> None:
    """Each names a script, and a subcommand that the script defines."""
    commands = re.findall(r"python (\S+\.py)(?: --task \w+)?(?: ([a-z]+))?", PAGE)
    assert ("benchmarks/frontier.py", "limits") in commands
    for script, subcommand in commands:
        source = (ROOT / script).read_text(encoding="utf-8")
        assert not subcommand or f'.command("{subcommand}")' in source


@pytest.mark.parametrize("task", list(COMPARED))
def test_every_row_of_a_comparison_is_three_kept_results(task: str) -> None:
    """Rate, noise, accuracy over seeds, loss and lead are those of the results; the best rates are
    those of the validation texts."""
    kept = kept_in(RESULTS)
    cells: dict[tuple[str, float], dict[float, list[dict[str, Any]]]] = {}
    for each in kept:
        run = each["run"]
        plain = run["tool"] == "dpacc" and "method" not in run
        if each["task"] == task and not plain and run["epsilon"]:
            cell = cells.setdefault((run["tool"], run["epsilon"]), {})
            cell.setdefault(run["learning_rate"], []).append(each)
    heading, count = COMPARED[task]
    rows = re.findall(
        r"^\| (\d) \| (\w+).*? \| (\S+) \| (\S+) \| (\S+ ± \S+)% \| (\S+) \| (.*?) ?\|$",
        section_of(heading),
        re.M,
    )
    assert len(rows) == len(cells) == count
    ours: dict[str, list[dict[str, Any]]] = {}
    for epsilon, tool, rate, sigma, accuracy, loss, ahead in rows:
        cell = cells[tool, float(epsilon)]
        found = cell[float(rate)]
        assert len(found) == 3
        best = max(runs[0]["validation"]["accuracy"] for runs in cell.values())
        assert found[0]["validation"]["accuracy"] == best
        assert f"{found[0]['noise_multiplier']:.3f}" == sigma
        held = [each["held_out"] for each in found]
        told = np.array([100 * each["accuracy"] for each in held])
        assert f"{told.mean():.2f} ± {told.std(ddof=1):.2f}" == accuracy
        assert f"{np.mean([each['loss'] for each in held]):.3f}" == loss
        if tool == "dpacc":
            ours[epsilon] = held
            assert not ahead
        else:
            gain = per_block(ours[epsilon]) - per_block(held)
            error = gain.std(ddof=1) / math.sqrt(len(gain))
            assert f"{100 * gain.mean():+.2f} ± {100 * error:.2f}" == ahead


@pytest.mark.parametrize("task", ["sentences-4608", "sentiment-2048"])
def test_plain_lora_is_what_the_page_says(task: str) -> None:
    """At the recipes' own rate, and at twice that: held-out accuracy of one run each."""
    kept = kept_in(RESULTS)
    plain = [
        each
        for each in kept
        if each["task"] == task and each["run"]["tool"] == "dpacc"
        if "method" not in each["run"] and each["run"]["epsilon"]
    ]
    assert len(plain) == 4
    section = " ".join(section_of(COMPARED[task][0]).split())
    for rate in (0.005, 0.01):
        told = [
            f"{100 * each['held_out']['accuracy']:.1f}%"
            for each in sorted(plain, key=lambda each: each["run"]["epsilon"])
            if each["run"]["learning_rate"] == rate
        ]
        assert f"{told[0]} and {told[1]} at {rate:g}" in section


def test_how_far_plain_lora_is_behind_is_that_of_kept_results() -> None:
    """Points to the best row at 5e-3 and 1e-2; in perplexity of chats, three layers, in percent."""
    kept = kept_in(RESULTS)
    section = " ".join(PAGE.split("## What is reached")[1].split())
    for task, name in (("sentiment-2048", "whole reviews"), ("sentences-4608", "sentences")):
        ours = [e for e in kept if e["task"] == task and e["run"]["tool"] == "dpacc"]
        behind: dict[float, list[str]] = {0.005: [], 0.01: []}
        for epsilon in (1.0, 8.0):
            cell = [each for each in ours if each["run"]["epsilon"] == epsilon]
            tuned: dict[float, list[float]] = {e["run"]["learning_rate"]: [] for e in cell}
            for each in cell:
                if "method" in each["run"]:
                    tuned[each["run"]["learning_rate"]].append(each["held_out"]["accuracy"])
            (best,) = (np.mean(those) for those in tuned.values() if len(those) == 3)
            for each in cell:
                if "method" not in each["run"]:
                    gap = 100 * (best - each["held_out"]["accuracy"])
                    behind[each["run"]["learning_rate"]].append(f"{gap:.1f}")
        assert f"{name} {' and '.join(behind[0.005])};" in section
        assert f"{' and '.join(behind[0.01])} on {name}" in section
    three = kept_in(GEOMETRY)
    found = [
        (each["held_out"]["perplexity"], each["run"])
        for each in three
        if "geometry" not in each["run"]
    ]
    (plain,) = (value for value, run in found if "plan" not in run)
    assert f"have {plain / min(found, key=lambda each: each[0])[0] - 1:.0%} more" in section


def test_what_is_told_of_emails_is_of_kept_results() -> None:
    """Plain LoRA at three rates, how far it is behind, and bands at what a recipe makes of its."""
    kept = kept_in(RESULTS)
    ours = [e for e in kept if e["task"] == "emails-2048" and e["run"]["tool"] == "dpacc"]
    plain = {
        (run["epsilon"], run["learning_rate"], *run.get("plan", {}).values()): each["held_out"]
        for each in ours
        if "method" not in (run := each["run"])
    }
    assert {sum(count for _, count in held["blocks"]) for held in plain.values()} == {2000}
    section = " ".join(section_of("## E-mails: ").split())
    reached = " ".join(PAGE.split("## What is reached")[1].split())
    rates, behind = (0.005, 0.01, 0.03), {}
    for epsilon in (1.0, 8.0):
        told = [f"{plain[epsilon, rate]['accuracy']:.1%}" for rate in rates]
        assert f"{told[0]}, {told[1]} and {told[2]} at " in section
        best = np.mean(
            [
                each["held_out"]["accuracy"]
                for each in ours
                if "method" in each["run"]
                if (each["run"]["epsilon"], each["run"]["learning_rate"]) == (epsilon, 0.03)
            ]
        )
        for rate in rates:
            gap = 100 * (best - plain[epsilon, rate]["accuracy"])
            behind.setdefault(rate, []).append(f"{gap:.1f}")
    assert f"e-mails {' and '.join(behind[0.005])} |" in reached
    assert f"it is {' and '.join(behind[0.01])} behind on e-mails" in reached
    assert f"and 3e-2 {' and '.join(behind[0.03])}." in reached
    assert (
        f"{plain[8.0, 0.0335, 'banded']['accuracy']:.1%} are found at ε = 8 (one seed)" in section
    )
    assert len(plain) == 7
