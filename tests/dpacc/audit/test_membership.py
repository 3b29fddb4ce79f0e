"""Membership inference: the rates are those of the scores, and stand beside what is allowed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from dpacc_accounting import Gaussian, epsilon

from dpacc.audit.membership import Promised, membership_report
from dpacc.errors import ConfigurationError


def test_known_gaussian_scores_give_the_known_rates() -> None:
    """Scores N(1,1) against N(0,1): AUC 0.760, advantage 0.383, 26% found at 5% false alarms."""
    rng = np.random.default_rng(0)
    report = membership_report(
        members=rng.standard_normal(20_000) + 1, strangers=rng.standard_normal(20_000)
    )
    assert report.auc == pytest.approx(0.760, abs=0.01)
    assert report.advantage == pytest.approx(0.383, abs=0.015)
    tenth = report.detections[-1]
    assert tenth.false_positives == pytest.approx(0.1, abs=1e-3)
    assert tenth.true_positives == pytest.approx(0.389, abs=0.02)
    assert tenth.true_positives - 0.02 < tenth.at_least < tenth.true_positives
    assert (report.allowed_advantage, tenth.allowed) == (None, None)


def test_what_is_found_stands_beside_what_is_allowed() -> None:
    """The Gaussian mechanism's own best attack reaches the bounds of its curve, up to chance."""
    rng = np.random.default_rng(1)
    once = Gaussian(noise_multiplier=1.0)
    promised = Promised(event=once, claim=epsilon(event=once, delta=1e-5))
    report = membership_report(
        members=rng.standard_normal(5_000) + 1,
        strangers=rng.standard_normal(5_000),
        promised=promised,
    )
    assert report.allowed_advantage is not None
    assert report.allowed_advantage == pytest.approx(0.383, abs=1e-3)
    assert report.advantage == pytest.approx(report.allowed_advantage, abs=0.03)
    for each in report.detections:
        assert each.allowed is not None
        assert each.at_least < each.allowed + 0.02
    assert json.loads(json.dumps(report.to_json()))["members"] == 5_000


def test_equal_scores_tell_nothing() -> None:
    """Ties count half: AUC ½, no advantage, nobody found."""
    report = membership_report(members=np.zeros(50), strangers=np.zeros(30))
    assert (report.auc, report.advantage) == (0.5, 0.0)
    assert [each.true_positives for each in report.detections] == [0.0, 0.0, 0.0]


def test_members_without_strangers_are_refused() -> None:
    """Both kinds are needed, with finite scores."""
    with pytest.raises(ConfigurationError, match="give both"):
        membership_report(members=np.zeros(3), strangers=np.zeros(0))
    with pytest.raises(ConfigurationError, match="not finite"):
        membership_report(members=np.array([np.nan]), strangers=np.zeros(1))
