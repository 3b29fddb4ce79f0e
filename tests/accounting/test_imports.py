import json
import subprocess
import sys

import dpacc_accounting
import pytest


def loaded_by(code: str) -> set[str]:
    """The top-level modules in memory after `code` has run in a fresh interpreter."""
    ask = f"{code}\nimport json, sys\nprint(json.dumps([m.split('.')[0] for m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_importing_the_accountant_loads_no_numerics():
    """`import dpacc_accounting` and describing events loads neither numpy nor scipy nor torch."""
    code = "from dpacc_accounting import Gaussian; Gaussian(noise_multiplier=1.0)"
    assert not loaded_by(code) & {"numpy", "scipy", "torch", "dp_accounting"}


def test_pricing_loads_no_torch_and_the_guard_can_see_what_is_loaded():
    """Pricing loads numpy and scipy, which the guard sees, but not torch or dp_accounting."""
    code = (
        "from dpacc_accounting import *\n"
        "calibrate_noise(dataset_size=1000, batch_size=10, epochs=1, epsilon=8.0, delta=1e-5)"
    )
    loaded = loaded_by(code)
    assert {"numpy", "scipy"} <= loaded
    assert not loaded & {"torch", "transformers", "dp_accounting"}


def test_every_public_name_is_there():
    """Each name in `__all__` can be had, and an unknown one is an AttributeError that names it."""
    assert len(dpacc_accounting.__all__) >= 13
    for name in dpacc_accounting.__all__:
        assert getattr(dpacc_accounting, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        dpacc_accounting.no_such_name  # noqa: B018
