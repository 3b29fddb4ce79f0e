"""Five clients for all signed sums of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from dpacc.federated.secure_sum.signed.signatures import SigningKeys
from tests.dpacc.federated.secure_sum.signed.signing_clients import write_key


@pytest.fixture
def keys(tmp_path: Path) -> list[SigningKeys]:
    """Five clients' that know one another: four of one kind, and one of the other."""
    kinds = ["ed25519"] * 4 + ["ecdsa"]
    own = [write_key(tmp_path, f"site-{n}", kind=kind) for n, kind in enumerate(kinds, start=1)]
    return [SigningKeys(own=each, pinned=tmp_path / "keys") for each in own]
