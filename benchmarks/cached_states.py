"""What the frozen layers beneath the adapters make of texts: computed once, kept on disk.

Adapters are on the top layers only, so what enters these is the same for every tool and run. The
file grows batch by batch, and a stopped run goes on where it was.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DTYPE = "float32"
"""In which the frozen layers compute."""

_TOKENS_AT_ONCE = 2048

Row = dict[str, Any]
Result = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class CachedTexts(ABC):
    """Texts as the states that enter the upper layers, and what is to be said of each.

    Args:
        rows: one an example: its place (`row`), its tokens (`input_ids`), and what follows.
        states: [tokens of all examples, hidden].
        starts: where each example's states begin.
    """

    rows: list[Row]
    states: Tensor
    starts: np.ndarray

    def only(self, places: Sequence[int]) -> list[Row]:
        """Some of the rows."""
        return [self.rows[place] for place in places]

    def spans(self, rows: Sequence[Mapping[str, Any]]) -> list[Tensor]:
        """The states of some rows, in fp32."""
        bounds = [(int(self.starts[r["row"]]), int(self.starts[r["row"] + 1])) for r in rows]
        return [self.states[start:end].to(getattr(torch, DTYPE)) for start, end in bounds]

    def inputs(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A batch without what is to be said."""
        names = ("inputs_embeds", "attention_mask", "position_ids")
        batch = self.collate(rows)
        return {name: batch[name] for name in names}

    @abstractmethod
    def collate(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """A padded batch."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Each example's loss, [examples] fp32."""

    @abstractmethod
    def measured(self, model: nn.Module, rows: Sequence[Row]) -> Result:
        """What a trained model is worth on some rows."""

    def batches(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], dict[str, Tensor]]]:
        """Batches of like length, each with the places of its rows among `rows`."""
        for places in in_batches([row["input_ids"] for row in rows]):
            yield places, self.collate([rows[at] for at in places])


def in_batches(token_ids: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Places of texts of like length, so many that a batch has at most 2,048 tokens."""
    run: list[int] = []
    for at in sorted(range(len(token_ids)), key=lambda at: len(token_ids[at])):
        if run and (len(run) + 1) * len(token_ids[at]) > _TOKENS_AT_ONCE:
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def states_beneath(
    *,
    model: Path,
    layers: int,
    token_ids: Sequence[Sequence[int]],
    folder: Path,
    name: str,
    dtype: type[np.floating[Any]] = np.float32,
    computed: str = DTYPE,
) -> tuple[Tensor, np.ndarray]:
    """What enters the top `layers` for each token, [tokens, hidden], and where each text begins.

    Args:
        model: folder of the base.
        layers: how many are left out.
        token_ids: of each text.
        folder: where the states are kept, in a file that tells by its name what of.
        name: the file's first part.
        dtype: of the file.
        computed: what the layers compute in.
    """
    from transformers import AutoConfig

    starts = np.cumsum([0, *(len(ids) for ids in token_ids)])
    hidden = AutoConfig.from_pretrained(str(model), trust_remote_code=False).hidden_size
    told = hashlib.sha256(repr(list(map(list, token_ids))).encode()).hexdigest()[:12]
    path = folder / f"{name}-beneath-{layers}-{told}.{np.dtype(dtype).name}"
    shape = (int(starts[-1]), hidden)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _fill(path, _lower_layers(model, layers, computed), token_ids, starts, shape, dtype)
    return torch.from_numpy(np.memmap(path, dtype=dtype, mode="c", shape=shape)), starts


@torch.no_grad()
def _fill(
    path: Path,
    lower: nn.Module,
    token_ids: Sequence[Sequence[int]],
    starts: np.ndarray,
    shape: tuple[int, int],
    dtype: type[np.floating[Any]],
) -> None:
    """Make the file, of which a stopped run left `.partial` and, in `.done`, how far it came."""
    partial, done = path.with_suffix(".partial"), path.with_suffix(".done")
    before = int(done.read_text()) if done.exists() and partial.exists() else 0
    mode = "r+" if before else "w+"
    states = np.memmap(partial, dtype=dtype, mode=mode, shape=shape)
    for number, places in enumerate(in_batches(token_ids)):
        if number < before:
            continue
        ids = [torch.tensor(token_ids[at]) for at in places]
        # Padded on the right, where causal attention does not see it.
        outputs = lower(input_ids=nn.utils.rnn.pad_sequence(ids, batch_first=True))[0]
        for at, output in zip(places, outputs, strict=True):
            start, end = int(starts[at]), int(starts[at + 1])
            states[start:end] = output[: end - start].float().numpy()
        if not np.isfinite(states[starts[places[0]]]).all():
            raise FloatingPointError(f"{np.dtype(dtype).name} does not hold these states")
        states.flush()
        done.write_text(str(number + 1))
    partial.rename(path)
    done.unlink()


def _lower_layers(folder: Path, layers: int, dtype: str) -> nn.Module:
    from dpacc.recipe.models import load_base

    model: Any = load_base(model=str(folder), dtype=dtype).model.eval().model
    model.layers = model.layers[:-layers]
    model.norm = nn.Identity()
    model.config.num_hidden_layers = len(model.layers)
    return model  # type: ignore[no-any-return]


@torch.no_grad()
def written(*, model: Path, start: str, path: Path, count: int = 64, tokens: int = 28) -> list[str]:
    """First lines that the base itself continues `start` with, which no one's data shaped.

    The first call leaves them at `path`.
    """
    import json

    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_write(model, start, count, tokens)))
    texts: list[str] = json.loads(path.read_text())
    return texts


def _write(model: Path, start: str, count: int, tokens: int) -> list[str]:
    from dpacc.recipe.models import load_base

    base = load_base(model=str(model), dtype=DTYPE)
    torch.manual_seed(0)
    ids = base.tokenizer(start, return_tensors="pt")["input_ids"].repeat(count, 1)
    drawn = base.model.eval().generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=True,
        top_k=0,
        use_cache=True,
        pad_token_id=base.tokenizer.pad_token_id,
    )
    texts = base.tokenizer.batch_decode(drawn[:, ids.shape[1] :], skip_special_tokens=True)
    return [text.strip().split("\n")[0] for text in texts if text.strip()]
