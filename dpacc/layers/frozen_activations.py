"""Frozen activations, computed once: what the layers beneath the adapters make of each example.

Where only the top layers are adapted, nothing beneath them changes, so a later epoch need not run
it again. The activations are as private as the examples: their memory-mapped file has no name from
the moment all ranks have opened it, and its space is free again when they end, however they end.

So each run computes them anew. A file kept for the next run would save one forward of the lower
layers, and would need a key (base, tokenizer, data), a look at whether the key still fits, and
somebody to delete private data of a run that was killed. Runs of one process share one instance,
as the trials of a sweep do.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dpacc.data.sequences import as_rows, lengths_of
from dpacc.errors import ConfigurationError
from dpacc.layers.blocks import first_trained_block, transformer_blocks
from dpacc.ranks.collectives import on_main_process, share_from_main

Collate = Callable[[list[Any]], dict[str, Tensor]]

_ROW = "frozen_row"
_STATES = "frozen_states"
_TOKENS_AT_ONCE = 4096
_BLOCK_BYTES = 1 << 20


class FrozenActivations:
    """Runs every example through the layers beneath the adapters once, and those never again.

    `examples` and `collate` take the place of the dataset and its collate function. A batch of
    examples that it does not know, such as made-up ones, runs through all layers as ever.

    Args:
        model: as `prepare` returned it, whole on this rank.
        examples: the dataset, the same on every rank; each a mapping with "input_ids".
        collate: pads a list of examples on the right.
        accelerator: the launch's.
        folder: where there is room for examples × tokens × hidden size numbers.
        public: of public examples alone, the activations of this base that the process knows, by
            `tokens_of` an example; what it does not know is added. Nothing of private examples may
            stay, so that by default nothing does.

    Raises:
        ConfigurationError: something is trained in or beneath the lowest layer, is cut over the
            ranks, or drops out at random there; or this is Windows, where no open file goes without
            a name.

    ```python
    frozen = FrozenActivations(model=model, examples=train, collate=collate,
                               accelerator=accelerator, folder=run_folder)
    for step in engine.steps(frozen.examples, frozen.collate):
        ...
    frozen.close()
    ```
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        examples: Sequence[Mapping[str, Any]],
        collate: Collate,
        accelerator: Accelerator,
        folder: Path,
        public: MutableMapping[str, Tensor] | None = None,
    ) -> None:
        _require_nameless_files()
        _require_whole(accelerator)
        self._beneath = list(transformer_blocks(model))[: first_trained_block(model)]
        self._model, self._collate = model, collate
        self._given: Tensor | None = None
        self._lengths = [lengths_of(each) for each in examples]
        self._starts = np.cumsum([0, *map(sum, self._lengths)])
        self.examples = [{**each, _ROW: row} for row, each in enumerate(examples)]
        self._compute(accelerator, folder, public)
        self._hooks = self._attached_to(model)
        for block in self._beneath:
            block.forward = self._skipping(block.forward)

    def collate(self, examples: list[Any]) -> dict[str, Tensor]:
        """The batch, and what the frozen layers make of it if all its examples are known."""
        rows = [each[_ROW] for each in examples if self._knows(each)]
        plain = [{k: v for k, v in each.items() if k != _ROW} for each in examples]
        batch = self._collate(plain)
        if len(rows) == len(examples):
            batch[_STATES] = self._padded(rows, batch["input_ids"].shape[-1])
        return batch

    def move_to(self, model: nn.Module) -> None:
        """Serve another model on the same base, whose adapters begin at the same layer.

        Raises:
            ConfigurationError: the layers beneath its adapters are others.
        """
        beneath = list(transformer_blocks(model))[: first_trained_block(model)]
        if [id(block) for block in beneath] != [id(block) for block in self._beneath]:
            raise ConfigurationError(
                "these activations are of other layers: put the adapters on as many top layers of "
                "the same base, or compute them anew"
            )
        for hook in self._hooks:
            hook.remove()
        self._model, self._hooks = model, self._attached_to(model)

    def close(self) -> None:
        """Let the model run through all its layers again, and give up the file."""
        for hook in self._hooks:
            hook.remove()
        for block in self._beneath:
            del block.forward
        del self._states

    def _attached_to(self, model: nn.Module) -> list[RemovableHandle]:
        return [
            model.register_forward_pre_hook(self._take, with_kwargs=True),
            model.register_forward_hook(self._forget, always_call=True),
        ]

    def _knows(self, example: Mapping[str, Any]) -> bool:
        row = example.get(_ROW, -1)
        known = 0 <= row < len(self.examples)
        return known and self.examples[row]["input_ids"] is example["input_ids"]

    def _padded(self, rows: Sequence[int], width: int) -> Tensor:
        """[rows · sequences, width, hidden], as the model reads them."""
        spans = [span for row in rows for span in self._spans(row)]
        states = self._states.new_zeros(len(spans), width, self._states.shape[1])
        for place, (start, stop) in enumerate(spans):
            states[place, : stop - start] = self._states[start:stop]
        return states

    def _spans(self, row: int) -> list[tuple[int, int]]:
        """Where the states of each of an example's sequences stand."""
        ends = (self._starts[row] + np.cumsum(self._lengths[row])).tolist()
        return [(end - tokens, end) for end, tokens in zip(ends, self._lengths[row], strict=True)]

    # --- computing them, once ------------------------------------------------------------

    def _compute(
        self, accelerator: Accelerator, folder: Path, public: MutableMapping[str, Tensor] | None
    ) -> None:
        hidden, dtype = self._shape_of_states(accelerator)
        size = int(self._starts[-1]) * hidden
        with _nameless_file(accelerator, folder, size * dtype.itemsize) as path:
            stored = torch.from_file(str(path), shared=True, size=size, dtype=dtype)
        self._states = stored.view(-1, hidden)
        by_length = sorted(
            self._unknown({} if public is None else public), key=lambda i: len(self._ids(i))
        )
        mine = by_length[accelerator.process_index :: accelerator.num_processes]
        for rows in _within(mine, lengths=np.diff(self._starts)):
            spans = [span for row in rows for span in self._spans(row)]
            for (start, stop), states in zip(spans, self._run(rows, accelerator), strict=True):
                self._states[start:stop] = states[: stop - start]
        accelerator.wait_for_everyone()
        if public is not None:
            for row, each in enumerate(self.examples):
                place = slice(self._starts[row], self._starts[row + 1])
                public.setdefault(tokens_of(each), self._states[place].clone())

    def _unknown(self, known: Mapping[str, Tensor]) -> list[int]:
        """The rows that are still to be computed, once those that are known are in place."""
        unknown = []
        for row, each in enumerate(self.examples):
            states = known.get(tokens_of(each))
            if states is None:
                unknown.append(row)
            else:
                self._states[self._starts[row] : self._starts[row + 1]] = states
        return unknown

    def _ids(self, row: int) -> Sequence[int]:
        ids: Sequence[int] = self.examples[row]["input_ids"]
        return ids

    def _shape_of_states(self, accelerator: Accelerator) -> tuple[int, torch.dtype]:
        states = self._run([0], accelerator)
        if not torch.equal(states, self._run([0], accelerator)):
            raise ConfigurationError(
                "the layers beneath the adapters give one example two different activations, as "
                "dropout does; leave cache_frozen_activations out, or set dropout to 0"
            )
        return states.shape[-1], states.dtype

    def _run(self, rows: Sequence[int], accelerator: Accelerator) -> Tensor:
        """The output of the last layer beneath, [rows, tokens, hidden]."""
        plain = [{k: v for k, v in self.examples[row].items() if k != _ROW} for row in rows]
        batch = send_to_device(self._collate(plain), accelerator.device)
        inputs = {name: value for name, value in as_rows(batch).items() if name != "labels"}
        seen: list[Tensor] = []

        def stop(_: nn.Module, __: Any, output: Any) -> None:
            seen.append(_hidden_states(output).detach().cpu())
            raise _EnoughError

        hook = self._beneath[-1].register_forward_hook(stop)
        try:
            with torch.no_grad():
                self._model(**inputs)
        except _EnoughError:
            pass
        finally:
            hook.remove()
        return seen[0]

    # --- and using them, ever after -------------------------------------------------------

    def _take(self, _: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, Any]:
        self._given = named.pop(_STATES, None)
        return arguments, named

    def _forget(self, *_: Any) -> None:
        self._given = None

    def _skipping(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        in_tuple: list[bool] = []

        def skip(*arguments: Any, **named: Any) -> Any:
            if self._given is None:
                output = forward(*arguments, **named)
                in_tuple[:] = [isinstance(output, tuple)]
                return output
            if not in_tuple:
                with torch.no_grad():
                    in_tuple[:] = [isinstance(forward(*arguments, **named), tuple)]
            return (self._given,) if in_tuple[0] else self._given

        return skip


def tokens_of(example: Mapping[str, Any]) -> str:
    """An example's tokens, as what is known of public ones is looked up.

    >>> tokens_of({"input_ids": [5, 6], "labels": 1})
    '[[2], [5, 6]]'
    """
    return str([lengths_of(example), example["input_ids"]])


class _EnoughError(Exception):
    """Ends a forward beneath the adapters."""


def _hidden_states(output: Any) -> Tensor:
    states: Tensor = output[0] if isinstance(output, tuple) else output
    return states


@contextmanager
def _nameless_file(accelerator: Accelerator, folder: Path, size: int) -> Iterator[Path]:
    """A file of `size` bytes for the ranks of one machine, nameless once all have opened it."""
    made: list[Path] = []
    try:
        on_main_process(accelerator, lambda: made.append(_reserved(folder, size)))
        yield share_from_main(made[0] if made else None)
        accelerator.wait_for_everyone()
    finally:
        for path in made:
            path.unlink()


def _reserved(folder: Path, size: int) -> Path:
    """A new file that nobody else may read, whose space is taken already."""
    handle, name = tempfile.mkstemp(prefix=".frozen-activations-", dir=folder)  # mode 0600
    try:
        _reserve(handle, size)
    except OSError as error:
        Path(name).unlink()
        raise ConfigurationError(
            f"{folder} has no room for {size / 2**30:.1f} GiB of frozen activations "
            f"({error.strerror}); leave cache_frozen_activations out, or name another output_dir"
        ) from error
    finally:
        os.close(handle)
    return Path(name)


def _reserve(handle: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(handle, 0, size)
        return
    with os.fdopen(handle, "wb", closefd=False) as file:  # macOS has no other way
        for start in range(0, size, _BLOCK_BYTES):
            file.write(bytes(min(_BLOCK_BYTES, size - start)))


def _within(rows: Sequence[int], *, lengths: np.ndarray) -> Iterator[list[int]]:
    """Runs of rows, shortest first, of at most a few thousand padded tokens each."""
    run: list[int] = []
    for row in rows:
        if run and (len(run) + 1) * lengths[row] > _TOKENS_AT_ONCE:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _require_nameless_files() -> None:
    if sys.platform == "win32":  # whose files keep their names as long as they are mapped
        raise ConfigurationError(
            "cache_frozen_activations would leave private activations on the disk where a run is "
            "killed, for Windows removes no file that is in use; leave it out"
        )


def _require_whole(accelerator: Accelerator) -> None:
    state = accelerator.state
    if getattr(state, "deepspeed_plugin", None) or getattr(state, "fsdp_plugin", None):
        raise ConfigurationError(
            "cache_frozen_activations needs the whole model on every rank; leave it out, or launch "
            "with launch_configs/ddp.yaml"
        )
    ranks_here = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    if ranks_here != accelerator.num_processes:
        raise ConfigurationError(
            "cache_frozen_activations shares one file, so all ranks must be on one machine; leave "
            "it out"
        )
