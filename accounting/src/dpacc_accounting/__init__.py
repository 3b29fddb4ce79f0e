"""Differential-privacy accounting for training, free of torch.

>>> from dpacc_accounting import Gaussian, PoissonSampled, Repeated
>>> step = PoissonSampled(probability=0.01, event=Gaussian(noise_multiplier=1.0))
>>> Repeated(event=step, times=1000).times
1000
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpacc_accounting.accountant import Accountant, get_noise_multiplier
    from dpacc_accounting.affordable import (
        calibrate_batch_size,
        calibrate_delta,
        calibrate_epochs,
        calibrate_epsilon,
        calibrate_steps,
    )
    from dpacc_accounting.amplification import without_amplification
    from dpacc_accounting.attack_calibration import (
        calibrate_noise_to_advantage,
        calibrate_noise_to_detection,
    )
    from dpacc_accounting.attacks import (
        AttackRisk,
        attack_advantage,
        attack_risk,
        bayes_error,
        positive_predictive_value,
        true_positive_rate,
    )
    from dpacc_accounting.calibration import Calibration, calibrate_noise, noise_at_rate
    from dpacc_accounting.clipped_sums import joint_noise_multiplier, sum_noise_multiplier
    from dpacc_accounting.conversion import from_dp_event, to_dp_event
    from dpacc_accounting.event_calibration import EventCalibration, calibrate_event
    from dpacc_accounting.event_documents import event_from_json, event_to_json
    from dpacc_accounting.events import (
        AdaptivelyClipped,
        Composed,
        Event,
        Gaussian,
        Mixture,
        PoissonSampled,
        RandomlyAllocated,
        Repeated,
        SampledWithoutReplacement,
        Selected,
        Shuffled,
        TruncatedPoissonSampled,
    )
    from dpacc_accounting.federation import FederatedGuarantee, price_federation
    from dpacc_accounting.finite_mechanisms import (
        ZCDP,
        ApproximateDP,
        DiscreteLaplace,
        PermuteAndFlip,
        RandomizedResponse,
    )
    from dpacc_accounting.groups import group_epsilon, user_epsilon
    from dpacc_accounting.guarantee import Adjacency, Guarantee
    from dpacc_accounting.ledger import Ledger
    from dpacc_accounting.mechanisms import (
        DiscreteGaussian,
        ExponentialMechanism,
        Laplace,
        Skellam,
    )
    from dpacc_accounting.merging import MergedLedgers, merge_ledgers
    from dpacc_accounting.one_run import Guesses, one_run_epsilon, one_run_mu
    from dpacc_accounting.pricing import delta, epsilon
    from dpacc_accounting.reading import read_federation
    from dpacc_accounting.record import LedgerError, LedgerRecord, read_ledger
    from dpacc_accounting.rounds import Federation
    from dpacc_accounting.selection import runs_at
    from dpacc_accounting.tradeoff import TradeoffCurve, tradeoff_curve
    from dpacc_accounting.wording import statement

# Each name is loaded on first use, so that reading a ledger costs no numpy and no scipy.
_ROOMS = {
    "Accountant": "accountant",
    "AdaptivelyClipped": "clipped_sums",
    "Adjacency": "guarantee",
    "ApproximateDP": "finite_mechanisms",
    "AttackRisk": "attacks",
    "Calibration": "calibration",
    "Composed": "events",
    "DiscreteGaussian": "mechanisms",
    "DiscreteLaplace": "finite_mechanisms",
    "Event": "events",
    "EventCalibration": "event_calibration",
    "ExponentialMechanism": "mechanisms",
    "FederatedGuarantee": "federation",
    "Federation": "rounds",
    "Gaussian": "clipped_sums",
    "Guarantee": "guarantee",
    "Guesses": "one_run",
    "Laplace": "mechanisms",
    "Ledger": "ledger",
    "LedgerError": "record",
    "LedgerRecord": "record",
    "MergedLedgers": "merging",
    "Mixture": "events",
    "PermuteAndFlip": "finite_mechanisms",
    "PoissonSampled": "events",
    "RandomizedResponse": "finite_mechanisms",
    "RandomlyAllocated": "events",
    "Repeated": "events",
    "SampledWithoutReplacement": "events",
    "Selected": "events",
    "Shuffled": "events",
    "Skellam": "mechanisms",
    "TradeoffCurve": "tradeoff",
    "TruncatedPoissonSampled": "events",
    "ZCDP": "finite_mechanisms",
    "attack_advantage": "attacks",
    "attack_risk": "attacks",
    "bayes_error": "attacks",
    "calibrate_batch_size": "affordable",
    "calibrate_delta": "affordable",
    "calibrate_epochs": "affordable",
    "calibrate_epsilon": "affordable",
    "calibrate_event": "event_calibration",
    "calibrate_noise": "calibration",
    "calibrate_noise_to_advantage": "attack_calibration",
    "calibrate_noise_to_detection": "attack_calibration",
    "calibrate_steps": "affordable",
    "delta": "pricing",
    "epsilon": "pricing",
    "event_from_json": "event_documents",
    "event_to_json": "event_documents",
    "from_dp_event": "conversion",
    "group_epsilon": "groups",
    "get_noise_multiplier": "accountant",
    "joint_noise_multiplier": "clipped_sums",
    "noise_at_rate": "calibration",
    "merge_ledgers": "merging",
    "one_run_epsilon": "one_run",
    "one_run_mu": "one_run",
    "positive_predictive_value": "attacks",
    "price_federation": "federation",
    "read_federation": "reading",
    "read_ledger": "record",
    "runs_at": "selection",
    "statement": "wording",
    "sum_noise_multiplier": "clipped_sums",
    "to_dp_event": "conversion",
    "tradeoff_curve": "tradeoff",
    "true_positive_rate": "attacks",
    "user_epsilon": "groups",
    "without_amplification": "amplification",
}

__all__ = [
    "ZCDP",
    "Accountant",
    "AdaptivelyClipped",
    "Adjacency",
    "ApproximateDP",
    "AttackRisk",
    "Calibration",
    "Composed",
    "DiscreteGaussian",
    "DiscreteLaplace",
    "Event",
    "EventCalibration",
    "ExponentialMechanism",
    "FederatedGuarantee",
    "Federation",
    "Gaussian",
    "Guarantee",
    "Guesses",
    "Laplace",
    "Ledger",
    "LedgerError",
    "LedgerRecord",
    "MergedLedgers",
    "Mixture",
    "PermuteAndFlip",
    "PoissonSampled",
    "RandomizedResponse",
    "RandomlyAllocated",
    "Repeated",
    "SampledWithoutReplacement",
    "Selected",
    "Shuffled",
    "Skellam",
    "TradeoffCurve",
    "TruncatedPoissonSampled",
    "attack_advantage",
    "attack_risk",
    "bayes_error",
    "calibrate_batch_size",
    "calibrate_delta",
    "calibrate_epochs",
    "calibrate_epsilon",
    "calibrate_event",
    "calibrate_noise",
    "calibrate_noise_to_advantage",
    "calibrate_noise_to_detection",
    "calibrate_steps",
    "delta",
    "epsilon",
    "event_from_json",
    "event_to_json",
    "from_dp_event",
    "get_noise_multiplier",
    "group_epsilon",
    "joint_noise_multiplier",
    "merge_ledgers",
    "noise_at_rate",
    "one_run_epsilon",
    "one_run_mu",
    "positive_predictive_value",
    "price_federation",
    "read_federation",
    "read_ledger",
    "runs_at",
    "statement",
    "sum_noise_multiplier",
    "to_dp_event",
    "tradeoff_curve",
    "true_positive_rate",
    "user_epsilon",
    "without_amplification",
]


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
