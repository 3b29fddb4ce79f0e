"""Which base an adapter was trained on: a checksum of samples of its weights, cheap at any size.

Four blocks of each tensor are read, evenly spread, with its name, type and shape, so that a base of
the same layout is told apart wherever training moved a whole tensor: in 7 billion weights these
are 5 MB. Not noticed: a tensor that was changed between the blocks alone, and another `config.json`
or tokenizer. Copies and other shards of the same weights have the same checksum, another precision
of them has another.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 4096
_BLOCKS = 4
_INDEX = "model.safetensors.index.json"
_WHOLE = "model.safetensors"


def weights_checksum(*, model: str) -> str | None:
    """SHA-256 of samples of a base's weights; None where they are not at hand, or damaged.

    Args:
        model: folder, or id on the hub, of which the cache is looked at alone.
    """
    try:
        folder = _folder_of(model)
        found = {} if folder is None else dict(_sampled(folder))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not found:
        return None
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _folder_of(model: str) -> Path | None:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model, "config.json")
    return Path(config).parent if isinstance(config, str) else None


def _sampled(folder: Path) -> Iterator[tuple[str, str]]:
    """Each tensor's name with a hash of its samples; of what is no safetensors, each file's."""
    for path in _weight_files(folder):
        if path.suffix == ".safetensors":
            yield from _of_tensors(path)
        else:
            yield path.name, _hashed(path, "", 0, path.stat().st_size)


def _weight_files(folder: Path) -> list[Path]:
    if (folder / _INDEX).is_file():
        placed = json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"]
        return [folder / name for name in sorted(set(placed.values()))]
    if (folder / _WHOLE).is_file():
        return [folder / _WHOLE]
    return sorted(each for each in folder.iterdir() if each.suffix in (".bin", ".gguf"))


def _of_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """By the file's header: its length in 8 bytes, then each tensor's type, shape and place."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    for name, told in header.items():
        if name != "__metadata__":
            begin, end = told["data_offsets"]
            layout = f"{told['dtype']}{told['shape']}"
            yield name, _hashed(path, layout, 8 + length + begin, 8 + length + end)


def _hashed(path: Path, layout: str, begin: int, end: int) -> str:
    """Of all bytes where they are few, and of blocks at both ends and between where they are many.

    The last block ends where the tensor does.
    """
    digest = hashlib.sha256(f"{layout} {end - begin}".encode())
    with path.open("rb") as file:
        if end - begin <= _BLOCK * _BLOCKS:
            places, size = [begin], end - begin
        else:
            last = end - begin - _BLOCK
            places = [begin + last * block // (_BLOCKS - 1) for block in range(_BLOCKS)]
            size = _BLOCK
        for place in places:
            file.seek(place)
            digest.update(file.read(size))
    return digest.hexdigest()
