"""A guarantee as the rows of a table, with everything that must be said beside ε."""

from dpacc_accounting import Guarantee
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up


def promise_rows(promise: Guarantee) -> list[tuple[str, str]]:
    """ε at its δ with all that it assumes, and what voids or qualifies it."""
    if promise.void_because:
        return [("NOT private", "; ".join(promise.void_because))]
    bounded_below = promise.slack < promise.epsilon
    return [
        ("ε", f"{rounded_up(promise.epsilon, digits=6)} at δ = {rounded_up(promise.delta)}"),
        ("adjacency", str(promise.adjacency)),
        ("privacy unit", promise.unit),
        ("method", METHOD_NAMES.get(promise.method, promise.method)),
        (
            "slack in ε",
            f"at most {rounded_up(promise.slack)}"
            if bounded_below
            else "unknown: this method has no lower bound",
        ),
        *([("qualified", "; ".join(promise.qualified_by))] if promise.qualified_by else []),
    ]
