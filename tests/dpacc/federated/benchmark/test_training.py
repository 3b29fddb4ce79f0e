"""What a cell states of its cost."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dpacc.federated.benchmark.training import dearest
from dpacc.federated.server.history import ClientBooks, History, RoundReport


def history(name: str, *, sigma: float, **notes: Any) -> History:
    books = ClientBooks(
        epsilon=1.0,
        delta=1e-5,
        epsilon_budget=50.0,
        noise_multiplier=sigma,
        sampling_probability=0.25,
        steps_charged=4,
        steps_taken=4,
        **notes,
    )
    report = RoundReport(
        number=1,
        asked=(name,),
        survivors=(name,),
        failed={},
        filtered={},
        books={name: books},
        quality={},
    )
    return History(rounds=[report])


def test_the_dearest_client_is_stated_with_the_notes_of_all() -> None:
    """ε is priced from σ, q and steps; a note of a cheaper client stands beside it, too."""
    cheap, dear = history("a", sigma=4.0, qualified_by=("whitening",)), history("b", sigma=1.0)
    stated = dearest([cheap, dear])
    (price,) = dear.guarantee().prices
    assert stated.epsilon == price.server.epsilon
    assert ["whitening" in note.text for note in stated.notes] == [True]


@pytest.mark.parametrize("place", [0, 1])
def test_one_client_without_privacy_voids_the_cell(place: int) -> None:
    """Whichever of the clients it is."""
    runs = [history("a", sigma=4.0), history("b", sigma=1.0)]
    runs[place] = history("c", sigma=4.0, void_because=("fixed-seed",))
    assert dearest(runs).epsilon == math.inf
