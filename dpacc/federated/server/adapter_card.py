"""The card of a federation's adapter: what is promised to whom, and nobody's name."""

from __future__ import annotations

from importlib.metadata import version

import yaml
from dpacc_accounting import FederatedGuarantee, Guarantee
from dpacc_accounting.federation.guarantees import Price
from dpacc_accounting.guarantee import METHOD_NAMES, rounded_up

from dpacc.federated.server.history import History
from dpacc.federated.settings import LoraSettings

_CARD = """\
---
{front_matter}---

# A federation's adapter

A LoRA adapter for `{base}`, trained by several clients with dpacc {dpacc}, none of which showed its
records to anybody. What is and what is not promised about them is stated below.

## Privacy

{privacy}

## Training

| setting | value |
| --- | --- |
{settings}

## Use

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base, "path/to/this/folder")   # base: {base}
```
"""


def adapter_card(
    *, base: str, history: History, lora: LoraSettings, aggregation: str, rounds: int
) -> str:
    """The card in Markdown.

    Clients are numbered in the order of their ε, so that nobody is named; under client-level
    privacy the two dearest prices alone are told, for who took part is a secret there.

    Args:
        base: which model it is for.
        history: what was done.
        lora: the adapter's settings.
        aggregation: the rule.
        rounds: how many were agreed on.
    """
    known = {"base_model": base, "library_name": "peft"}
    tags = {"tags": ["lora", "differential-privacy", "federated-learning", "dpacc"]}
    settings = {
        "rounds": f"{len(history.rounds)} of {rounds}" + _given_up(history),
        "aggregation": aggregation,
        "method": lora.method,
        "rank while it was trained": lora.rank,
        "alpha": lora.alpha,
        "target_modules": ", ".join(lora.target_modules),
        "seed": lora.seed,
    }
    return _CARD.format(
        front_matter=yaml.safe_dump(known | tags, sort_keys=False),
        base=base,
        dpacc=version("dpacc"),
        privacy=_privacy(history),
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items()),
    )


def _given_up(history: History) -> str:
    count = len(history.rolled_back)
    return f", {count} of them given up, and counted in every ε" if count else ""


def _privacy(history: History) -> str:
    if not history.is_priced:
        return "No client's update is in it: no client took part in any round."
    found = history.guarantee()
    notes = [f"- {each.text}" for each in dict.fromkeys(found.notes)]
    beside = ["What voids or qualifies this:\n", *notes, ""] if notes else []
    assumed = [f"- {each}" for each in found.assumptions]
    parts = [_prices(found), "", *beside, "What must be true for it to hold:\n", *assumed]
    return "\n".join(parts)


def _prices(found: FederatedGuarantee) -> str:
    """A row for each client, or for the dearest course of a client-level run."""
    lines = [
        "| whose data | unit | ε against the server | ε of the released models | δ | adjacency "
        "| method |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    if found.level == "client":
        dearest = found.worst_server.server, found.worst_released.released
        return "\n".join([*lines, _row("any client", *dearest)])
    ordered = sorted(found.prices, key=lambda price: (price.server.epsilon, price.server.unit))
    rows = [_row_of(f"client {at}", price) for at, price in enumerate(ordered, start=1)]
    return "\n".join([*lines, *rows])


def _row_of(name: str, price: Price) -> str:
    return _row(name, price.server, price.released)


def _row(name: str, server: Guarantee, released: Guarantee) -> str:
    cells = [
        name,
        released.unit,
        _epsilon(server),
        _epsilon(released),
        rounded_up(released.delta),
        str(released.adjacency),
        METHOD_NAMES.get(released.method, released.method),
    ]
    return f"| {' | '.join(cells)} |"


def _epsilon(found: Guarantee) -> str:
    if found.void_because:
        return "NOT private"
    if found.epsilon == float("inf"):
        return "none: the server is trusted"
    return rounded_up(found.epsilon)
