import math

import pytest
from dpacc_accounting.bracketing import last_negative

FUNCTIONS = {
    "line": lambda x: x - 1.234,
    "cube": lambda x: (x - 1.234) ** 3,
    "steep": lambda x: math.expm1(50 * (x - 1.234)),
    "flat": lambda x: math.atan(1e-6 * (x - 1.234)),
    "jump": lambda x: -1.0 if x < 1.234 else 1e9,
    "blocked": lambda x: -math.inf if x < 1.0 else x - 1.234,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_bracket_closes_around_the_root(name):
    """The returned ends differ by the tolerance and hold the sign change between them."""
    function = FUNCTIONS[name]
    low, high = last_negative(function=function, low=0.0, high=10.0, tolerance=1e-12)
    assert function(low) < 0 <= function(high)
    assert high - low <= 1e-12 * high


def test_a_smooth_function_takes_a_dozen_evaluations():
    """Closing 12 digits on a smooth function takes far fewer steps than the 43 of halving."""
    calls = []

    def counted(x: float) -> float:
        calls.append(x)
        return math.exp(x) - 3

    last_negative(function=counted, low=0.0, high=10.0, tolerance=1e-12)
    assert len(calls) <= 20
