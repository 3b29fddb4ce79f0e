"""Each kernel beside the same arithmetic in torch, on this device, before a run relies on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from torch import Tensor
from torch.nn import functional as F

from dpacc.errors import PrivacyError
from dpacc.layers.kernels.clipped_sums import add_scaled
from dpacc.layers.kernels.cross_entropy import losses_in_place
from dpacc.layers.kernels.lora_forward import lora_forward
from dpacc.layers.kernels.outer_products import add_scaled_products, products, squared_norms
from dpacc.randomness.aes_words import sliced_keys, words_on

_ROUNDING = 1e-5


def require_agreement(device: torch.device) -> None:
    """Refuse kernels that give other numbers there than torch and `cryptography` give.

    Raises:
        PrivacyError: one of them does.
    """
    generator = torch.Generator().manual_seed(0)
    for name, check in CHECKS.items():
        if not check(device, generator):
            raise PrivacyError(
                f"Triton's kernel of {name} does not give on this {device.type} what torch gives; "
                "choose kernels='torch'"
            )


def _clipped_sums(device: torch.device, generator: torch.Generator) -> bool:
    block = torch.randn(3, 1031, generator=generator)
    scales = torch.tensor([0.25, 0.0, 1.0])
    wanted = 1 + scales @ block
    block[1] = torch.nan
    total = torch.ones(1031, device=device)
    add_scaled(total=total, block=block.to(device), scales=scales.to(device))
    return _close(total, wanted)


def _outer_products(device: torch.device, generator: torch.Generator) -> bool:
    factors = [torch.randn(3, 37, width, generator=generator) for width in (70, 5)]
    wanted = torch.bmm(factors[0].mT, factors[1]).flatten(1)
    g, x = (each.to(device) for each in factors)
    block, squares = products(g, x)
    scales, total = torch.tensor([0.25, 0.0, 1.0]), torch.zeros(350, device=device)
    added = add_scaled_products(total, g, x, scales=scales.to(device))
    return (
        _close(block, wanted)
        and _close(squares, wanted.square().sum(dim=1))
        and torch.equal(squares, squared_norms(g, x))
        and _close(total, scales @ wanted)
        and _close(added, (wanted * scales[:, None]).square().sum(dim=1))
    )


def _lora_forward(device: torch.device, generator: torch.Generator) -> bool:
    x, weight, bias, lower, upper = (
        torch.randn(shape, generator=generator).to(device)
        for shape in ((2, 35, 37), (130, 37), (130,), (3, 37), (130, 3))
    )
    found = lora_forward(x, weight, bias, lower, upper, scale=0.5)
    low = F.linear(x.cpu(), lower.cpu())
    wanted = F.linear(x.cpu(), weight.cpu(), bias.cpu()) + 0.5 * F.linear(low, upper.cpu())
    return _close(found[0], wanted) and _close(found[1], low)


def _cross_entropy(device: torch.device, generator: torch.Generator) -> bool:
    logits = 3 * torch.randn(3, 5003, generator=generator)
    targets = torch.tensor([0, 4999, 7])
    leaf = logits.clone().requires_grad_()
    wanted = F.cross_entropy(leaf, targets, reduction="none")
    wanted.sum().backward()
    found = logits.to(device)
    losses = losses_in_place(found, targets.to(device), want_gradients=True)
    assert leaf.grad is not None
    return _close(losses, wanted.detach()) and _close(found, leaf.grad)


def _noise_words(device: torch.device, generator: torch.Generator) -> bool:
    key, first, blocks = bytes(range(32)), 2**32 - 300, 601
    counter = modes.CTR(first.to_bytes(16, "big"))
    stream = Cipher(algorithms.AES256(key), counter).encryptor().update(bytes(16 * blocks))
    keys = torch.from_numpy(sliced_keys(key)).to(device)
    words = words_on(device, keys=keys, first_block=first, blocks=blocks)
    return words.cpu().numpy().tobytes() == stream


CHECKS: Mapping[str, Callable[[torch.device, torch.Generator], bool]] = {
    "outer products": _outer_products,
    "LoRA's forward": _lora_forward,
    "clipped sums": _clipped_sums,
    "cross-entropy": _cross_entropy,
    "the noise's words": _noise_words,
}


def _close(found: Tensor, wanted: Tensor) -> bool:
    return bool((found.cpu() - wanted).abs().max() <= _ROUNDING * (1 + wanted.abs().max()))
