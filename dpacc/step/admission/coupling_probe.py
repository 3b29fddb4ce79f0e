"""The coupling probe: does an example's gradient depend on its neighbours?

Clipping bounds an example's share of the sum only if its gradient is its own. A loss averaged
over the batch, a balance term, or a layer that mixes rows breaks that silently. Before the first
logical step the user's own collate function, forward and loss run on a few made-up micro-batches,
through which one example's gradient must stay the same. Nothing private is read but the names,
types and shapes of the dataset's fields.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dpacc.errors import PrivacyError
from dpacc.layers.gradient_buffer import FirstGradient
from dpacc.randomness.run_secret import RunSecret
from dpacc.randomness.stray_draws import is_compiled
from dpacc.step.admission.collation import (
    Collate,
    KeyedCollation,
    RehearsedCollation,
    first_alone,
    learned_in,
    padding_of,
    shapes_of,
)
from dpacc.step.admission.invented_examples import examples_for_probe, word_embeddings
from dpacc.step.admission.invented_references import is_referenced, with_invented_references
from dpacc.step.admission.probe_verdict import Changes, Surroundings, Verdict, change_of
from dpacc.step.admission.steady_buffers import SteadyBuffers


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """One made-up micro-batch: what the loop gets, how many examples it holds, where losses go."""

    batch: Any
    examples: int
    take: Callable[[Tensor], None]


_Run = Generator[Rehearsal, None, Tensor]


class CouplingProbe:
    """Made-up micro-batches and the verdict on the gradients they gave.

    The first example is watched. It runs alone; between the second and others; between the second
    and others than those, where the watched one's loss alone is learned, and in 16 bits once more
    beside one with as much to learn; with something else where it is padded; beside rows of lengths
    at which the model may behave otherwise; and alone again.

    Args:
        model: the prepared model.
        examples: at least two invented ones, in this order: watched, a long one, and others.
        collate: makes a batch of them.
        twin: an invented one with as much to learn as the third, for models that round to 16 bits.
        gradients: of losses [examples], the first example's own gradient and the others' length.
        longer: invented ones of lengths at which the model may behave otherwise.
        place: puts a batch, of so many examples, where the model is.
        buffers: must not change meanwhile.
        rounds: whether the gradients of the last backward were computed in 16 bits.
        most_rows: how many examples one micro-batch can hold.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        examples: Sequence[Any],
        collate: Collate,
        gradients: Callable[[Tensor], FirstGradient],
        twin: Any = None,
        longer: Sequence[Any] = (),
        place: Callable[[Any, int], Any] = lambda batch, examples: batch,
        buffers: SteadyBuffers | None = None,
        rounds: Callable[[], bool] = lambda: False,
        most_rows: int = 1,
    ) -> None:
        if len(examples) < 2:
            raise PrivacyError("the coupling probe needs at least two probe_examples")
        self._model = model
        self.watched = examples[0]
        self._neighbours, self._others = _two_companies(examples)
        self._twin, self._longer = twin, list(longer)
        self._collate = RehearsedCollation(collate, examples)
        self._gradients = gradients
        self._place = place
        self._buffers = buffers or SteadyBuffers(model)
        self._verdict = Verdict(model=model, rounds=rounds, most_rows=most_rows)
        self._seen: list[Tensor] = []
        self._leaked = 0.0

    @classmethod
    def before(
        cls,
        dataset: Sequence[Any],
        given: Sequence[Any] | None,
        *,
        model: nn.Module,
        collate: Collate,
        rows_limits: Sequence[int | None],
        **steps: Any,
    ) -> CouplingProbe:
        """The probe that comes before training on a dataset.

        Args:
            dataset: of which the first example's fields are looked at, unless examples are
            given: invented ones.
            model: the prepared model.
            collate: makes a batch.
            rows_limits: what bounds how many examples a micro-batch holds, where something does.
            **steps: see the class.
        """
        twin: Any = None
        longer: list[Any] = []
        if given is None:
            trial = KeyedCollation(collate, RunSecret.from_fixed_seed(0), rank=0)
            given, twin, longer = examples_for_probe(model=model, like=dataset[0], collate=trial)
            if is_referenced(dataset[0]):
                *given, twin = with_invented_references([*given, twin], model=model, collate=trial)
                longer = with_invented_references(longer, model=model, collate=trial)
        return cls(
            model=model,
            examples=given,
            twin=twin,
            longer=longer,
            collate=collate,
            most_rows=min(len(dataset), *(limit for limit in rows_limits if limit is not None)),
            **steps,
        )

    def rehearsals(self) -> Iterator[Rehearsal]:
        """The micro-batches, one after the other; after the last one the verdict.

        Dropout goes on meanwhile: an invented example's masks are the same in all of them.

        Raises:
            PrivacyError: the watched gradient changed with the company it kept, or a buffer did.
        """
        changes, together = Changes(), [self.watched, *self._neighbours]
        self._collate.teach_the_first(together)
        batch, other = self._collate(together), self._collate([self.watched, *self._others])
        changes.same_shapes = shapes_of(batch) == shapes_of(other)
        changes.unlike_labels = learned_in(batch) != learned_in(other)
        # What the first forward writes to a cache is of a made-up example.
        alone = yield from self._watch(self._of_one(batch), 1, fills_caches=True)
        if is_compiled(self._model):  # not so in the first forward, in which draws are watched
            uncompiled, alone = alone, (yield from self._watch(self._of_one(batch), 1))
            changes.compiled = change_of(uncompiled, alone)
            del uncompiled
        among = yield from self._watch(batch, len(together))
        changes.among = change_of(alone, among)
        others = yield from self._watch(other, 1 + len(self._others), only_the_first=True)
        changes.others, changes.leaked = change_of(among, others), self._leaked
        del others
        if changes.unlike_labels and self._twin is not None and self._verdict.is_rounded:
            twin = self._collate([self.watched, self._neighbours[0], self._twin])
            if shapes_of(batch) == shapes_of(twin) and learned_in(batch) == learned_in(twin):
                alike = yield from self._watch(twin, len(together), only_the_first=True)
                changes.alike = change_of(among, alike)
                del alike
        padding = padding_of(batch)
        if padding is not None and bool(padding[0].any()):
            with _other_words_in(self._model, padding):
                padded = yield from self._watch(batch, len(together))
            changes.padded = change_of(among, padded)
            del padded
        del among
        for long in self._longer:
            beside = yield from self._watch(self._collate([self.watched, long]), 2)
            changes.beyond = max(changes.beyond, change_of(alone, beside))
            del beside
        again = yield from self._watch(self._of_one(batch), 1)
        changes.again = change_of(alone, again)
        self._verdict.conclude(float(alone.norm()), changes, Surroundings.of(self._model, batch))

    def _of_one(self, batch: Any) -> Any:
        """The watched example alone, by the draws that made the first row of `batch`."""
        cut = first_alone(batch) if self._collate.is_random else None
        return self._collate([self.watched]) if cut is None else cut

    def _watch(
        self, batch: Any, examples: int, *, only_the_first: bool = False, fills_caches: bool = False
    ) -> _Run:
        """Hand out a micro-batch, and return the gradient of the example in its first row."""

        def take(losses: Tensor) -> None:
            if only_the_first:
                losses = losses * torch.eye(1, len(losses), device=losses.device)[0]
            found = self._gradients(losses)
            self._leaked = float(found.others / found.row.norm())
            self._seen = [found.row]

        yield Rehearsal(batch=self._place(batch, examples), examples=examples, take=take)
        if fills_caches:
            self._buffers.settle()
        self._buffers.require_unchanged()
        return self._seen.pop()


def _two_companies(examples: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Two lists of neighbours for the first example, alike in number and in the longest.

    >>> _two_companies("abcd")
    (['b', 'c'], ['b', 'd'])
    >>> _two_companies("ab"), _two_companies("abc")
    ((['b'], ['a']), (['b', 'c'], ['b', 'a']))
    """
    watched, long, *rest = examples
    if not rest:
        return [long], [watched]
    some, others = rest[0::2], rest[1::2]
    others += [watched] * (len(some) - len(others))
    return [long, *some], [long, *others]


@contextmanager
def _other_words_in(model: nn.Module, padding: Tensor) -> Iterator[None]:
    """While it lasts, the word embeddings where a batch is padded are those of its first word.

    The ids stay as they are, for some models find the end of a text by them.
    """
    embeddings = word_embeddings(model)
    if embeddings is None or getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        yield
        return

    def exchange(_: nn.Module, __: Any, output: Any) -> Any:
        # A causal loss leaves out the last token, which nothing follows.
        fits = isinstance(output, Tensor) and output.ndim == 3 and len(output) == len(padding)
        if not fits or padding.shape[1] - output.shape[1] not in (0, 1):
            return None
        there = padding[:, : output.shape[1], None].to(output.device)
        return torch.where(there, output[~there[..., 0]][0].detach(), output)

    hook = embeddings.register_forward_hook(exchange)
    try:
        yield
    finally:
        hook.remove()
