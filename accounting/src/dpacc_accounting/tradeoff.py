"""What a guarantee allows an attacker: bounds on telling two neighbouring datasets apart."""

import math

from dpacc_accounting.guarantee import Guarantee


def detection_bound(*, guarantee: Guarantee, false_alarms: float) -> float:
    """The true-positive rate of any attack at a false-positive rate α = ``false_alarms``.

    ``min(1, e^ε·α + δ, 1 − e^−ε·(1 − δ − α))`` (Kairouz, Oh & Viswanath, arXiv 1311.0776).

    >>> from dpacc_accounting.guarantee import Adjacency
    >>> g = Guarantee(epsilon=1.0, delta=0.0, adjacency=Adjacency.ADD_OR_REMOVE,
    ...               unit="example", method="pld", slack=0.0)
    >>> round(detection_bound(guarantee=g, false_alarms=0.01), 5)
    0.02718
    """
    shrink, delta = math.exp(-guarantee.epsilon), guarantee.delta
    mirrored = 1 - shrink * max(0.0, 1 - delta - false_alarms)
    return min(1.0, mirrored, false_alarms / shrink + delta if shrink else 1.0)


def advantage_bound(*, guarantee: Guarantee) -> float:
    """How far an attack's true-positive rate can exceed its false-positive rate.

    ``(e^ε − 1 + 2δ) / (e^ε + 1)`` (Humphries et al., arXiv 2010.12112).

    >>> from dpacc_accounting.guarantee import Adjacency
    >>> g = Guarantee(epsilon=1.0, delta=0.0, adjacency=Adjacency.ADD_OR_REMOVE,
    ...               unit="example", method="pld", slack=0.0)
    >>> round(advantage_bound(guarantee=g), 5)
    0.46212
    """
    shrink = math.exp(-guarantee.epsilon)
    return min(1.0, (1 - shrink + 2 * guarantee.delta * shrink) / (1 + shrink))
