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
    from dpacc_accounting.attacks.best_attack import (
        AttackRisk,
        attack_advantage,
        attack_risk,
        bayes_error,
        positive_predictive_value,
        true_positive_rate,
    )
    from dpacc_accounting.attacks.one_run_audit import Guesses, one_run_epsilon, one_run_mu
    from dpacc_accounting.attacks.tradeoff import TradeoffCurve, tradeoff_curve
    from dpacc_accounting.budget.creation import create_budget
    from dpacc_accounting.budget.fingerprint import data_fingerprint
    from dpacc_accounting.budget.grants import BudgetExceeded
    from dpacc_accounting.budget.key_file import BudgetError
    from dpacc_accounting.budget.record import BudgetRecord, read_budget
    from dpacc_accounting.budget.registry import Budget
    from dpacc_accounting.calibration.accountant import Accountant, get_noise_multiplier
    from dpacc_accounting.calibration.affordable import (
        calibrate_batch_size,
        calibrate_delta,
        calibrate_epochs,
        calibrate_epsilon,
        calibrate_steps,
    )
    from dpacc_accounting.calibration.allocated_noise import calibrate_allocated_noise
    from dpacc_accounting.calibration.attack_targets import (
        calibrate_noise_to_advantage,
        calibrate_noise_to_detection,
    )
    from dpacc_accounting.calibration.banded_noise import BandedCalibration, calibrate_banded_noise
    from dpacc_accounting.calibration.compute_budget import (
        BatchChoice,
        BatchRecommendation,
        recommend_batch_size,
    )
    from dpacc_accounting.calibration.event_scale import EventCalibration, calibrate_event
    from dpacc_accounting.calibration.noise import calibrate_noise, noise_at_rate
    from dpacc_accounting.calibration.phased_noise import PhasedCalibration, calibrate_phases
    from dpacc_accounting.calibration.separated_noise import (
        SeparatedCalibration,
        calibrate_separated_noise,
    )
    from dpacc_accounting.calibration.training_runs import Calibration
    from dpacc_accounting.calibration.unit_sampling import (
        UnitSampling,
        calibrate_example_sampling,
        compare_unit_sampling,
    )
    from dpacc_accounting.events.clipped_sums import (
        MixtureOfGaussians,
        joint_noise_multiplier,
        sum_noise_multiplier,
    )
    from dpacc_accounting.events.conversion import from_dp_event, to_dp_event
    from dpacc_accounting.events.documents import event_from_json, event_to_json
    from dpacc_accounting.events.event import (
        AdaptivelyClipped,
        Composed,
        CyclicPoissonSampled,
        Event,
        Gaussian,
        Mixture,
        PoissonSampled,
        RandomlyAllocated,
        Repeated,
        SampledWithoutReplacement,
        Selected,
        SeparatedParticipation,
        Shuffled,
        TruncatedPoissonSampled,
    )
    from dpacc_accounting.events.finite_mechanisms import (
        ZCDP,
        ApproximateDP,
        DiscreteLaplace,
        PermuteAndFlip,
        RandomizedResponse,
        TruncatedDiscreteGaussian,
    )
    from dpacc_accounting.events.mechanisms import (
        DiscreteGaussian,
        ExponentialMechanism,
        Laplace,
        Skellam,
    )
    from dpacc_accounting.events.participation import Phase
    from dpacc_accounting.factorization.workload import Workload
    from dpacc_accounting.federation.guarantees import FederatedGuarantee, price_federation
    from dpacc_accounting.federation.reading import read_federation
    from dpacc_accounting.federation.rounds import Federation
    from dpacc_accounting.groups import group_epsilon, user_epsilon
    from dpacc_accounting.guarantee import Adjacency, Guarantee
    from dpacc_accounting.ledger.merging import MergedLedgers, merge_ledgers
    from dpacc_accounting.ledger.record import LedgerError, LedgerRecord, read_ledger
    from dpacc_accounting.ledger.statement import statement
    from dpacc_accounting.ledger.writer import Ledger
    from dpacc_accounting.pld.amplification import without_amplification
    from dpacc_accounting.pricing.price import delta, epsilon
    from dpacc_accounting.selection import runs_at

# Each name is loaded on first use, so that reading a ledger costs no numpy and no scipy.
_ROOMS = {
    "Accountant": "calibration.accountant",
    "AdaptivelyClipped": "events.clipped_sums",
    "Adjacency": "guarantee",
    "ApproximateDP": "events.finite_mechanisms",
    "AttackRisk": "attacks.best_attack",
    "BandedCalibration": "calibration.banded_noise",
    "BatchChoice": "calibration.compute_budget",
    "BatchRecommendation": "calibration.compute_budget",
    "Budget": "budget.registry",
    "BudgetError": "budget.key_file",
    "BudgetExceeded": "budget.grants",
    "BudgetRecord": "budget.record",
    "Calibration": "calibration.training_runs",
    "Composed": "events.event",
    "CyclicPoissonSampled": "events.sampled_over_steps",
    "DiscreteGaussian": "events.mechanisms",
    "DiscreteLaplace": "events.finite_mechanisms",
    "Event": "events.event",
    "EventCalibration": "calibration.event_scale",
    "ExponentialMechanism": "events.mechanisms",
    "FederatedGuarantee": "federation.guarantees",
    "Federation": "federation.rounds",
    "Gaussian": "events.clipped_sums",
    "Guarantee": "guarantee",
    "Guesses": "attacks.one_run_audit",
    "Laplace": "events.mechanisms",
    "Ledger": "ledger.writer",
    "LedgerError": "ledger.record",
    "LedgerRecord": "ledger.record",
    "MergedLedgers": "ledger.merging",
    "Mixture": "events.event",
    "MixtureOfGaussians": "events.clipped_sums",
    "PermuteAndFlip": "events.finite_mechanisms",
    "Phase": "events.participation",
    "PhasedCalibration": "calibration.phased_noise",
    "PoissonSampled": "events.event",
    "RandomizedResponse": "events.finite_mechanisms",
    "RandomlyAllocated": "events.event",
    "Repeated": "events.event",
    "SampledWithoutReplacement": "events.event",
    "Selected": "events.event",
    "SeparatedCalibration": "calibration.separated_noise",
    "SeparatedParticipation": "events.separated_participation",
    "Shuffled": "events.event",
    "Skellam": "events.mechanisms",
    "TradeoffCurve": "attacks.tradeoff",
    "TruncatedDiscreteGaussian": "events.finite_mechanisms",
    "TruncatedPoissonSampled": "events.event",
    "UnitSampling": "calibration.unit_sampling",
    "Workload": "factorization.workload",
    "ZCDP": "events.finite_mechanisms",
    "attack_advantage": "attacks.best_attack",
    "attack_risk": "attacks.best_attack",
    "bayes_error": "attacks.best_attack",
    "calibrate_allocated_noise": "calibration.allocated_noise",
    "calibrate_banded_noise": "calibration.banded_noise",
    "calibrate_batch_size": "calibration.affordable",
    "calibrate_delta": "calibration.affordable",
    "calibrate_epochs": "calibration.affordable",
    "calibrate_epsilon": "calibration.affordable",
    "calibrate_event": "calibration.event_scale",
    "calibrate_example_sampling": "calibration.unit_sampling",
    "calibrate_noise": "calibration.noise",
    "calibrate_noise_to_advantage": "calibration.attack_targets",
    "calibrate_noise_to_detection": "calibration.attack_targets",
    "calibrate_phases": "calibration.phased_noise",
    "calibrate_separated_noise": "calibration.separated_noise",
    "calibrate_steps": "calibration.affordable",
    "compare_unit_sampling": "calibration.unit_sampling",
    "create_budget": "budget.creation",
    "data_fingerprint": "budget.fingerprint",
    "delta": "pricing.price",
    "epsilon": "pricing.price",
    "event_from_json": "events.documents",
    "event_to_json": "events.documents",
    "from_dp_event": "events.conversion",
    "get_noise_multiplier": "calibration.accountant",
    "group_epsilon": "groups",
    "joint_noise_multiplier": "events.clipped_sums",
    "merge_ledgers": "ledger.merging",
    "noise_at_rate": "calibration.noise",
    "one_run_epsilon": "attacks.one_run_audit",
    "one_run_mu": "attacks.one_run_audit",
    "positive_predictive_value": "attacks.best_attack",
    "price_federation": "federation.guarantees",
    "read_budget": "budget.record",
    "read_federation": "federation.reading",
    "read_ledger": "ledger.record",
    "recommend_batch_size": "calibration.compute_budget",
    "runs_at": "selection",
    "statement": "ledger.statement",
    "sum_noise_multiplier": "events.clipped_sums",
    "to_dp_event": "events.conversion",
    "tradeoff_curve": "attacks.tradeoff",
    "true_positive_rate": "attacks.best_attack",
    "user_epsilon": "groups",
    "without_amplification": "pld.amplification",
}

__all__ = [
    "ZCDP",
    "Accountant",
    "AdaptivelyClipped",
    "Adjacency",
    "ApproximateDP",
    "AttackRisk",
    "BandedCalibration",
    "BatchChoice",
    "BatchRecommendation",
    "Budget",
    "BudgetError",
    "BudgetExceeded",
    "BudgetRecord",
    "Calibration",
    "Composed",
    "CyclicPoissonSampled",
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
    "MixtureOfGaussians",
    "PermuteAndFlip",
    "Phase",
    "PhasedCalibration",
    "PoissonSampled",
    "RandomizedResponse",
    "RandomlyAllocated",
    "Repeated",
    "SampledWithoutReplacement",
    "Selected",
    "SeparatedCalibration",
    "SeparatedParticipation",
    "Shuffled",
    "Skellam",
    "TradeoffCurve",
    "TruncatedDiscreteGaussian",
    "TruncatedPoissonSampled",
    "UnitSampling",
    "Workload",
    "attack_advantage",
    "attack_risk",
    "bayes_error",
    "calibrate_allocated_noise",
    "calibrate_banded_noise",
    "calibrate_batch_size",
    "calibrate_delta",
    "calibrate_epochs",
    "calibrate_epsilon",
    "calibrate_event",
    "calibrate_example_sampling",
    "calibrate_noise",
    "calibrate_noise_to_advantage",
    "calibrate_noise_to_detection",
    "calibrate_phases",
    "calibrate_separated_noise",
    "calibrate_steps",
    "compare_unit_sampling",
    "create_budget",
    "data_fingerprint",
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
    "read_budget",
    "read_federation",
    "read_ledger",
    "recommend_batch_size",
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
