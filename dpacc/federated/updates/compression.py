"""Fewer bytes for an update: fewer bits a number, or fewer numbers.

It is applied to the difference between an update and the round's start. Where that was noised
before, this is post-processing and costs no privacy. All chance in it is public: both ends draw the
same coins from the run, the round and the client's name.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

from dpacc.errors import ConfigurationError
from dpacc.randomness.run_secret import KeyedStream

_LEVELS = {8: 127, 4: 7}


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What is sent of n numbers x: k of them, in few bits each.

    Codes are c = ⌊x/Δ + u⌋ with u uniform, so that E[c·Δ] = x: stochastic rounding, Δ being the
    largest number of a block over 127 (8 bits) or 7 (4 bits) (QSGD, arXiv 1610.02132).

    Args:
        bits: of each number: 32 leaves it as it is, 8 or 4 round it.
        keep: k/n, the share of numbers that is sent.
        selection: which: "largest" in magnitude, whose places are sent too and whose mean is
            biased towards 0; or "random", k places drawn in public and nothing sent of them, each
            number scaled by n/k, without bias (arXiv 1809.07599).
        limit: a public number in place of each block's largest: numbers beyond ±limit are cut, and
            all clients use one grid and, with "random", the same places. Their codes can then be
            added as whole numbers, as secure aggregation does.

    Raises:
        ConfigurationError: a field out of range, or nothing that would make an update smaller.

    >>> Compression(bits=4, keep=0.1, selection="random").words
    '{"bits": 4, "keep": 0.1, "selection": "random"}'
    >>> Compression(bits=8, limit=0.5).summable
    True
    """

    bits: Literal[32, 8, 4] = 32
    keep: float = 1.0
    selection: Literal["largest", "random"] = "largest"
    limit: float | None = None

    def __post_init__(self) -> None:
        _require(
            isinstance(self.bits, int) and self.bits in (32, 8, 4),
            f"bits={self.bits!r} must be 32, 8 or 4",
        )
        _require(
            self.selection in ("largest", "random"),
            f"selection={self.selection!r} must be largest or random",
        )
        _require(
            _is_number(self.keep) and 0 < self.keep <= 1,
            f"keep={self.keep!r} must lie above 0 and be at most 1",
        )
        _require(
            self.bits < 32 or self.keep < 1,
            "bits=32 and keep=1 make nothing smaller: lower one of them, or leave compression out",
        )
        _require(
            self.limit is None or (_is_number(self.limit) and 0 < self.limit < math.inf),
            f"limit={self.limit!r} must be a finite number above 0",
        )
        _require(
            self.limit is None or self.bits < 32,
            f"limit={self.limit!r} with bits=32: a limit is for codes; take bits=8 or bits=4",
        )

    @property
    def summable(self) -> bool:
        """Whether nothing but the codes depends on data, so that clients' codes may be added."""
        return self.limit is not None and (self.keep == 1 or self.selection == "random")

    @property
    def words(self) -> str:
        """As one line of JSON, which `from_words` reads."""
        return json.dumps(self.to_json())

    @property
    def code(self) -> str:
        """As it is written in Python.

        >>> Compression(bits=8).code
        'Compression(bits=8)'
        """
        return f"Compression({', '.join(f'{k}={v!r}' for k, v in self.to_json().items())})"

    def to_json(self) -> dict[str, Any]:
        """The fields that are not as they are by default."""
        default = {"keep": 1.0, "selection": "largest", "limit": None}
        return {k: v for k, v in asdict(self).items() if default.get(k, ...) != v}

    @classmethod
    def from_words(cls, words: str) -> Self:
        """Read what `words` wrote.

        Raises:
            ConfigurationError: it is something else.
        """
        try:
            return cls(**json.loads(words))
        except ConfigurationError:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError("the compression asked for is unknown") from error

    def kept(self, count: int) -> int:
        """k of n = `count` numbers, at least one.

        >>> Compression(keep=0.1).kept(25)
        3
        """
        return min(count, max(1, math.ceil(self.keep * count)))

    @property
    def sends_places(self) -> bool:
        """Whether the places of the numbers kept must be sent too."""
        return self.keep < 1 and self.selection == "largest"

    @property
    def levels(self) -> int:
        """The largest code, for fewer than 32 bits."""
        return _LEVELS[self.bits]

    def gain(self, count: int) -> float:
        """n/k for random places, which makes the mean right; else 1."""
        random = self.keep < 1 and self.selection == "random"
        return count / self.kept(count) if random else 1.0


@dataclass(frozen=True, kw_only=True)
class PublicCoins:
    """The chance in one update's compression, which its client and the server both draw.

    Args:
        run: of the federation.
        number: of the round.
        client: what the client calls itself; with `Compression.limit` the places are all clients'.
    """

    run: str
    number: int
    client: str

    def rounding(self, count: int) -> npt.NDArray[np.float64]:
        """u in [0, 1) for each code."""
        return np.asarray((self._words("rounding", self.client, count) >> 11) * 2.0**-53)

    def places(self, compression: Compression, count: int) -> npt.NDArray[np.int64]:
        """k different places of `count`, every set equally likely, in rising order."""
        whose = "" if compression.summable else self.client
        words = self._words("places", whose, count)
        return np.sort(np.argsort(words, kind="stable")[: compression.kept(count)])

    def _words(self, purpose: str, whose: str, count: int) -> npt.NDArray[np.uint64]:
        label = json.dumps([purpose, self.run, self.number, whose])
        return KeyedStream(hashlib.sha256(label.encode()).digest()).words(start=0, count=count)


def require_summable(compression: Compression) -> None:
    """Refuse a compression that secure aggregation cannot add.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    _require(
        compression.keep == 1 or compression.selection == "random",
        "secure aggregation with selection='largest': which numbers a client keeps depends on its "
        "update, would cross unmasked, and differs between clients, whose masks then do not "
        "cancel; take selection='random'",
    )
    _require(
        compression.limit is not None,
        f"secure aggregation with bits={compression.bits} and no limit: each client's codes would "
        "stand for numbers of another size, which depends on its update, so that their sum means "
        "nothing; take bits=8 or bits=4 and give a public limit",
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigurationError(message)
