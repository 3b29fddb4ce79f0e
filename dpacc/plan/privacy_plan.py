"""The privacy plan, its noise and its price."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, cast

from dpacc_accounting import (
    Adjacency,
    Calibration,
    Event,
    Guarantee,
    Phase,
    Workload,
    calibrate_allocated_noise,
    calibrate_banded_noise,
    calibrate_example_sampling,
    calibrate_noise,
    epsilon,
    sum_noise_multiplier,
)
from dpacc_accounting.events.participation import EpochAllocation, phase_at
from dpacc_accounting.ledger.plan_settings import (
    AnyParticipation,
    participation_of,
    phases_of,
    require_coefficients,
    require_one_way,
    require_sampling,
)

from dpacc.plan.settings import (
    Clipping,
    Correlation,
    Drawing,
    Noise,
    Sampling,
    require,
    require_one_of,
    require_plan,
)

INDEPENDENT = (1.0,)
"""The coefficients of noise that is drawn afresh for each step."""


@dataclass(frozen=True, kw_only=True)
class PrivacyPlan:
    """What will be run, and therefore what it promises.

    Each of `steps` logical steps draws every example with probability
    q = expected_batch_size / dataset_size, clips each drawn example's gradient to norm
    C = max_grad_norm, sums, and adds N(0, (σC)²) once, with σ = noise_multiplier
    (DP-SGD, arXiv 1607.00133).

    With b > 1 `noise_coefficients` the noise of step t is σC·(C⁻¹z)_t, for a lower triangular
    Toeplitz matrix C of b bands: what one step adds, later ones take back in part. Units are then
    drawn in turns: each is in one of b groups by a secret coin, group t mod b takes step t, and
    each of its units joins with probability bq (arXiv 2306.08153).

    With `sampling` "allocated" an epoch has E = ⌈N / expected_batch_size⌉ steps; each example is in
    exactly one of them, drawn uniformly in secret for each epoch: random allocation, or balls and
    bins (arXiv 2412.16802, 2502.08202). An epoch is charged when it begins.

    With `sampling` "examples" and a `unit` that owns several, N counts the examples that are kept,
    at most `unit_cap` of each unit; each is sampled and clipped by itself, and σ hides all of a
    unit's (example-level sampling, arXiv 2407.07737).

    With `phases` the run changes its batch and its noise after steps that are fixed beforehand;
    `at` gives the plan of a step's phase. The plan's own `expected_batch_size` and
    `noise_multiplier` are its first phase's, and its `steps` those of all phases; what depends on
    batch and noise otherwise is refused, and is asked of `at(step)`.

    Args:
        dataset_size: N, the number of training examples; treated as public.
        expected_batch_size: qN, the mean size of a logical batch; the public denominator. Allocated
            batches have N / E units on average, which is at most that.
        steps: T, the number of logical steps, each of which is charged.
        noise_multiplier: σ, the standard deviation of the noise on the sum divided by C.
        max_grad_norm: C, the clipping norm.
        target_delta: δ at which ε is stated, below 1/N.
        target_epsilon: the ε that σ was calibrated for, if it was.
        clipping: "flat" scales by min(1, C/norm); "per-layer" does so for each of K parameters
            with C/√K (arXiv 2212.01539); "automatic" scales by C/(norm + 0.01)
            (arXiv 2206.07136); "adaptive" is flat with a C that follows a quantile of the norms
            (arXiv 1905.03871). Each bounds a unit's share of the sum by C.
        target_quantile: for "adaptive", the share of units whose norms should lie below C.
        quantile_learning_rate: for "adaptive", how fast C follows: C ← C·exp(−η(b̃ − γ)).
        count_noise_multiplier: for "adaptive", σ_b, the standard deviation of the noise on the
            count of units below C; by default expected_batch_size / 20, but at least σ.
        noise: "gaussian", or "discrete_gaussian": clipped gradients are rounded to whole multiples
            of C/2²⁶ and summed exactly, and the noise is drawn exactly, so that no floating-point
            rounding betrays what it should hide (arXiv 2004.00010, 2107.10138). The same ε.
        unit: the privacy unit in words: what one row of the dataset stands for.
        adjacency: the neighbouring relation under which the guarantee is stated.
        sampling: "poisson", or "cyclic-poisson" where the noise is correlated, or "allocated", or
            "examples".
        unit_cap: k, the most examples of one unit: in a step, drawn anew for each, where units are
            sampled; in the run where "examples" are. By default all.
        noise_coefficients: the first column of C, c_0 > 0 and Σ c² ≤ 1; (1,) is independent noise.
        phases: what changes during the run, in order: Poisson samples under independent noise. By
            default nothing does.
        allow_no_privacy: must be set for σ = 0, which promises nothing.

    Raises:
        ValueError: a field is out of range; the message shows the value and the remedy.

    >>> plan = PrivacyPlan(dataset_size=1000, expected_batch_size=10, steps=5,
    ...                    noise_multiplier=1.0, max_grad_norm=1.0, target_delta=1e-5)
    >>> plan.sampling_probability
    0.01
    """

    dataset_size: int
    expected_batch_size: int
    steps: int
    noise_multiplier: float
    max_grad_norm: float
    target_delta: float
    target_epsilon: float | None = None
    clipping: Clipping = "flat"
    target_quantile: float = 0.5
    quantile_learning_rate: float = 0.2
    count_noise_multiplier: float | None = None
    noise: Noise = "gaussian"
    unit: str = "example"
    adjacency: Adjacency = Adjacency.ADD_OR_REMOVE
    sampling: Sampling = "poisson"
    unit_cap: int | None = None
    noise_coefficients: tuple[float, ...] = INDEPENDENT
    phases: tuple[Phase, ...] = ()
    allow_no_privacy: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "adjacency", Adjacency(self.adjacency))
        require_coefficients(self.noise_coefficients)
        object.__setattr__(self, "noise_coefficients", tuple(map(float, self.noise_coefficients)))
        object.__setattr__(self, "phases", phases_of(plan=vars(self)))
        for each in self.each_phase:
            require_plan(each)

    @classmethod
    def calibrate(
        cls,
        *,
        dataset_size: int,
        expected_batch_size: int,
        target_epsilon: float,
        target_delta: float,
        max_grad_norm: float,
        epochs: float | None = None,
        steps: int | None = None,
        clipping: Clipping = "flat",
        noise: Noise = "gaussian",
        unit: str = "example",
        adjacency: Adjacency = Adjacency.ADD_OR_REMOVE,
        sampling: Drawing = "poisson",
        unit_cap: int | None = None,
        correlation: Correlation = "none",
        bands: int | None = None,
        workload: Workload | None = None,
    ) -> Self:
        """The plan with the least noise that keeps ε ≤ target_epsilon at target_delta.

        Give either `epochs` (steps = ⌈epochs · N / expected_batch_size⌉, or as many of ⌈N /
        expected_batch_size⌉ steps each where they are allocated) or `steps`. With
        `correlation` "banded", the noise is least in what the run makes of it, its `workload`: of
        so many `bands`, or the best number of them, which may be one.

        >>> plan = PrivacyPlan.calibrate(
        ...     dataset_size=67349, expected_batch_size=256, epochs=3,
        ...     target_epsilon=8.0, target_delta=1e-5, max_grad_norm=1.0)
        >>> plan.steps, round(plan.noise_multiplier, 3)
        (790, 0.464)
        >>> plan.guarantee().epsilon <= 8.0
        True
        """
        asked: dict[str, Any] = {
            "dataset_size": dataset_size,
            "batch_size": expected_batch_size,
            "epochs": epochs,
            "steps": steps,
            "epsilon": target_epsilon,
            "delta": target_delta,
            "adjacency": adjacency,
            "unit": unit,
        }
        require_one_of(Drawing, sampling=sampling)
        require_one_of(Correlation, correlation=correlation)
        require_one_way(sampling=sampling, correlation=correlation)
        require(
            correlation == "banded" or (bands is None and workload is None),
            "bands and workload are for correlated noise: set correlation='banded'",
        )
        coefficients: tuple[float, ...] = INDEPENDENT
        if correlation == "banded":
            found = calibrate_banded_noise(**asked, bands=bands, workload=workload)
            calibration, coefficients = found.calibration, found.coefficients
        elif sampling == "allocated":
            calibration = calibrate_allocated_noise(**asked)
        elif sampling == "examples":
            calibration = _for_examples(asked, unit_cap)
        else:
            calibration = calibrate_noise(**asked)
        return cls(
            dataset_size=dataset_size,
            expected_batch_size=expected_batch_size,
            steps=calibration.steps,
            noise_multiplier=calibration.noise_multiplier,
            max_grad_norm=max_grad_norm,
            target_delta=target_delta,
            target_epsilon=target_epsilon,
            clipping=clipping,
            noise=noise,
            unit=unit,
            adjacency=adjacency,
            sampling=sampling if len(coefficients) == 1 else "cyclic-poisson",
            unit_cap=unit_cap,
            noise_coefficients=coefficients,
        )

    def at(self, step: int) -> Self:
        """The plan of the phase that a step is in: of its steps, batch and noise; without phases,
        this plan.

        Beyond the end, the last phase's.
        """
        return self._alone(phase_at(self.phases, step=step)) if self.phases else self

    @property
    def each_phase(self) -> tuple[Self, ...]:
        """The plan of each phase, in order; without phases, this plan alone."""
        return tuple(self._alone(phase) for phase in self.phases) or (self,)

    def _alone(self, phase: Phase) -> Self:
        return replace(self, phases=(), target_epsilon=None, **asdict(phase))

    def _require_one_phase(self, name: str) -> None:
        require(
            not self.phases,
            f"{name} is another in each of the plan's {len(self.phases)} phases; ask plan.at(step)",
        )

    @property
    def sampling_probability(self) -> float:
        """The chance with which each example is in a logical step: q, or 1/E where allocated.

        Raises:
            ValueError: it changes from phase to phase.
        """
        self._require_one_phase("sampling_probability")
        if isinstance(self.participation, EpochAllocation):
            return self.participation.probability
        return self.expected_batch_size / self.dataset_size

    @property
    def bands(self) -> int:
        """b: the noise of so many steps is correlated, and units are drawn in as many groups."""
        return len(self.noise_coefficients)

    @property
    def noise_in_words(self) -> str:
        """σ, and over how many steps the noise is correlated, if over more than one.

        >>> PrivacyPlan(dataset_size=100, expected_batch_size=10, steps=5, noise_multiplier=1.5,
        ...             max_grad_norm=1.0, target_delta=1e-3).noise_in_words
        '1.5'
        """
        if self.phases:
            return ", then ".join(each.noise_in_words for each in self.each_phase)
        correlated = f", correlated over {self.bands} steps" if self.bands > 1 else ""
        return f"{self.noise_multiplier:g}{correlated}"

    @property
    def batch_in_words(self) -> str:
        """The expected batch size, phase by phase."""
        return ", then ".join(str(each.expected_batch_size) for each in self.each_phase)

    @property
    def count_noise(self) -> float:
        """σ_b, for adaptive clipping: the standard deviation of the noise on the count below C.

        Raises:
            ValueError: it changes from phase to phase.
        """
        self._require_one_phase("count_noise")
        default = max(self.expected_batch_size / 20, self.noise_multiplier, 1.0)
        return default if self.count_noise_multiplier is None else self.count_noise_multiplier

    @property
    def gradient_noise_multiplier(self) -> float:
        """The noise on each element of the clipped sum, divided by C.

        σ, but for adaptive clipping: there the sum (sensitivity C) and the count (sensitivity ½)
        are released together, which is one Gaussian mechanism of multiplier σ when the sum gets
        (σ⁻² − (2σ_b)⁻²)^(−½) (arXiv 1905.03871, theorem 1).

        Raises:
            ValueError: it changes from phase to phase.
        """
        self._require_one_phase("gradient_noise_multiplier")
        if self.clipping != "adaptive":
            return self.noise_multiplier
        return sum_noise_multiplier(
            joint_noise_multiplier=self.noise_multiplier, count_noise=self.count_noise
        )

    @property
    def participation(self) -> AnyParticipation:
        """Who joins which step, and what steps cost.

        Discrete noise hides what Gaussian noise of σ hides; see
        [`whole_scale`][dpacc.step.integer_sum.whole_scale].
        """
        return participation_of(plan=vars(self))

    def event(self, *, steps: int | None = None) -> Event:
        """What the first `steps` logical steps release, by default all of them."""
        return self.participation.event(steps=self.steps if steps is None else steps)

    def charge(self, step: int) -> Event:
        """What is owed when a logical step begins."""
        return self.participation.charge(step=step, steps=self.steps)

    def next_start(self, *, steps_charged: int) -> int:
        """The step at which a new process may go on: that of the next cycle, or the run's end."""
        start = self.participation.next_start(steps_charged=steps_charged)
        return min(start, max(steps_charged, self.steps))

    def guarantee(self, *, steps: int | None = None, delta: float | None = None) -> Guarantee:
        """(ε, δ) after `steps` logical steps, by default after all of them, at the plan's δ."""
        return epsilon(
            event=self.event(steps=steps),
            delta=self.target_delta if delta is None else delta,
            adjacency=self.adjacency,
            unit=self.unit,
        )

    def to_json(self) -> dict[str, Any]:
        """The plan as plain JSON data; `from_json` reads it back."""
        document = asdict(self) | {"adjacency": str(self.adjacency)}
        coefficients, cap = document.pop("noise_coefficients"), document.pop("unit_cap")
        phases = document.pop("phases")
        # Left out where they say nothing new, so that earlier plans and ledgers stay as they are.
        return (
            document
            | ({} if self.bands == 1 else {"noise_coefficients": [*coefficients]})
            | ({} if cap is None else {"unit_cap": cap})
            | ({"phases": [*phases]} if phases else {})
        )

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote; unknown keys are refused by name."""
        unknown = sorted(set(document) - {field.name for field in fields(cls)})
        require(not unknown, f"unknown keys in the plan: {', '.join(unknown)}")
        return cls(**document)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 over the plan, by which ranks check that they agree."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def _for_examples(asked: Mapping[str, Any], unit_cap: int | None) -> Calibration:
    """The noise for units whose examples are sampled; neighbours differ in a whole unit."""
    require_sampling(sampling="examples", bands=1, adjacency=asked["adjacency"], unit_cap=unit_cap)
    told = {name: asked[name] for name in asked if name not in ("dataset_size", "adjacency")}
    return calibrate_example_sampling(
        examples=asked["dataset_size"], unit_cap=cast(int, unit_cap), **told
    )
