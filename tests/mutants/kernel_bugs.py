"""Mistakes in what a GPU does in one pass."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_PRODUCTS = f"{DPACC}/layers/kernels/test_outer_products.py"
_RANDOMNESS = f"{DPACC}/randomness"
_KERNELS = f"{DPACC}/layers/kernels"

KERNEL_BUGS = (
    Bug(
        "a kernel adds what was left out",
        "a unit whose gradient is no number is multiplied by zero, and makes the whole sum none",
        (
            Patch(
                "dpacc.layers.kernels.clipped_sums",
                "tl.where(scale > 0, numbers, 0.0) * scale",
                "numbers * scale",
            ),
        ),
        (f"{_KERNELS}/test_clipped_sums.py::test_the_sum_is_torchs[flat]",),
    ),
    Bug(
        "a norm without the last tokens",
        "a kernel measures whole blocks of tokens and leaves the rest out, so gradients exceed C",
        (
            Patch(
                "dpacc.layers.kernels.outer_products",
                "    for start in range(0, tokens, TOKENS):",
                "    for start in range(0, tokens - tokens % TOKENS, TOKENS):",
            ),
        ),
        (f"{_PRODUCTS}::test_products_and_norms_are_torchs[dtype0-37-70-5]",),
    ),
    Bug(
        "products in TF32",
        "a GPU multiplies fp32 in ten bits, so that what is kept is no example's gradient",
        (
            Patch(
                "dpacc.layers.kernels.outer_products",
                'input_precision="ieee"',
                'input_precision="tf32"',
            ),
        ),
        (f"{_KERNELS}/test_compiled.py::test_every_kernel_compiles_for_an_h100",),
    ),
    Bug(
        "a norm without the last tiles",
        "the squares of a wide layer's first tiles alone are added up",
        (
            Patch(
                "dpacc.layers.kernels.outer_products",
                "    for start in range(0, tiles, PARTS):",
                "    for start in range(0, PARTS, PARTS):",
            ),
        ),
        (f"{_PRODUCTS}::test_a_layer_of_many_tiles_is_measured_whole",),
    ),
    Bug(
        "a second pass of whatever it meets",
        "two passes in a kernel multiply a gradient that is no number by zero",
        (
            Patch(
                "dpacc.layers.kernels.outer_products",
                "tl.where(scale > 0, product, 0.0) * scale",
                "product * scale",
            ),
        ),
        (f"{_PRODUCTS}::test_the_scaled_sum_is_torchs[37-70-5]",),
    ),
    Bug(
        "kernels that nobody compared",
        "a run on a GPU relies on kernels that give other numbers there than torch does",
        (Patch("dpacc.layers.kernels.choice", "    require_agreement(on)\n", ""),),
        (f"{_KERNELS}/test_choice.py::test_a_kernel_that_differs_is_refused",),
    ),
    Bug(
        "the cipher's blocks overlap",
        "a counter of AES is used in two places on a GPU, so that elements share their noise",
        (
            Patch(
                "dpacc.randomness.aes_words",
                "    block = first_block + 2 * pair\n",
                "    block = first_block + pair\n",
            ),
        ),
        (f"{_RANDOMNESS}/test_aes_words.py::test_the_first_block_is_nists",),
    ),
    Bug(
        "every chunk counts from nought",
        "noise made on a GPU repeats itself every four million elements",
        (
            Patch(
                "dpacc.randomness.device_noise",
                "first_block=start // WORDS_PER_BLOCK",
                "first_block=0",
            ),
        ),
        (f"{_RANDOMNESS}/test_device_noise.py::test_the_noise_is_the_processors_bit_for_bit",),
    ),
    Bug(
        "a step's key is another's",
        "noise made on a GPU is the same in every step, and cancels between two",
        (
            Patch(
                "dpacc.randomness.device_noise",
                'purpose="noise", step=step',
                'purpose="noise", step=0',
            ),
        ),
        (
            f"{_RANDOMNESS}/test_device_noise.py::test_the_noise_is_the_processors_bit_for_bit",
            f"{_KERNELS}/test_steps.py::test_the_noise_of_a_step_is_the_same_to_the_last_bit",
        ),
    ),
)
