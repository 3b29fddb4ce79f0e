"""Results of cells as what is compared: lines of one way of training each, and what ε means."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from dpacc_accounting.guarantee import METHOD_NAMES, Note, rounded_up

from dpacc.federated.benchmark.kept_cells import Found

_WAYS = ("central", "federated", "local")
NAMES = {"central": "in one place", "local": "alone", "federated": "federated"}
"""Of ways to train."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """One way of training over several ε.

    Args:
        way: central, local or federated.
        name: as a legend calls it.
        rank: its place among those of the same way.
        points: quality and its standard error by ε, in percent where it is a share.
    """

    way: str
    name: str
    rank: int
    points: Mapping[float, tuple[float, float]]


def by_task(results: Iterable[Found]) -> dict[tuple[str, str], list[Found]]:
    """Results of each model on each data set, in order."""
    found: dict[tuple[str, str], list[Found]] = {}
    for each in results:
        cell = each["cell"]
        found.setdefault((Path(cell["model"]).name, Path(cell["data_set"]).stem), []).append(each)
    return found


def series_of(results: Sequence[Found]) -> list[Series]:
    """The lines of one picture: in one place, federated, alone; repeats as their mean."""
    lines: dict[tuple[str, int, str], list[Found]] = {}
    for each in results:
        cell = each["cell"]
        lines.setdefault((cell["way"], cell["clients"], cell["aggregation"]), []).append(each)
    ranked = sorted(lines, key=lambda line: (_WAYS.index(line[0]), line[1], line[2]))
    several = len({rule for _, _, rule in lines}) > 1
    return [
        Series(
            way=way,
            name=_named(way, clients, rule if several else ""),
            rank=sum(1 for other in ranked[:place] if other[0] == way),
            points=_points(lines[way, clients, rule]),
        )
        for place, (way, clients, rule) in enumerate(ranked)
    ]


def place_of(found: Found) -> tuple[float, int, int, str, int]:
    """Where a cell stands in a table: by ε, then by way, number of clients, rule and repeat."""
    cell = found["cell"]
    way = _WAYS.index(cell["way"])
    return cell["epsilon"], way, cell["clients"], cell["aggregation"], cell["repeat"]


def as_percent(found: Found) -> float:
    """What a quality is multiplied by to be shown: 100 for a share, 1 for a perplexity."""
    return 1.0 if found["metric"] == "perplexity" else 100.0


def shown(quality: float, error: float, *, metric: str) -> str:
    """A quality with its standard error.

    >>> shown(0.7312, 0.018, metric="balanced accuracy"), shown(3.14, 0.05, metric="perplexity")
    ('73.1% ± 1.8', '3.14 ± 0.05')
    """
    if metric == "perplexity":
        return f"{quality:.2f} ± {error:.2f}"
    return f"{quality:.1%} ± {100 * error:.1f}"


def epsilon_of(found: Found) -> str:
    """The ε that a cell's ledgers hold, rounded up; or that there is none."""
    stated = found["guarantee"]
    return "NOT private" if stated["void_because"] else rounded_up(float(stated["epsilon"]))


def meaning(results: Iterable[Found]) -> str:
    """What ε means in these results: δ, adjacency, unit and method."""
    stated = [each["guarantee"] for each in results]
    each = dict.fromkeys(
        f"ε of each client at δ = {rounded_up(said['delta'])}, {said['adjacency']}, "
        f"unit: {said['unit']}, {METHOD_NAMES.get(said['method'], said['method'])}"
        for said in stated
    )
    return "; ".join(each)


def notes_of(results: Iterable[Found]) -> list[Note]:
    """What voids or qualifies any of these ε, each fact once."""
    stated = [each["guarantee"] for each in results]
    void = [Note("not-private", text) for said in stated for text in said["void_because"]]
    others = [Note("noted", text) for said in stated for text in said["qualified_by"]]
    return list(dict.fromkeys([*void, *others]))


def _named(way: str, clients: int, rule: str) -> str:
    what = NAMES[way] if way == "central" else f"{NAMES[way]}, {clients} clients"
    return f"{what} ({rule})" if rule else what


def _points(results: Sequence[Found]) -> dict[float, tuple[float, float]]:
    by_epsilon: dict[float, list[Found]] = {}
    for each in results:
        by_epsilon.setdefault(float(each["cell"]["epsilon"]), []).append(each)
    return {
        epsilon: (
            as_percent(repeats[0]) * mean(each["quality"] for each in repeats),
            as_percent(repeats[0]) * _error(repeats),
        )
        for epsilon, repeats in sorted(by_epsilon.items())
    }


def _error(repeats: Sequence[Found]) -> float:
    """Of the mean of repeats: the larger of what the sample and the repeats' spread say."""
    sample = mean(float(each["error"]) for each in repeats)
    if len(repeats) < 2:
        return sample
    middle = mean(float(each["quality"]) for each in repeats)
    variance = sum((each["quality"] - middle) ** 2 for each in repeats) / (len(repeats) - 1)
    return max(sample, math.sqrt(variance / len(repeats)))
