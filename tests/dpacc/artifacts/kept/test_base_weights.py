"""A base is known again by samples of its weights, whatever its files are called."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dpacc.artifacts.kept.base_weights import weights_checksum

Weights = Mapping[str, torch.Tensor]


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    """A large tensor, of which samples are read, and a small one, which is read whole."""
    torch.manual_seed(0)
    return {"large": torch.randn(100, 400), "small": torch.randn(3, 5)}


def in_one_file(folder: Path, weights: Weights) -> str:
    folder.mkdir()
    save_file(dict(weights), folder / "model.safetensors", metadata={"made": folder.name})
    return str(folder)


def test_other_weights_of_the_same_layout_are_another_base(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """Every tensor counts, however small the change of its elements, and its first one alone."""
    whole = weights_checksum(model=in_one_file(tmp_path / "base", weights))
    assert whole is not None
    for name in weights:
        tuned = weights | {name: weights[name] * (1 + 1e-6)}
        assert weights_checksum(model=in_one_file(tmp_path / f"tuned-{name}", tuned)) != whole
        first = weights[name].clone()
        first[0, 0] += 1
        touched = weights | {name: first}
        assert weights_checksum(model=in_one_file(tmp_path / f"first-{name}", touched)) != whole
    named = {"other": weights["large"], "small": weights["small"]}
    assert weights_checksum(model=in_one_file(tmp_path / "named", named)) != whole
    turned = weights | {"small": weights["small"].reshape(5, 3)}
    assert weights_checksum(model=in_one_file(tmp_path / "turned", turned)) != whole


def test_the_same_weights_in_other_files_are_the_same_base(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """In shards, with an index, beside files that it does not name."""
    whole = weights_checksum(model=in_one_file(tmp_path / "base", weights))
    shards = tmp_path / "shards"
    shards.mkdir()
    placed = {name: f"model-{name}.safetensors" for name in weights}
    for name, file in placed.items():
        save_file({name: weights[name]}, shards / file)
    save_file({"adapter": torch.ones(2)}, shards / "adapter_model.safetensors")
    index = shards / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": placed}))
    assert weights_checksum(model=str(shards)) == whole


def test_what_lies_between_the_samples_is_not_noticed(
    tmp_path: Path, weights: dict[str, torch.Tensor]
) -> None:
    """The price of reading little, as the module and the docs say."""
    between = weights["large"].clone().flatten()
    between[1024:2048] = 0  # 4,096 bytes after the first block
    whole = weights_checksum(model=in_one_file(tmp_path / "base", weights))
    changed = weights | {"large": between.reshape(100, 400)}
    assert weights_checksum(model=in_one_file(tmp_path / "changed", changed)) == whole


def test_pickled_weights_are_sampled_by_file_and_none_have_no_checksum(tmp_path: Path) -> None:
    """Nothing is unpickled; folders without weights, damaged ones and ids that are not here."""
    for name, content in {"one": b"a" * 99, "same": b"a" * 99, "other": b"b" * 99}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "pytorch_model.bin").write_bytes(content)
    one, same, other = (
        weights_checksum(model=str(tmp_path / name)) for name in ("one", "same", "other")
    )
    assert one == same != other
    assert weights_checksum(model=str(tmp_path)) is None
    assert weights_checksum(model="nobody/nothing-of-this-name") is None
    (tmp_path / "model.safetensors").write_bytes(b"\x05" + bytes(7) + b"{}{}{")
    assert weights_checksum(model=str(tmp_path)) is None
