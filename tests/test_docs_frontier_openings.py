"""Where docs/frontier.md tells of openings of reviews, it says what its kept results say."""

from __future__ import annotations

import re
from typing import Any

from dpacc_accounting import calibrate_banded_noise
from dpacc_accounting.factorization.workload import Workload

from tests.frontier_page import ROOT, kept_in, lead, section_of

OPENINGS = ROOT / "benchmarks/results/openings.jsonl"


def test_every_row_of_openings_is_a_kept_result() -> None:
    """ε, noise, batch, rate, σ, perplexities and loss are those of one run; none is left out; and
    what bands win is what they have over the best run of independent noise."""
    kept = kept_in(OPENINGS)
    section = section_of("## Six times as many examples")
    rows = re.findall(r"^\| ([1∞]) \|" + r" (.+?) \|" * 7 + "$", section, re.M)
    found: set[tuple[str, ...]] = set()
    best: dict[str, Any] = {}
    for each in kept:
        run, held = each["run"], each["held_out"]
        epsilon = "1" if run["epsilon"] else "∞"
        bands = run.get("plan", {}).get("bands")
        noise = f"{bands} bands" if bands else "independent" if run["epsilon"] else "none"
        noise += ", SGD with momentum 0.9" if run.get("momentum") else ""
        told = (str(run["batch"]), f"{run['learning_rate']:g}", f"{each['noise_multiplier']:.3f}")
        figures = (each["validation"]["perplexity"], held["perplexity"])
        found.add(
            (epsilon, noise, *told, *(f"{one:.2f}" for one in figures), f"{held['loss']:.3f}")
        )
        if noise not in best or figures[0] < best[noise]["validation"]["perplexity"]:
            best[noise] = each
    assert set(rows) == found
    assert len(rows) == len(kept) == 10
    usual, banded, none = (best[name]["held_out"] for name in ("independent", "16 bands", "none"))
    gain, error = lead([usual], [banded])
    told = " ".join(section.split())
    assert f"{gain:.1f} ± {error:.1f} hundredths of loss a token" in told
    gap = usual["loss"] - none["loss"]
    assert f"**{(usual['loss'] - banded['loss']) / gap:.0%} of the gap**" in told


def test_what_bands_leave_of_openings_is_what_the_closed_form_says() -> None:
    """16 bands beside independent noise in batches of the same size."""
    noise: dict[str, Any] = {"dataset_size": 12_288, "epsilon": 1.0, "delta": 12_288**-1.1}
    left = calibrate_banded_noise(
        **noise,
        batch_size=128,
        steps=288,
        bands=16,
        workload=Workload.constant(steps=288, momentum=0.9, averaged=0.5),
    ).error
    told = " ".join(section_of("## Six times as many examples").split())
    assert f"leave {left:.2f} of independent noise" in told
