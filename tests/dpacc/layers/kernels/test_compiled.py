"""What the interpreter runs a GPU's compiler takes, too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def test_every_kernel_compiles_for_an_h100(tmp_path: Path) -> None:
    """To machine code, without a GPU; fp32 is multiplied in fp32, and never rounded to TF32."""
    program = "tests.dpacc.layers.kernels.compiled_program"
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", program], env=environment, check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)
    assert len(found) == 10
    assert all(each["bytes"] > 1000 and not each["tf32"] for each in found.values())
