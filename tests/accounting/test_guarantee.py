import json
import math

import pytest
from dpacc_accounting import Adjacency, Guarantee
from dpacc_accounting.guarantee import rounded_up
from hypothesis import given
from hypothesis import strategies as st


def guarantee(epsilon: float, delta: float = 1e-5) -> Guarantee:
    """A guarantee with this ε and otherwise plain fields."""
    return Guarantee(
        epsilon=epsilon,
        delta=delta,
        adjacency=Adjacency.REPLACE_ONE,
        unit="client",
        method="rdp",
        slack=0.5,
    )


@given(st.floats(0, 1e12))
def test_a_printed_value_is_never_below_the_real_one(value):
    """Rounding for print goes up, and by less than one part in a thousand."""
    printed = float(rounded_up(value))
    assert value <= printed <= value * 1.001 + 1e-300


def test_text_states_every_assumption():
    """The sentence names ε, δ, the adjacency, the unit and the method."""
    text = str(guarantee(1.00001))
    assert text == "(ε = 1.001, δ = 1e-05)-DP, replace-one adjacency, unit: client, RDP"


@pytest.mark.parametrize("epsilon", [1.25, math.inf])
def test_json_is_strict_and_complete(epsilon):
    """Every field is in the JSON, also for an infinite ε, which strict JSON has no number for."""
    document = json.loads(json.dumps(guarantee(epsilon).to_json(), allow_nan=False))
    assert float(document.pop("epsilon")) == epsilon
    assert document == {
        "delta": 1e-5,
        "adjacency": "replace-one",
        "unit": "client",
        "method": "rdp",
        "slack": 0.5,
        "void_because": [],
        "qualified_by": [],
    }
