"""The page on accuracy names commands, settings and pictures that there are."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.optimizers import rate_under_noise
from tests.scripts import load_script

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/utility.md").read_text()
PER_LAYER = 81_408
"""Parameters of LoRA of rank 8 on all projections of one of SmolLM2-135M's layers."""

TASKS = [
    ("sentences-4608", "other sentences", 108),
    ("emails-2048", "e-mails", 48),
]
"""Of accuracy, as results and the page call them, and their steps."""


def test_every_command_on_the_page_exists() -> None:
    """Each names a script, and a subcommand that the script defines."""
    commands = re.findall(r"python (\S+\.py)(?: ([a-z]+))?", PAGE)
    assert ("benchmarks/utility.py", "main") in commands
    for script, subcommand in commands:
        source = (ROOT / script).read_text()
        assert not subcommand or f'.command("{subcommand}")' in source


def test_every_setting_on_the_page_exists() -> None:
    """What stands as `name: value` is a setting of a run."""
    named = set(re.findall(r"`([a-z_]+):", PAGE))
    assert named
    assert named <= {field.name for field in fields(TrainingConfig)}


def test_every_picture_and_page_is_there() -> None:
    """Links lead to files."""
    links = re.findall(r"\]\(([\w./]+)\)", PAGE)
    assert all((ROOT / "docs" / link).is_file() for link in links)


def test_the_figure_of_ranks_hides_neither_its_origin_nor_its_error() -> None:
    """It shows the page's table from guessing upwards, with a standard error on every point."""
    chart = load_script(ROOT / "benchmarks/utility_chart.py")
    ranks, accuracies, untrained, sentences = chart.recorded(PAGE)
    assert ranks == [2, 4, 8, 16, 32]
    assert accuracies["lora"] == [80.6, 81.8, 80.4, 80.5, 81.3]
    assert (untrained, sentences) == (77.3, 1376)
    (axes,) = chart.ranks_figure(
        ranks=ranks, accuracies=accuracies, untrained=untrained, sentences=sentences
    ).axes
    assert axes.get_ylim()[0] == 50
    lines = dict(zip(accuracies, axes.containers, strict=True))
    for method, (points, _, (bars,)) in lines.items():
        assert points.get_ydata().tolist() == accuracies[method]
        for value, bar in zip(accuracies[method], bars.get_segments(), strict=True):
            error = (value * (100 - value) / sentences) ** 0.5
            assert bar[:, 1].tolist() == pytest.approx([value - error, value + error])


def test_the_rates_beside_what_is_found_at_them_are_kept_results() -> None:
    """Of plain LoRA on tasks of accuracy: one run at 5e-3 and 1e-2 each, three at the rate that is
    taken where none is said, which is that of the trained parameters and steps."""
    for task, name, steps in TASKS:
        rate = round(rate_under_noise(trained=PER_LAYER, steps=steps), 4)
        rows = PAGE.split(f"| [{name}]")[1].split("\n")[:2]
        for epsilon, row in zip((1.0, 8.0), rows, strict=True):
            plain = {"tool": "dpacc", "epsilon": epsilon, "batch": 128, "steps": steps}
            found: dict[float, list[float]] = {}
            for each in kept():
                run = dict(each["run"])
                at, _ = run.pop("learning_rate"), run.pop("seed", 0)
                if each["task"] == task and run == {**plain, "average": 0.5}:
                    found.setdefault(at, []).append(100 * each["held_out"]["accuracy"])
            five, ten = (f"{found[at][0]:.1f}%" for at in (0.005, 0.01))
            own = np.array(found[rate])
            assert len(own) == 3
            said = f"{own.mean():.1f} ± {own.std(ddof=1):.1f}%"
            assert f"| {epsilon:g} | {five} | {ten} | {rate:.4f} | {said} |" in row


def test_the_rate_of_chats_is_that_of_six_layers() -> None:
    """To two digits it is the one at which they were run; all of the row is of kept results."""
    own = rate_under_noise(trained=6 * PER_LAYER, steps=48)
    assert f"{own:.2g}" == "0.0099"
    chats = {"task": "chats-2048", "layers": 6}
    plain = {"tool": "dpacc", "epsilon": 8.0, "batch": 128, "steps": 48, "average": 0.5}
    found: dict[float, list[float]] = {}
    for each in kept():
        run = dict(each["run"])
        at, _ = run.pop("learning_rate"), run.pop("seed", 0)
        if run == plain and chats.items() <= each.items():
            found.setdefault(at, []).append(each["held_out"]["perplexity"])
    (five,), ten = found[0.005], np.array(found[0.01])
    assert len(ten) == 3
    told = f"{five:.2f} | {ten.mean():.2f} ± {ten.std(ddof=1):.2f} | {own:.4f} | as at 1e-2 |"
    assert f"| chats, six layers, perplexity | 8 | {told}" in PAGE


OTHERS = {
    "Gemma 3": ("gemma-3-270m", 105_472, {1: 0.96, 6: 0.96}),
    "Qwen2.5-Coder": ("qwen2.5-coder-0.5b-instruct", 183_296, {1: 0.58, 6: 0.62}),
}
"""Other bases: their folder, LoRA's parameters a layer at rank 8, and g of so many top layers."""


def test_the_rates_of_other_bases_are_those_of_their_gain() -> None:
    """Each row's rates are the formula's, and beside each stands the run of plain LoRA that is
    nearest to it, and last the one that validation texts choose."""
    rows = re.findall(
        r"^\|(?: ([A-Z][\w. -]+))? \|(?: (e-mails|chats, perplexity))? \| ([18]) \|"
        + r" ([^|]+) \|" * 5
        + "$",
        PAGE,
        re.M,
    )
    base = task = ""
    for named, asked, epsilon, whole, near_whole, own, near_own, best in rows:
        base, task = named or base, asked or task
        folder, per_layer, gains = OTHERS[base]
        layers = 1 if task == "e-mails" else 6
        size = {"trained": layers * per_layer, "steps": 48}
        rates = rate_under_noise(**size), rate_under_noise(**size, gain=gains[layers])
        assert [f"{each:.4f}" for each in rates] == [whole, own]
        runs = runs_of(folder, layers, float(epsilon))
        for rate, told in zip(rates, (near_whole, near_own), strict=True):
            nearest = min(runs, key=lambda tried: abs(math.log(tried / rate)))
            assert told == figure(runs[nearest]["held_out"], nearest)
        chosen = min(runs, key=lambda tried: badness(runs[tried]["validation"]))
        assert best == figure(runs[chosen]["held_out"], chosen)
    assert len(rows) == 8
    nothing = runs_of(OTHERS["Qwen2.5-Coder"][0], 1, 1.0)[0.003]["held_out"]
    assert f"they find\n{100 * nothing['accuracy']:.1f}%" in PAGE


WHITENED = {
    "e-mails": ("emails-2048", 39_936, 48),
    "other sentences": ("sentences-4608", 39_936, 108),
    "whole reviews, 64 tokens": ("endings-4096", 39_936, 96),
    "Gemma 3, e-mails": ("emails-2048-gemma-3-270m", 50_176, 48),
    "Qwen2.5-Coder, e-mails": ("emails-2048-qwen2.5-coder-0.5b-instruct", 81_920, 48),
}
"""Rows of whitened adapters: the task as results name it, A's parameters, and T."""


def test_what_whitened_adapters_find_without_a_rate_is_of_kept_results() -> None:
    """Each at its own rate and in batches of 128, over its seeds; the tuned row in large ones."""
    rows = re.findall(
        r"^\|(?: (\w[^|]+))? \| ([18]) \| (0\.00\d\d) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.M
    )
    name = ""
    for named, epsilon, told_rate, told, tuned in rows:
        name = named or name
        task, trained, steps = WHITENED[name]
        rate = rate_under_noise(trained=trained, steps=steps, method="whitened")
        assert f"{rate:.4f}" == told_rate
        run = {"epsilon": float(epsilon), "batch": 128}
        tried = {e["run"]["learning_rate"] for e in kept("whitened_rates") if e["task"] == task}
        run["learning_rate"] = min(tried, key=lambda at: abs(math.log(at / rate)))
        assert run["learning_rate"] == pytest.approx(rate, rel=0.01)
        assert told == over_seeds(kept("whitened_rates"), task, run)
        if tuned != "none":
            large = {"epsilon": float(epsilon), "batch": 512}
            found = [over_seeds(kept(), task, {**large, "learning_rate": r}) for r in RATES]
            assert tuned in found
    assert len(rows) == 2 * len(WHITENED)
    taken = rate_under_noise(trained=39_936, steps=32, method="whitened")
    assert f"η is {taken:.4f} on these sentences" in PAGE
    task, trained, steps = WHITENED["Qwen2.5-Coder, e-mails"]
    slow = rate_under_noise(trained=trained, steps=steps, method="whitened") * math.sqrt(0.58 / 4)
    run = {"epsilon": 1.0, "batch": 128, "learning_rate": round(slow, 4)}
    found = over_seeds(kept("whitened_rates"), task, run)
    assert f"times √(g/4) Qwen finds {found} at ε = 1" in PAGE


RATES = (3e-3, 1e-2, 3e-2)


def over_seeds(results: list[dict[str, Any]], task: str, run: dict[str, Any]) -> str:
    """Accuracy of whitened adapters held out, with its spread if there are several runs."""
    found = [
        100 * each["held_out"]["accuracy"]
        for each in results
        if each["task"] == task and each["run"].get("method") == "whitened"
        if run.items() <= each["run"].items()
    ]
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    return f"{np.mean(found):.1f}{spread}%" if found else "not run"


def runs_of(folder: str, layers: int, epsilon: float) -> dict[float, dict[str, Any]]:
    """A base's runs of plain LoRA under independent noise, by their rates."""
    name = "other_bases_emails" if layers == 1 else "other_bases"
    return {
        each["run"]["learning_rate"]: each
        for each in kept(name)
        if each["task"].endswith(folder)
        if each["run"]["epsilon"] == epsilon and "plan" not in each["run"]
    }


def badness(found: dict[str, Any]) -> float:
    """What is to be small, of a task of either kind."""
    return float(found["perplexity"] if "perplexity" in found else -found["accuracy"])


def figure(found: dict[str, Any], rate: float) -> str:
    """As a cell says it."""
    if "perplexity" in found:
        return f"{found['perplexity']:.2f} at {rate:g}"
    return f"{100 * found['accuracy']:.1f}% at {rate:g}"


def kept(results: str = "frontier") -> list[dict[str, Any]]:
    """The frontier's results, or others."""
    path = ROOT / f"benchmarks/results/{results}.jsonl"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]
