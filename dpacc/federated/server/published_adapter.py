"""The adapter that a federation leaves: one file that makes of the plain base what was measured.

Rules that correct the base leave a part of what was learned in the base's own weights, which no
adapter's file holds. So what is published is a wider adapter, whose B·A is the whole change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from dpacc.artifacts.run_folder import write_file
from dpacc.federated.aggregation.factors import CORRECTION, Factors, Matrix, factors_of
from dpacc.federated.updates.layout import Arrays

_LEFT_OUT = 1e-6
"""How much of a change's Frobenius norm rounding to fp32 has made, and no rank is spent on."""

_Factored = tuple[Matrix, Matrix]


def write_adapter(*, model: nn.Module, arrays: Arrays, card: str, folder: Path) -> None:
    """Write adapter, configuration and card, as `PeftModel.from_pretrained` reads them.

    Where `arrays` hold corrections C of the base, each layer's B and A are those of the singular
    value decomposition of s·B·A + C, at the smallest rank that leaves 10⁻⁶ of every layer's norm
    out, which is what fp32 had rounded; the scale becomes 1.

    Args:
        model: the server's, as PEFT adapted it.
        arrays: the shared adapter, with corrections if the rule has any.
        card: what stands beside it.
        folder: where all of it goes.
    """
    adapted: Any = model
    save = partial(type(adapted).save_pretrained, adapted, folder, save_embedding_layers=False)
    if any(name.startswith(CORRECTION) for name in arrays):
        whole = _whole_changes(factors_of(model), arrays)
        save(state_dict=adapted.state_dict() | _tensors(whole))
        _restate(folder / "adapter_config.json", rank=_rank_of(whole))
    else:
        save()
    write_file(path=folder / "README.md", content=card.encode())


def forbid_saving(model: nn.Module) -> None:
    """Refuse `save_pretrained`, which would leave out what stands in the base's weights."""

    def save_pretrained(*given: object, **named: object) -> None:
        raise RuntimeError(
            "save_pretrained would leave out what this rule folded into the base; "
            "use FederatedServer.publish, which writes the whole change"
        )

    vars(model)["save_pretrained"] = save_pretrained


def _whole_changes(factors: Sequence[Factors], arrays: Arrays) -> dict[Factors, _Factored]:
    """B and A of each layer's whole change, all of one rank."""
    parts = {layer: _factored(_change(layer, arrays)) for layer in factors}
    rank = max(lower.shape[0] for _, lower in parts.values())
    return {
        layer: (
            np.pad(upper, ((0, 0), (0, rank - upper.shape[1]))),
            np.pad(lower, ((0, rank - lower.shape[0]), (0, 0))),
        )
        for layer, (upper, lower) in parts.items()
    }


def _change(layer: Factors, arrays: Arrays) -> Matrix:
    return layer.product(arrays) + arrays[layer.correction].astype(np.float64)


def _factored(change: Matrix) -> _Factored:
    """U·√Σ and √Σ·Vᵀ at the smallest rank from 1 that keeps all but rounding."""
    left, values, right = np.linalg.svd(change, full_matrices=False)
    beyond = np.sqrt(np.cumsum(np.square(values)[::-1])[::-1])  # norm of what ranks < i leave out
    rank = max(1, int((beyond > _LEFT_OUT * beyond[0]).sum()))
    root = np.sqrt(values[:rank])
    return left[:, :rank] * root, root[:, None] * right[:rank]


def _tensors(whole: Mapping[Factors, _Factored]) -> dict[str, torch.Tensor]:
    found = {}
    for layer, (upper, lower) in whole.items():
        found[layer.upper] = torch.from_numpy(upper.astype(np.float32))
        found[layer.lower] = torch.from_numpy(lower.astype(np.float32))
    return found


def _rank_of(whole: Mapping[Factors, _Factored]) -> int:
    return len(next(iter(whole.values()))[1])


def _restate(path: Path, *, rank: int) -> None:
    """Say the wider rank, and the scale of 1 at which the factors were taken."""
    said = json.loads(path.read_text("utf-8"))
    said |= {"r": rank, "lora_alpha": rank, "use_rslora": False}
    said |= {"rank_pattern": {}, "alpha_pattern": {}}
    write_file(path=path, content=json.dumps(said, indent=2, sort_keys=True).encode())
