"""Compile every kernel for a GPU that need not be there, and say what each became."""

from __future__ import annotations

import json
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from dpacc.layers.kernels import clipped_sums, cross_entropy, lora_forward, outer_products
from dpacc.randomness import aes_words

H100 = GPUTarget("cuda", 90, 32)
NUMBERS = {"units": "i32", "width": "i32", "words": "i32", "stride": "i32"}
SIZES = dict.fromkeys(("examples", "tokens", "outs", "ins", "tiles"), "i32")
TENSORS = dict.fromkeys(("total", "block", "scales", "losses", "parts", "sums"), "*fp32")
TILES = {
    "*bf16": {"OUTS": 64, "INS": 16, "TOKENS": 32, "WIDENS": False},
    "*fp32": {"OUTS": 16, "INS": 16, "TOKENS": 16, "WIDENS": False},
}
"""Small ones where every product is an instruction of its own, which take long to compile."""


def compiled(kernel: Any, types: dict[str, str], **constants: Any) -> dict[str, Any]:
    """What ptxas makes of a kernel, and whether fp32 is multiplied in fewer digits."""
    types = SIZES | NUMBERS | TENSORS | types | dict.fromkeys(constants, "constexpr")
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={name: types[name] for name in names},
        constexprs={(names.index(name),): value for name, value in constants.items()},
    )
    made = compile(source, target=H100)
    return {"bytes": len(made.asm["cubin"]), "tf32": "tf32" in made.asm["ptx"]}


def main() -> None:
    """Print a line of JSON."""
    found = {"clipped sums": compiled(clipped_sums._add_scaled, {}, COLUMNS=1024)}
    found["cross-entropy"] = compiled(
        cross_entropy._losses,
        {"logits": "*bf16", "targets": "*i64"},
        WANT_GRADIENTS=True,
        WORDS=1024,
    )
    for number, tile in TILES.items():
        factors = {"gradients": number, "inputs": number}
        found[f"products {number}"] = compiled(
            outer_products._measure_tiles, factors, WRITES=True, **tile
        )
        found[f"scaled products {number}"] = compiled(outer_products._add_tiles, factors, **tile)
        forward = dict.fromkeys(("x", "weight", "bias", "total", "low"), number)
        forward |= {"lower": "*fp32", "upper": "*fp32", "scale": "fp32"}
        forward |= {"rows": "i32", "rank": "i32"}
        rows = {"ROWS": tile["TOKENS"], "OUTS": tile["OUTS"], "INS": 16, "RANK": 16}
        found[f"forward {number}"] = compiled(
            lora_forward._forward, forward, HAS_BIAS=True, WIDENS=False, **rows
        )
    found["sums"] = compiled(outer_products._add_parts, {}, PARTS=128)
    words = {"words": "*i32", "keys": "*i32", "first_block": "i64", "pairs": "i32"}
    found["words"] = compiled(aes_words._words, words, PAIRS=256)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
