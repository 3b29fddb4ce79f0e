"""Train on synthetic texts, test on real ones: how much of a task synthetic records teach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from dpacc.artifacts.synthetic.divergence import Vectors

# On inputs of variance 1; public, and the same for whatever is compared.
_RIDGE = 0.3


class LogisticRegression:
    """Softmax regression: mean cross-entropy + ½·λ‖W‖², at its one minimum.

    Inputs are centred and scaled by what they were fitted on. Of one label alone it says that.

    Args:
        inputs: [n, d].
        labels: n of them.

    >>> import numpy as np
    >>> fitted = LogisticRegression(np.array([[0.0], [1.0], [4.0]]), ["low", "low", "high"])
    >>> fitted.predict(np.array([[-1.0], [5.0]]))
    ['low', 'high']
    """

    def __init__(self, inputs: Vectors, labels: Sequence[str]) -> None:
        self.classes = sorted(set(labels))
        self._mean = inputs.mean(axis=0)
        self._scale = inputs.std(axis=0).clip(1e-12)
        scaled = self._scaled(inputs)
        true = np.array([[label == each for each in self.classes] for label in labels], dtype=float)
        shape = (scaled.shape[1], len(self.classes))

        def objective(flat: Vectors) -> tuple[float, Vectors]:
            weights = flat.reshape(shape)
            logs = log_softmax(scaled @ weights, axis=1)
            slope = scaled.T @ (np.exp(logs) - true) / len(labels)
            # The intercept, the last row, is free.
            slope[:-1] += _RIDGE * weights[:-1]
            loss = -np.sum(true * logs) / len(labels) + _RIDGE / 2 * np.sum(weights[:-1] ** 2)
            return float(loss), slope.ravel()

        found = minimize(objective, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B")
        self._weights = found.x.reshape(shape)

    def predict(self, inputs: Vectors) -> list[str]:
        """The likeliest label of each row."""
        return [self.classes[at] for at in (self._scaled(inputs) @ self._weights).argmax(axis=1)]

    def accuracy(self, inputs: Vectors, labels: Sequence[str]) -> float:
        """The share of rows whose likeliest label is right."""
        pairs = zip(self.predict(inputs), labels, strict=True)
        return sum(guess == label for guess, label in pairs) / len(labels)

    def _scaled(self, inputs: Vectors) -> Vectors:
        return np.column_stack([(inputs - self._mean) / self._scale, np.ones(len(inputs))])


def two_fold_accuracy(inputs: Vectors, labels: Sequence[str]) -> float:
    """The share that is right where each half is asked about by what was fitted on the other."""
    halves = [slice(0, None, 2), slice(1, None, 2)]
    right = 0.0
    for learned, asked in (halves, halves[::-1]):
        fitted = LogisticRegression(inputs[learned], labels[learned])
        right += fitted.accuracy(inputs[asked], labels[asked]) * len(labels[asked])
    return right / len(labels)
