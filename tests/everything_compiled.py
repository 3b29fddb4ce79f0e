"""Models are compiled whoever makes an engine, so that what a test shows is shown of compiled ones.

    DPACC_TESTS_COMPILE=step pytest -p tests.everything_compiled tests/dpacc/step/test_engine.py

runs any tests so, by hand, by default with `blocks`; `test_compiled_invariance` runs some of them
in the suite. Torch stops short of machine code, which takes it minutes: `benchmarks/invariance.py`
has it made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """As a plugin: for the whole session."""
    os.environ["TORCHDYNAMO_DISABLE"] = "0"  # before the suite's own default
    everything = everything_compiled(os.environ.get("DPACC_TESTS_COMPILE", "blocks"))
    everything.__enter__()
    config.add_cleanup(lambda: everything.__exit__(None, None, None))


@contextmanager
def everything_compiled(compile: Any) -> Iterator[list[Any]]:
    """While it lasts; the models that were compiled. One that cannot be so trains as it is."""
    from dpacc.errors import ConfigurationError
    from dpacc.layers.blocks import compile_as_asked
    from dpacc.step import engine
    from tests.dpacc.layers.test_blocks import compiling

    models: list[Any] = []

    def compile_anyway(asked: str, *, model: Any, placement: str) -> None:
        try:
            compile_as_asked(compile, model=model, placement=placement)
        except ConfigurationError:
            compile_as_asked(asked, model=model, placement=placement)
        else:
            models.append(model)

    with pytest.MonkeyPatch.context() as patch, compiling(patch, "eager"):
        patch.setattr(engine, "compile_as_asked", compile_anyway)
        yield models
