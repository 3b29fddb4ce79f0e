"""Give a round up that broke what its server measures on public examples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from dpacc.errors import ConfigurationError
from dpacc.federated.setting_limits import require_kind, require_positive


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """When the adapter before a round is kept in place of what the round made of it.

    The round happened all the same: every client's steps are spent, and counted. What is compared
    is public, so the choice is post-processing. A decline in steps that are each tolerated goes
    unnoticed: a round is compared with the one before it.

    Args:
        tolerated_drop: by how much quality may fall in one round.
        figure: which of the measured figures it is; by default the mean of all.
        smaller_is_better: whether the figure is one of loss.

    Raises:
        ConfigurationError: a number or a name that is none.

    >>> Rollback(tolerated_drop=0.05).refusal(before={"films": 0.8}, after={"films": 0.7})
    'mean quality fell from 0.8 to 0.7, by more than 0.05'
    """

    tolerated_drop: float
    figure: str | None = None
    smaller_is_better: bool = False

    def __post_init__(self) -> None:
        require_positive("tolerated_drop", self.tolerated_drop)
        require_kind("figure", self.figure, str)
        require_kind("smaller_is_better", self.smaller_is_better, bool)

    def require_measured(self, quality: Mapping[str, float]) -> None:
        """See that what the server measures is what is to be compared.

        Raises:
            ConfigurationError: it is not.
        """
        if not quality or (self.figure is not None and self.figure not in quality):
            wanted = self.figure or "anything"
            raise ConfigurationError(
                f"rollback compares {wanted}, and measure returns {', '.join(quality) or 'nothing'}"
            )

    def refusal(self, *, before: Mapping[str, float], after: Mapping[str, float]) -> str:
        """Why a round is given up; nothing where it is not.

        Args:
            before: what was measured of the adapter that the round began with.
            after: what was measured of the one that it ended with.
        """
        old, new = self._quality(before), self._quality(after)
        name = self.figure or "mean quality"
        if not math.isfinite(new):
            return f"{name} is {new:g}"
        drop = new - old if self.smaller_is_better else old - new
        if drop > self.tolerated_drop:
            turned = "rose" if self.smaller_is_better else "fell"
            return (
                f"{name} {turned} from {old:.4g} to {new:.4g}, by more than {self.tolerated_drop:g}"
            )
        return ""

    def _quality(self, measured: Mapping[str, float]) -> float:
        if self.figure is not None:
            return measured.get(self.figure, math.nan)
        return sum(measured.values()) / len(measured) if measured else math.nan
