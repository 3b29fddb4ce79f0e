"""What a private Trainer is told about privacy, beside transformers' own arguments."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from dpacc.data.privacy_units import count_units
from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.layers.blocks import Compile
from dpacc.layers.kernels.choice import Kernels
from dpacc.layers.lora_methods import Method
from dpacc.plan import Clipping, Correlation, Drawing, Noise, PrivacyPlan
from dpacc.step.averaging import require_share
from dpacc.step.strategies import PerExampleGradients


@dataclass(kw_only=True)
class PrivacyArguments:
    """The privacy of a [`PrivateTrainer`][dpacc.trainer.private_trainer.PrivateTrainer].

    Fields are plain, so `HfArgumentParser((TrainingArguments, PrivacyArguments))` reads them from
    a command line or a file.

    Args:
        target_delta: δ at which ε is stated.
        target_epsilon: ε after all steps, by the least noise that keeps it; or give
            `noise_multiplier`.
        noise_multiplier: σ, the standard deviation of the noise on the sum divided by C.
        max_grad_norm: C, the clipping norm of one example's gradient.
        clipping: see [`PrivacyPlan`][dpacc.plan.PrivacyPlan].
        noise: likewise.
        sampling: likewise; "allocated" takes each example once an epoch, with less noise, and
            "examples" draws the examples of `units` one by one.
        unit_cap: the most examples of one unit, in a step, or in the run for "examples".
        correlation: likewise; "banded" takes back in later steps what earlier ones added, and needs
            `target_epsilon`.
        bands: of how many steps; left out, the best number for momentum 0.9.
        method: "lora" trains both matrices of each adapter; "ffa" freezes A.
        average_iterates: share of the steps, the last ones, whose adapters are averaged after the
            last of them; free of privacy, and best under a constant learning rate. 0 keeps the
            last adapter, as does a run that stops early.
        unit: what the privacy unit is called, where the trainer is given `units`.
        ledger: its file; by default `ledger.jsonl` in the output folder.
        budget: the file of the data set's budget, if it has one: the whole plan is reserved of it
            before the first step, or the run is refused.
        per_example_gradients: see [`dpacc.step.engine.PrivacyEngine`][]. No effect on the result.
        kernels: likewise.
        compile: likewise.
        eval_data_is_public: that the evaluation data is no part of what is protected; needed
            where its metrics steer the training.
        allow_eval_overlap: evaluate on data that holds private training examples, too, of which
            metrics then tell without noise; noted in the ledger and the statement.
        log_non_private_metrics: log the training loss, which is computed without noise; noted in
            the ledger and the statement.
        fixed_seed: makes sampling and noise predictable, for tests; such a run is not private.
    """

    target_delta: float
    target_epsilon: float | None = None
    noise_multiplier: float | None = None
    max_grad_norm: float = 1.0
    clipping: Clipping = "flat"
    noise: Noise = "gaussian"
    sampling: Drawing = "poisson"
    unit_cap: int | None = None
    correlation: Correlation = "none"
    bands: int | None = None
    method: Method = "lora"
    average_iterates: float = 0.0
    unit: str = "example"
    ledger: str | None = None
    budget: str | None = None
    per_example_gradients: PerExampleGradients = "auto"
    kernels: Kernels = "torch"
    compile: Compile = "none"
    eval_data_is_public: bool = False
    allow_eval_overlap: bool = False
    log_non_private_metrics: bool = False
    fixed_seed: int | None = None

    def dataset_size(self, *, examples: int, units: Sequence[Hashable] | None) -> int:
        """N: units, or the examples that are kept of them, where examples are drawn.

        >>> arguments = PrivacyArguments(
        ...     target_delta=1e-5, noise_multiplier=1.0, sampling="examples", unit_cap=2)
        >>> arguments.dataset_size(examples=4, units=["ann", "bob", "ann", "ann"])
        3
        """
        kept = self.unit_cap if self.sampling == "examples" else None
        return count_units(examples=examples, units=units, kept_of_each=kept)

    def plan(self, *, dataset_size: int, expected_batch_size: int, steps: int) -> PrivacyPlan:
        """The plan of a run of that size.

        Raises:
            ConfigurationError: not exactly one of target_epsilon and noise_multiplier, or
                average_iterates is no share.
            ValueError: an argument is out of range.

        >>> arguments = PrivacyArguments(target_delta=1e-5, noise_multiplier=1.0)
        >>> arguments.plan(dataset_size=100, expected_batch_size=10, steps=5).sampling_probability
        0.1
        """
        require_share(self.average_iterates)
        if (self.target_epsilon is None) == (self.noise_multiplier is None):
            raise ConfigurationError(
                f"target_epsilon={self.target_epsilon} and noise_multiplier="
                f"{self.noise_multiplier}: give exactly one of them"
            )
        if self.noise_multiplier is not None:
            if self.correlation != "none" or self.bands is not None:
                raise ConfigurationError(
                    f"correlation={self.correlation} with noise_multiplier="
                    f"{self.noise_multiplier}: correlated noise is found for target_epsilon; "
                    "give that instead"
                )
            return PrivacyPlan(
                dataset_size=dataset_size,
                expected_batch_size=expected_batch_size,
                steps=steps,
                noise_multiplier=self.noise_multiplier,
                max_grad_norm=self.max_grad_norm,
                target_delta=self.target_delta,
                clipping=self.clipping,
                noise=self.noise,
                sampling=self.sampling,
                unit_cap=self.unit_cap,
                unit=self.unit,
            )
        assert self.target_epsilon is not None
        return PrivacyPlan.calibrate(
            dataset_size=dataset_size,
            expected_batch_size=expected_batch_size,
            steps=steps,
            target_epsilon=self.target_epsilon,
            target_delta=self.target_delta,
            max_grad_norm=self.max_grad_norm,
            clipping=self.clipping,
            noise=self.noise,
            sampling=self.sampling,
            unit_cap=self.unit_cap,
            correlation=self.correlation,
            bands=self.bands,
            unit=self.unit,
        )


PrivacyArguments.__init__ = names_what_is_unknown(of="PrivacyArguments")(  # type: ignore[method-assign]
    PrivacyArguments.__init__
)
