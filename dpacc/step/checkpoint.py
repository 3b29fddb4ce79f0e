"""Stop anywhere, resume, lose nothing: checkpoints, and a journal of what came after them.

A checkpoint is a folder that appears whole or not at all. After it, the private gradient of every
released step is journalled before the optimizer uses it, so a resume replays those steps without
touching the data. Only safetensors and JSON are written and read; no secret is among them.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from dpacc_accounting.ledger.disk import sync_folder, write_durably
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from dpacc.errors import ConfigurationError, disk_refusals_told

_FACTS, _TENSORS, _PARTS = "checkpoint.json", "tensors.safetensors", ".parts"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where a run stood: `step` updates done, and the state to go on from.

    `parts` are the checksums of what each rank kept for itself, if ranks did.
    """

    step: int
    facts: Mapping[str, Any]
    state: Any
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class JournalEntry:
    """One released step: its private gradient, C after it, and the hash of its ledger line."""

    step: int
    gradient: Tensor
    bound: float
    charge: str = ""


class Checkpoints:
    """The checkpoints and the journal of one run, in a folder of its own.

    Args:
        folder: made on first use; only its owner may enter.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._journal = folder / "journal"

    def make_room_for_parts(self) -> None:
        """Call it on one rank before any rank keeps its part of a checkpoint."""
        parts = self._folder / _PARTS
        shutil.rmtree(parts, ignore_errors=True)
        parts.mkdir(mode=0o700, parents=True)

    def keep_part(self, *, rank: int, state: Any) -> str:
        """Write what only this rank holds; the checkpoint that is saved next takes it in.

        Returns:
            Its checksum.
        """
        tensors: dict[str, Tensor] = {}
        header = _as_json(_outline(state, tensors)) + b"\n"
        content = header + save(tensors)
        _write(self._folder / _PARTS / _part_name(rank), content)
        return _checksum(content)

    def part(self, checkpoint: Checkpoint, *, rank: int) -> Any:
        """What `rank` kept for itself when `checkpoint` was saved.

        Raises:
            ConfigurationError: it is missing or damaged.
        """
        path = self._path(checkpoint.step) / _part_name(rank)
        try:
            content = path.read_bytes()
            _require_checksum(content, checkpoint.parts[rank])
            outline, _, packed = content.partition(b"\n")
            return _fill(json.loads(outline), load(packed))
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigurationError(
                f"rank {rank}'s part of the checkpoint, {path}, is damaged ({error}); restore it "
                "from a copy, or start a new run"
            ) from None

    def save(
        self, *, step: int, facts: Mapping[str, Any], state: Any, parts: Sequence[str] = ()
    ) -> None:
        """Write a checkpoint after `step` updates, then drop what it makes superfluous.

        Args:
            step: how many steps' effects the state holds.
            facts: JSON data by which a resume knows that this is its run.
            state: nested dicts, lists, numbers, strings and tensors.
            parts: the checksums of what each rank kept, in the order of ranks.

        Raises:
            ConfigurationError: a rank's part is not in this folder.
        """
        self._journal.mkdir(mode=0o700, parents=True, exist_ok=True)
        tensors: dict[str, Tensor] = {}
        outline = _outline(state, tensors)
        packed = save(tensors)
        description = {
            "step": step,
            "facts": dict(facts),
            "state": outline,
            "sha256": _checksum(packed),
            "parts": list(parts),
        }
        described = {"description": description, "sha256": _checksum(_as_json(description))}
        partial = self._folder / ".partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700)
        _write(partial / _TENSORS, packed)
        for rank in range(len(parts)):
            self._take_in_part(rank, partial)
        _write(partial / _FACTS, _as_json(described))
        final = self._path(step)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
        sync_folder(self._folder)
        self._forget_before(step)

    def journal(self, entry: JournalEntry) -> None:
        """Keep a released step's private gradient until the next checkpoint."""
        packed = save({"gradient": entry.gradient.cpu().contiguous()})
        digest = _checksum(_as_json(entry.bound) + packed)
        header = _as_json({"bound": entry.bound, "sha256": digest, "charge": entry.charge}) + b"\n"
        partial = self._journal / ".partial"
        _write(partial, header + packed)
        partial.rename(self._journal / f"{entry.step:08d}")
        sync_folder(self._journal)

    @property
    def begun(self) -> bool:
        """Whether any checkpoint was ever whole."""
        return any(self._folder.glob("step-*"))

    def latest(self) -> Checkpoint:
        """The last whole checkpoint.

        Raises:
            ConfigurationError: there is none, or it was damaged.
        """
        found = sorted(self._folder.glob("step-*"))
        if not found:
            raise ConfigurationError(
                f"{self._folder} holds no checkpoint to resume from; start a new run"
            )
        try:
            described = json.loads((found[-1] / _FACTS).read_bytes())
            description = described["description"]
            packed = (found[-1] / _TENSORS).read_bytes()
            _require_checksum(_as_json(description), described["sha256"])
            _require_checksum(packed, description["sha256"])
            state = _fill(description["state"], load(packed))
            return Checkpoint(
                step=description["step"],
                facts=description["facts"],
                state=state,
                parts=tuple(description["parts"]),
            )
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ConfigurationError(
                f"the checkpoint {found[-1]} is damaged ({error}); restore it from a copy, or "
                "start a new run"
            ) from None

    def journalled(self, *, since: int) -> Iterator[JournalEntry]:
        """The entries of steps `since`, `since` + 1, …, as far as they go on without a gap."""
        step = since
        while (path := self._journal / f"{step:08d}").exists():
            yield _read_entry(path, step)
            step += 1

    def _take_in_part(self, rank: int, checkpoint: Path) -> None:
        part = self._folder / _PARTS / _part_name(rank)
        if not part.exists():
            raise ConfigurationError(
                f"rank {rank} kept its part of the checkpoint elsewhere than in {self._folder}; "
                "give all machines one shared folder"
            )
        part.rename(checkpoint / part.name)

    def _path(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}"

    def _forget_before(self, step: int) -> None:
        for path in self._folder.glob("step-*"):
            if int(path.name.removeprefix("step-")) < step:
                shutil.rmtree(path)
        for path in self._journal.glob("[0-9]*"):
            if int(path.name) < step:
                path.unlink()


def _part_name(rank: int) -> str:
    return f"rank-{rank:05d}.safetensors"


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _require_checksum(content: bytes, expected: str) -> None:
    if _checksum(content) != expected:
        raise ValueError("its checksum does not match")


def _as_json(document: Any) -> bytes:
    return json.dumps(document).encode()


def _write(path: Path, content: bytes) -> None:
    with disk_refusals_told(path):
        write_durably(path=path, content=content)


def _read_entry(path: Path, step: int) -> JournalEntry:
    header, _, packed = path.read_bytes().partition(b"\n")
    try:
        facts = json.loads(header)
        _require_checksum(_as_json(facts["bound"]) + packed, facts["sha256"])
        gradient = load(packed)["gradient"]
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ConfigurationError(
            f"the journal entry {path} is damaged ({error}); restore it from a copy, or start a "
            "new run"
        ) from None
    return JournalEntry(
        step=step, gradient=gradient, bound=facts["bound"], charge=str(facts.get("charge", ""))
    )


# --- nested state as JSON with its tensors beside it ----------------------------------------


def _outline(value: Any, tensors: dict[str, Tensor]) -> Any:
    """`value` as JSON, each tensor replaced by a name under which `tensors` holds it."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"items": [[key, _outline(item, tensors)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return {type(value).__name__: [_outline(item, tensors) for item in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ConfigurationError(
        f"a {type(value).__name__} in the optimizer's or scheduler's state cannot be saved "
        "without pickle; use torch's own optimizers and schedulers"
    )


def _fill(outline: Any, tensors: Mapping[str, Tensor]) -> Any:
    match outline:
        case {"tensor": name}:
            return tensors[name]
        case {"items": items}:
            return {key: _fill(item, tensors) for key, item in items}
        case {"list": items}:
            return [_fill(item, tensors) for item in items]
        case {"tuple": items}:
            return tuple(_fill(item, tensors) for item in items)
        case _:
            return outline


def adopt(parameters: Mapping[str, torch.nn.Parameter], saved: Mapping[str, Tensor]) -> None:
    """Copy saved values into parameters of the same names and shapes.

    Raises:
        ConfigurationError: they are not those of this model.
    """
    shapes = {name: tuple(p.shape) for name, p in parameters.items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in saved.items()}:
        raise ConfigurationError(
            "the checkpoint holds other adapters than the model; resume with the settings that "
            "the run was started with"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(saved[name])
