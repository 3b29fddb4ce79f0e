"""What the coupling probe concludes from how a watched gradient changed, and whom it blames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.ranks.backends.held_parameters import parameters
from dpacc.step.admission.collation import padding_of, words_in_padding

_EXACT = 1e-6
_TOLERANCE = 1e-4
_OTHER_WIDTHS = 1e-3
_IN_HALF_PRECISION = 1e-2
_OTHER_WIDTHS_IN_HALF_PRECISION = 0.1
_ALL_ROWS_TOGETHER = 0.05
_PIECE = 2**20
_LEAST = {"cpu": 1e-3, "else": 1e-1}
"""Of what rounding may do at equal shapes; blocks of a GPU add up in whatever order they finish."""


@dataclass(kw_only=True)
class Changes:
    """By which share of its norm the watched gradient changed, from one micro-batch to another.

    Attributes:
        among: alone, and among longer ones.
        others: among some, and among others.
        same_shapes: whether those two batches had the same shapes.
        unlike_labels: whether unlike numbers of their labels are learned.
        alike: among some, and among others with as much to learn, where those before had not.
        leaked: what of the watched example's loss reached the gradients of its neighbours.
        padded: among the same ones, with other words where the batch is padded.
        beyond: alone, and beside a row of a length at which the model may behave otherwise.
        again: alone, first and last.
        compiled: alone, without compiled blocks and with them.
    """

    among: float = 0.0
    others: float = 0.0
    same_shapes: bool = True
    unlike_labels: bool = False
    alike: float | None = None
    leaked: float = 0.0
    padded: float = 0.0
    beyond: float = 0.0
    again: float = 0.0
    compiled: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What of a batch and a model explains that padding is read.

    Attributes:
        padded_on_the_left: whether a row's own tokens come after its padding.
        padding_words: the token ids that stand where the batch is padded.
        padding_word: the one that the model takes for padding.
    """

    padded_on_the_left: bool
    padding_words: frozenset[int]
    padding_word: int | None

    @classmethod
    def of(cls, model: nn.Module, batch: Any) -> Surroundings:
        """Those of a micro-batch with a short example in its first row."""
        padding = padding_of(batch)
        return cls(
            padded_on_the_left=padding is not None and bool(padding[:, 0].any()),
            padding_words=frozenset(words_in_padding(batch)),
            padding_word=getattr(getattr(model, "config", None), "pad_token_id", None),
        )

    @property
    def remedy(self) -> str:
        """Why the model reads padding, and what to do about it."""
        if self.padded_on_the_left:
            return (
                "rows are padded on the left, so that an example's positions follow the longest "
                "beside it; pad on the right (tokenizer.padding_side = 'right')"
            )
        strangers = self.padding_words - {self.padding_word}
        if strangers:
            word = min(strangers)
            return (
                f"rows are padded with token {word}, which model.config.pad_token_id="
                f"{self.padding_word} does not say, so the model takes padding for text; set "
                f"model.config.pad_token_id = {word}"
            )
        return ""


class Verdict:
    """Measures changes, and refuses to train when one is more than rounding.

    At equal shapes a row is rounded alike whoever lies beside it, so little is allowed there, and
    the less the more rows one row can touch: what it does to all of them adds up. Among longer
    rows, or such as have more to learn, sums are taken in another order, for which 16 bits need
    room: a few numbers that fall to the other side changed a gradient of 32 layers by 2%.

    Args:
        model: its dtypes set how closely gradients must agree.
        rounds: whether gradients were computed in 16 bits, as under autocast.
        most_rows: how many rows one micro-batch can hold.
    """

    def __init__(
        self, *, model: nn.Module, rounds: Callable[[], bool] = lambda: False, most_rows: int = 1
    ) -> None:
        self._model = model
        self._rounds = rounds
        self._most_rows = max(1, most_rows)

    def conclude(self, norm: float, changes: Changes, around: Surroundings) -> None:
        """Refuse to train, in the words of the likeliest culprit.

        Args:
            norm: of the watched gradient.
            changes: of it.
            around: what explains that padding is read.

        Raises:
            PrivacyError: an example's gradient is not its own, or shows nothing.
        """
        if not 0 < norm < float("inf"):
            raise PrivacyError(
                f"the coupling probe saw a gradient of norm {norm} on a made-up example, which "
                "shows nothing; pass probe_examples=[...] that the model can learn from"
            )
        if not changes.compiled <= self.other_shapes:
            raise PrivacyError(
                f"a made-up example's gradient changed by {changes.compiled:.1%} once blocks were "
                "compiled, so the compiler does not keep what the model computes; set "
                "compile='none'"
            )
        if not changes.again <= self.same_shapes:
            raise PrivacyError(
                f"a made-up example's gradient changed by {changes.again:.1%} from one forward to "
                "the next: the model draws at random or keeps a state that no rate named dropout "
                "turns off; take that out"
            )
        if changes.alike is not None and not changes.alike <= self.same_shapes:
            raise PrivacyError(_coupled(changes.alike))
        is_equal = changes.same_shapes and changes.alike is None
        unequal = self.same_shapes if is_equal else self.other_shapes
        if not changes.others <= unequal:
            unlike = is_equal and self.is_rounded and changes.unlike_labels
            raise PrivacyError(_coupled(changes.others) + (_UNLIKE if unlike else ""))
        if not changes.leaked <= _EXACT:
            raise PrivacyError(
                "an example's loss has a gradient through the examples beside it (of "
                f"{changes.leaked:.2g} of its own), so clipping cannot bound its influence; {_OWN}"
            )
        if not changes.padded <= self.padding:
            raise PrivacyError(self._reads_padding(changes.padded, around))
        if not changes.among <= self.other_shapes:
            if around.remedy:
                raise PrivacyError(self._reads_padding(changes.among, around))
            raise PrivacyError(_coupled(changes.among))
        if not changes.beyond <= self.other_shapes:
            raise PrivacyError(
                f"an example's gradient changed by {changes.beyond:.1%} beside one that is longer "
                "than a length at which the model's configuration changes its behaviour; train on "
                "examples up to that length, or choose another base"
            )

    def _reads_padding(self, change: float, around: Surroundings) -> str:
        because = around.remedy or (
            "a layer reads beyond the attention mask, as a convolution over tokens does; choose "
            "another base, or micro-batches of one example"
        )
        return (
            f"an example's gradient changed by {change:.2%} with its padding, and so with the "
            f"examples beside it, whose lengths decide it: {because}"
        )

    @property
    def same_shapes(self) -> float:
        """The largest change that rounding may make between batches of one shape."""
        return _IN_HALF_PRECISION if self.is_rounded else _TOLERANCE

    @property
    def other_shapes(self) -> float:
        """The same where the watched example is padded otherwise."""
        return _OTHER_WIDTHS_IN_HALF_PRECISION if self.is_rounded else _OTHER_WIDTHS

    @property
    def padding(self) -> float:
        """The same for words that nothing should read: all rows together move by little of C."""
        least = self.same_shapes * _LEAST["cpu" if self._is_on_processor else "else"]
        return min(self.same_shapes, max(least, _ALL_ROWS_TOGETHER / self._most_rows))

    @cached_property
    def _is_on_processor(self) -> bool:
        return all(p.device.type == "cpu" for p in parameters(self._model))

    @property
    def is_rounded(self) -> bool:
        """Whether gradients are of 16 bits somewhere, by the last backward."""
        if not self._is_on_processor and torch.get_float32_matmul_precision() != "highest":
            return True
        computed_in = [getattr(module, "compute_dtype", None) for module in self._model.modules()]
        held_in = [p.dtype for p in parameters(self._model)]
        return self._rounds() or any(_is_coarse(dtype) for dtype in (*held_in, *computed_in))


_OWN = (
    "make each loss depend on its own example only (no mean over the batch or its tokens, no "
    "balance loss)"
)


_UNLIKE = (
    ". In 16 bits it may be rounding instead, for unlike numbers of their labels are learned: "
    "leave probe_examples out, or let its third and fourth have as many"
)


def _coupled(change: float) -> str:
    return (
        f"an example's gradient changed by {change:.1%} with the examples beside it, so clipping "
        f"cannot bound its influence; {_OWN}"
    )


def _is_coarse(dtype: Any) -> bool:
    """16 bits or fewer; 4-bit weights lie in bytes and are computed with in another type."""
    return dtype in (torch.float16, torch.bfloat16, torch.int8)


def change_of(before: Tensor, after: Tensor) -> float:
    """‖after − before‖ / ‖before‖, piece by piece: no third gradient is made.

    >>> change_of(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    0.10000000149011612
    """
    starts = range(0, len(before), _PIECE)
    moved = [(after[at : at + _PIECE] - before[at : at + _PIECE]).norm() for at in starts]
    return float(torch.stack(moved).norm() / before.norm())
