"""ε against the interval that prv-accountant, an independent Fourier accountant, proves."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import Adjacency
from dpacc_accounting.events.flattening import Release
from dpacc_accounting.pricing.certified_bounds import epsilon_bounds

# Written by make_prv_reference.py, which says how.
REFERENCE = json.loads(Path(__file__).with_name("prv_reference.json").read_text())
SETTINGS = REFERENCE["settings"]


def test_the_reference_is_wide_enough():
    """At least 20 settings, made by a version that is recorded, from ε below 1 to above 20."""
    assert len(SETTINGS) >= 20
    assert REFERENCE["made_by"]["prv-accountant"] == "0.2.0"
    assert min(setting["high"] for setting in SETTINGS) < 1
    assert max(setting["low"] for setting in SETTINGS) > 20


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: "-".join(map(str, s.values())))
def test_our_interval_lies_inside(setting):
    """Both intervals hold the exact ε, and ours lies inside theirs."""
    release = Release(setting["probability"], setting["noise_multiplier"])
    ours = epsilon_bounds(
        counts={release: setting["times"]},
        adjacency=Adjacency.ADD_OR_REMOVE,
        delta=setting["delta"],
    )
    assert setting["low"] <= ours.low <= ours.high <= setting["high"]
