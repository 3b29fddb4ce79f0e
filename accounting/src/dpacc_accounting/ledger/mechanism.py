"""The mechanism in words: what each step does, and in which phases."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from dpacc_accounting.events.participation import phase_starts
from dpacc_accounting.ledger.plan_settings import SCALES, bands_of, participation_of, phases_of

PHASE_COLUMNS = ("steps", "batch B", "q = B/N", "σ")


class Stop(NamedTuple):
    """One thing that happens in each step, and what is to be known of it."""

    subject: str
    words: str


def each_step(*, plan: Mapping[str, Any]) -> tuple[Stop, ...]:
    """What happens in each step, in order: sampling, clipping, noise, update.

    Args:
        plan: the run's settings, all that a statement needs.

    >>> plan = {"dataset_size": 1000, "expected_batch_size": 100, "steps": 50, "max_grad_norm": 1.0,
    ...         "noise_multiplier": 1.0, "target_delta": 1e-5, "unit": "example",
    ...         "adjacency": "add-or-remove", "sampling": "poisson", "clipping": "flat"}
    >>> [stop.subject for stop in each_step(plan=plan)]
    ['Sampling', 'Clipping', 'Noise', 'Update']
    """
    drawn, whose = _summand(plan)
    return (
        Stop("Sampling", _sampling(plan)),
        Stop(
            "Clipping",
            f"Each drawn {drawn}'s {whose} is multiplied {SCALES[plan['clipping']]}, so that its "
            f"norm is at most C = {plan['max_grad_norm']}; one that is not finite counts as zero.",
        ),
        Stop("Noise", f"{_noise(plan)}{_grid(plan)}{_correlated(plan)}"),
        Stop(
            "Update",
            f"The noised sum is divided by the public expected batch size{_divisor(plan)}, and "
            "handed to the optimizer. Whatever is computed from it later, such as checkpoints and "
            "the final weights, is covered.",
        ),
    )


def phase_rows(*, plan: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Each phase's steps, B, q and σ, as the cells of a table; empty where there are none."""
    phases = phases_of(plan=plan)
    if not phases:
        return []
    return [
        (
            f"{start + 1}–{start + phase.steps}",
            f"{phase.expected_batch_size}",
            f"{phase.expected_batch_size / plan['dataset_size']:.6g}",
            f"{phase.noise_multiplier}",
        )
        for start, phase in zip(phase_starts(phases), phases, strict=True)
    ]


def _divisor(plan: Mapping[str, Any]) -> str:
    return " B of its phase" if phases_of(plan=plan) else f", {plan['expected_batch_size']}"


def _summand(plan: Mapping[str, Any]) -> tuple[str, str]:
    """What is drawn, and which gradient of it is clipped."""
    if plan["unit"] == "example" or plan["sampling"] == "examples":
        return "example", "own gradient"
    cap = plan.get("unit_cap")
    if cap is None:
        return plan["unit"], "mean gradient over its examples"
    return plan["unit"], f"mean gradient over at most {cap} of its examples, drawn for the step,"


def _sampling(plan: Mapping[str, Any]) -> str:
    size, batch, unit = plan["dataset_size"], plan["expected_batch_size"], plan["unit"]
    drawn = (
        "drawn by dpacc's own sampler from a secret key. Shuffled batches would not have this "
        "guarantee."
    )
    bands = bands_of(plan=plan)
    if plan["sampling"] == "examples":
        return (
            f"Of each {unit} at most {plan['unit_cap']} examples are kept, by a secret draw. Each "
            f"of the {size} that are takes part with probability {batch}/{size} = "
            f"{batch / size:.6g}, independently of the others and of other steps (Poisson sampling "
            f"of examples, arXiv 2407.07737), {drawn} ε is for all examples of a {unit} together."
        )
    if plan["sampling"] == "allocated":
        each = participation_of(plan=plan).cycle
        return (
            f"An epoch has {each} steps. Each of the {size} {unit}s is in exactly one of them, any "
            "with the same chance, independently of the others and of other epochs (random "
            f"allocation, arXiv 2412.16802 and 2502.08202), {drawn} The first step of an epoch is "
            "charged for all of it."
        )
    if phases_of(plan=plan):
        return (
            f"Each of the {size} {unit}s takes part with probability q of the step's phase, "
            f"independently of the others and of other steps (Poisson sampling), {drawn}"
        )
    if bands == 1:
        return (
            f"Each of the {size} {unit}s takes part with probability {batch}/{size} = "
            f"{batch / size:.6g}, independently of the others and of other steps (Poisson "
            f"sampling), {drawn}"
        )
    return (
        f"Each of the {size} {unit}s is in one of {bands} groups by a coin of its own. The groups "
        f"take turns, a step each; those of the group whose turn it is take part with probability "
        f"{bands}·{batch}/{size} = {bands * batch / size:.6g}, independently of the others and of "
        f"other steps (cyclic Poisson sampling, arXiv 2306.08153), {drawn} ε is that of the group "
        "with the most turns, and holds even if the groups were known."
    )


def _noise(plan: Mapping[str, Any]) -> str:
    sigma, norm = plan["noise_multiplier"], plan["max_grad_norm"]
    phased = bool(phases_of(plan=plan))
    if plan["clipping"] == "adaptive":
        multiplier = "σ of the step's phase" if phased else f"σ = {sigma}"
        return (
            f"C = {norm} is where the clipping norm starts; it then follows a quantile of the "
            "norms by noised counts (arXiv 1905.03871). Gaussian noise is added once to every "
            "coordinate of the sum of the clipped gradients, and once to the count, so that both "
            f"together are one Gaussian mechanism of noise multiplier {multiplier}."
        )
    deviation = (
        f"σ·C, with σ of the step's phase and C = {norm},"
        if phased
        else f"σ·C = {sigma} · {norm} = {sigma * norm:.6g}"
    )
    return (
        f"Gaussian noise of standard deviation {deviation} is added once to every coordinate of "
        "the sum of the clipped gradients."
    )


def _grid(plan: Mapping[str, Any]) -> str:
    if plan.get("noise", "gaussian") == "gaussian":
        return ""
    return (
        " The noise is discrete: each clipped gradient is rounded to whole multiples of C / 2^26, "
        "the sum is exact, and integers are drawn exactly from the discrete Gaussian distribution "
        "(arXiv 2004.00010), with as much more noise as the rounding may cost. It hides what the "
        "Gaussian mechanism hides, by which it is priced, and neither sum nor noise leaves a "
        "floating-point trace (arXiv 2107.10138)."
    )


def _correlated(plan: Mapping[str, Any]) -> str:
    bands = bands_of(plan=plan)
    if bands == 1:
        return ""
    column = ", ".join(f"{c:g}" for c in plan["noise_coefficients"])
    return (
        " That is the standard deviation of z, from which the noise is made: the rows of M⁻¹z are "
        f"added, so that later steps take back a part of what {bands - 1} earlier ones added. M is "
        f"the lower triangular Toeplitz matrix whose first column is {column}, of norm at most 1. "
        f"What one {plan['unit']} adds in a turn has left M's rows before its next turn begins."
    )
