"""The only way anything leaves a logical step: reduce, charge, noise once, journal, update."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy.typing as npt
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.layers.dynamic_rank import DynamicRank
from dpacc.layers.kernels.choice import fused_on
from dpacc.layers.subspace import Subspace
from dpacc.plan import PrivacyPlan
from dpacc.randomness.correlated_noise import CorrelatedNoise
from dpacc.randomness.run_secret import RunSecret
from dpacc.ranks import collectives
from dpacc.ranks.backends import Backend
from dpacc.ranks.reduction import Reduction, reduction_for
from dpacc.step.accumulation import AdaptiveBound
from dpacc.step.checkpoint import JournalEntry
from dpacc.step.integer_sum import COUNT_POINTS, Grid, grid_noise

MOST_DRAWN_AHEAD = 1 << 24
"""Numbers of noise for which a processor's memory has room beside what a backward needs."""


class Release:
    """Turns the ranks' clipped sums into one private update.

    Args:
        accelerator: the launch's Accelerator.
        backend: hands the private gradient to the optimizer.
        plan: σ, C and the expected batch size.
        parameters: the trainable parameters, in the order of the sum's columns.
        secret: keys the noise.
        charge: writes a step's charge to the ledger, and returns on every rank once it is there;
            on the main process, the hash of its line.
        journal: keeps a step's private gradient until the next checkpoint; for the main process.
        reduction: how sums cross between ranks; by default in fp32.
        dynamic_rank: says which elements learn in which step, if not all do in each.
        subspace: within which a second phase is taken, if one is.
    """

    def __init__(
        self,
        *,
        accelerator: Accelerator,
        backend: Backend,
        plan: PrivacyPlan,
        parameters: Sequence[nn.Parameter],
        secret: RunSecret,
        charge: Callable[[int], str],
        journal: Callable[[JournalEntry], None] | None = None,
        reduction: Reduction | None = None,
        dynamic_rank: DynamicRank | None = None,
        subspace: Subspace | None = None,
    ) -> None:
        self._reduction = reduction or reduction_for(accelerator, "fp32")
        self._accelerator = accelerator
        self._backend = backend
        self._plan = plan
        self._parameters = parameters
        self._secret = secret
        self._charge = charge
        self._journal = journal
        self._dynamic_rank = dynamic_rank
        self._subspace = subspace
        self._correlated = CorrelatedNoise(secret=secret, coefficients=plan.noise_coefficients)
        self._elements = sum(p.numel() for p in parameters)
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")
        self._ahead: tuple[int, Future[npt.NDArray[Any]]] | None = None
        self._on_grid = plan.noise == "discrete_gaussian"
        # Rows of correlated noise are kept, and whole numbers decided, in the processor's memory.
        alone = plan.bands == 1 and not self._on_grid
        self._drawn_on_device = alone and fused_on(accelerator.device)
        self.bound = AdaptiveBound(plan)

    def begin(self, index: int) -> None:
        """Make ready for a step: what does not learn is put aside, and its noise is drawn ahead."""
        if self._dynamic_rank is not None:
            self._dynamic_rank.begin(index)
        if self._subspace is not None:
            self._subspace.begin(index)
        self.draw_ahead(index)

    def end(self) -> None:
        """Leave the adapters whole, also where a step did not end."""
        if self._dynamic_rank is not None:
            self._dynamic_rank.end()

    def draw_ahead(self, index: int) -> None:
        """Start drawing the noise of a step in the background, while its backward runs.

        On a processor only where it is little: else it is drawn when the backward is over.
        """
        on_processor = self._accelerator.device.type == "cpu"
        if self._drawn_on_device or (on_processor and self._count > MOST_DRAWN_AHEAD):
            return
        self._start_drawing(index)

    def _start_drawing(self, index: int) -> None:
        self._ahead = (index, self._worker.submit(self._draw, index))

    def __call__(self, index: int, clipped: Tensor) -> None:
        """Release step `index`, whose clipped sum on this rank is `clipped`.

        Raises:
            LedgerError: the charge could not be written; nothing was released.
        """
        self._require_only_learners(index, clipped)
        total = self._reduction.sum(clipped)
        line = self._charge(index)
        total += self._reduction.part(self._noise(index))
        total = self._reduction.whole(total)
        if self._on_grid:
            total = self._from_grid(total)
        plan = self._plan.at(index)
        if plan.clipping == "adaptive":
            self.bound.follow(float(total[-1]), expected_batch_size=plan.expected_batch_size)
        gradient = total[: self._width] / plan.expected_batch_size
        gradient = self._lifted(self._of_learners(index, gradient))
        if self._journal is not None:
            journal = self._journal
            entry = JournalEntry(step=index, gradient=gradient, bound=self.bound.value, charge=line)
            collectives.on_main_process(self._accelerator, lambda: journal(entry))
        self.end()
        if self._subspace is not None:
            self._subspace.follow(index, gradient)
        self._backend.update(self._parameters, gradient)

    @property
    def _width(self) -> int:
        """How many numbers a unit's gradient is in the sum: one an element, or k in a subspace."""
        if self._subspace is None or self._subspace.basis is None:
            return self._elements
        return self._subspace.rank

    def _lifted(self, gradient: Tensor) -> Tensor:
        """[elements]: what was released of a step, and nothing but that."""
        if self._subspace is None or self._subspace.basis is None:
            return gradient
        return self._subspace.lift(gradient)

    def _require_only_learners(self, index: int, clipped: Tensor) -> None:
        """What gets no noise must hold nothing."""
        if self._dynamic_rank is None:
            return
        rest = ~self._dynamic_rank.learns(index).to(clipped.device)
        if bool(clipped[: self._width][rest].any()):
            raise PrivacyError(
                "rows of the adapters beyond this step's rank have a gradient, and would be "
                "released without noise; choose lora_method=lora"
            )

    def _of_learners(self, index: int, gradient: Tensor) -> Tensor:
        if self._dynamic_rank is None:
            return gradient
        return torch.where(self._dynamic_rank.learns(index).to(gradient.device), gradient, 0.0)

    def _draw(self, index: int) -> npt.NDArray[Any]:
        threads = collectives.idle_cores(self._accelerator)
        if self._on_grid:
            return grid_noise(
                plan=self._plan.at(index),
                secret=self._secret,
                step=index,
                width=self._width,
                threads=threads,
            )
        count = self._count
        return self._correlated.row(step=index, count=count, threads=threads)

    @property
    def _count(self) -> int:
        """How many numbers are in the sum."""
        return self._width + (self._plan.clipping == "adaptive")

    def _noise(self, index: int) -> Tensor:
        """N(0, (σ_g·C)²) for every element of the sum, and N(0, σ_b²) for the count, if any.

        Where it is correlated, these are the scales of z, and C⁻¹z is what is added. Discrete noise
        has these variances in grid points.
        """
        noise = self._drawn(index)
        if self._on_grid:
            return noise
        plan = self._plan.at(index)
        noise[: self._width] *= plan.gradient_noise_multiplier * self.bound.value
        noise[self._width :] *= plan.count_noise
        return noise

    def _drawn(self, index: int) -> Tensor:
        device = self._accelerator.device
        if self._drawn_on_device:
            from dpacc.randomness.device_noise import normals_on

            return normals_on(device, secret=self._secret, step=index, count=self._count)
        if self._ahead is None or self._ahead[0] != index:
            self._start_drawing(index)
        assert self._ahead is not None
        drawn, self._ahead = self._ahead[1].result(), None
        return torch.from_numpy(drawn).to(device)

    def _from_grid(self, noised: Tensor) -> Tensor:
        """Noised whole numbers as the fp32 numbers they stand for."""
        numbers = noised.double()
        numbers[: self._width] *= Grid(max_grad_norm=self.bound.value).spacing
        numbers[self._width :] /= COUNT_POINTS
        return numbers.float()
