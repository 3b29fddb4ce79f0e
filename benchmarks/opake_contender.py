"""Opake's run on the same top layers, by its functional interface; needs Python 3.13.

Its clipping, noise, samplers and accountant, as its documentation shows them; the optimizer is the
other tools'. With `bands` in a run's plan its noise is correlated (band-MF), and its samples are
cyclic Poisson.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from cached_states import CachedTexts, Row
from torch import Tensor, nn

PHYSICAL_BATCH = 64


class _Loss(nn.Module):
    """The loss of one example, as a function of the parameters that torch.func replaces."""

    def __init__(self, model: nn.Module, texts: CachedTexts, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self._texts, self._names = model, texts, names

    def forward(self, *one: Tensor) -> Tensor:
        batch = {name: each.unsqueeze(0) for name, each in zip(self._names, one, strict=True)}
        return self._texts.losses(self.model, batch).sum()


def learn(
    *,
    model: nn.Module,
    texts: CachedTexts,
    rows: list[Row],
    optimizer: torch.optim.Optimizer,
    steps: int,
    batch: int,
    epsilon: float | None,
    delta: float,
    max_grad_norm: float,
    bands: int,
    seed: int,
    after_step: Callable[[int], None],
) -> float:
    """Train the adapters of `model`; return the noise multiplier.

    Args:
        model: with adapters.
        texts: whose rows are learned.
        rows: some of them.
        optimizer: of the adapters' parameters.
        steps: how many.
        batch: expected, in a step.
        epsilon: what the noise is calibrated for; none means no noise.
        delta: at which.
        max_grad_norm: C.
        bands: of the noise; 1 is independent noise.
        seed: of samples and noise.
        after_step: is told how many steps were taken.
    """
    import opake.random
    from opake.dpsgd.clipping import clipped_grad
    from opake.patches import apply_model_patches, apply_runtime_patches

    apply_runtime_patches()
    apply_model_patches(model)
    names = tuple(texts.collate(rows[:1]))
    loss = _Loss(model, texts, names)
    learned = {name: p for name, p in loss.named_parameters() if p.requires_grad}

    def of_one(parameters: dict[str, Tensor], *one: Tensor) -> Tensor:
        value: Tensor = torch.func.functional_call(loss, parameters, one)
        return value

    gradient, clip_state = clipped_grad(
        of_one,
        clipping_norm=max_grad_norm,
        batch_argnums=tuple(range(1, len(names) + 1)),
        normalize_by=float(batch),
        microbatch_size=PHYSICAL_BATCH,
    )
    rate = batch / len(rows)
    noise = 0.0 if epsilon is None else calibrated(epsilon, delta, rate, steps, bands)
    draw, samples = opake.random.key(seed), opake.random.key(seed + 1)
    template = {name: torch.zeros_like(p) for name, p in learned.items()}
    noised, noise_state = _noise(template, noise, steps, bands, draw)
    for taken, places in enumerate(_batches(rows, rate, steps, bands, samples), start=1):
        given = texts.collate([rows[at] for at in places])
        parameters = {name: p.detach() for name, p in learned.items()}
        clipped, clip_state = gradient(parameters, *given.values(), state=clip_state)
        released, noise_state = noised(clipped, noise_state)
        for name, parameter in learned.items():
            parameter.grad = released.pytree[name].detach().clone()
        optimizer.step()
        after_step(taken)
    return noise


@functools.cache
def calibrated(epsilon: float, delta: float, rate: float, steps: int, bands: int) -> float:
    """σ by Opake's accountant, found once for all rates and seeds: it takes as long as a run."""
    import opake.accounting as acc
    import opake.dpftrl.accounting as ftrl
    import opake.dpsgd.accounting as sgd
    from opake.dpftrl.noise import band_mf_strategy

    def process(noise: float) -> Any:
        if bands == 1:
            return sgd.poisson(sgd.gaussian(noise), sample_rate=rate) * steps
        mechanism = ftrl.mf_gaussian(noise, band_mf_strategy(bands=bands))
        return ftrl.poisson(mechanism, sample_rate=min(1.0, rate * bands), n_steps=steps)

    budget = acc.epsilon_budget(epsilon, delta=delta)
    return float(acc.calibrate(budget, process, param_min=0.2, param_max=50.0).param)


def _noise(
    template: dict[str, Tensor], noise: float, steps: int, bands: int, key: Any
) -> tuple[Callable[..., Any], Any]:
    from opake.dpftrl.noise import band_mf_strategy, mf_gaussian_noise
    from opake.dpsgd.noise import gaussian_noise

    if bands == 1:
        independent: tuple[Callable[..., Any], Any] = gaussian_noise(
            noise_multiplier=noise, key=key
        )
        return independent
    correlated: tuple[Callable[..., Any], Any] = mf_gaussian_noise(
        template,
        band_mf_strategy(bands=bands),
        n_steps=steps,
        min_sep=bands,
        max_participations=-(-steps // bands),
        noise_multiplier=noise,
        key=key,
    )
    return correlated


def _batches(rows: list[Row], rate: float, steps: int, bands: int, key: Any) -> Iterator[list[int]]:
    from opake.dpftrl.sampling import CyclicPoissonSampler
    from opake.dpsgd.sampling import PoissonSampler

    if bands == 1:
        yield from PoissonSampler(rows, sample_rate=rate, n_steps=steps, key=key)
    else:
        share = min(1.0, rate * bands)
        yield from CyclicPoissonSampler(
            rows, sample_rate=share, bands=bands, n_steps=steps, key=key
        )
