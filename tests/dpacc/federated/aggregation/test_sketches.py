"""FedASK: exact where the sketch is large enough, within its bound where not, and two questions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import read_ledger
from flwr.app import Array, ArrayRecord, Message, MessageType, RecordDict

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.averaging import mean_of
from dpacc.federated.aggregation.factors import Factors, factors_of
from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.aggregation.rule_choice import aggregation_named
from dpacc.federated.aggregation.sketch_messages import read_sketching
from dpacc.federated.aggregation.sketches import OVERSAMPLING, PROBES, Sketching
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.updates.layout import Arrays
from tests.dpacc.federated.aggregation.test_averaging import BOTH, effective_weight
from tests.dpacc.federated.federations import client, server
from tests.tiny_models import tiny_model

LAYER = Factors(name="q", lower="A", upper="B", scale=2.0, outputs=60, inputs=50)


def drawn(seed: int, rank: int = 4) -> Arrays:
    generator = np.random.default_rng(seed)
    shapes = {"A": (rank, LAYER.inputs), "B": (LAYER.outputs, rank)}
    return {n: generator.normal(size=shape).astype(np.float32) for n, shape in shapes.items()}


def aggregated(updates: dict[str, Arrays], size: int, number: int = 0) -> tuple[np.ndarray, float]:
    """The mean product by sketches, in float64, and the error that was reported."""
    sketching = Sketching(factors=(LAYER,), size=size, number=number)
    start = {LAYER.correction: np.zeros((LAYER.outputs, LAYER.inputs), np.float32)}
    found = sketching.aggregate(
        start | drawn(99),
        {name: sketching.first(each) for name, each in updates.items()},
        lambda bases: {name: sketching.second(each, bases) for name, each in updates.items()},
        drawn=drawn(99),
    )
    return LAYER.product(found.arrays) + found.arrays[LAYER.correction], found.error


def mean_product(updates: dict[str, Arrays]) -> np.ndarray:
    return np.asarray(np.mean([LAYER.product(each) for each in updates.values()], axis=0))


@pytest.mark.parametrize(("clients", "size"), [(1, 4), (3, 12), (8, 32), (5, 50)])
def test_a_sketch_of_the_means_rank_is_exact(clients: int, size: int) -> None:
    """n clients of rank r and size n·r, or all columns: the float64 mean, to fp32 rounding."""
    updates = {str(n): drawn(n) for n in range(clients)}
    found, error = aggregated(updates, size)
    expected = mean_product(updates)
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    assert error < 1e-5


def test_a_mean_of_low_rank_needs_no_larger_sketch() -> None:
    """Eight clients that share A have a mean of rank 4: a sketch of 4 is exact."""
    shared = drawn(50)["A"]
    updates = {str(n): drawn(n) | {"A": shared} for n in range(8)}
    found, error = aggregated(updates, 4)
    expected = mean_product(updates)
    assert np.abs(found - expected).max() <= 2e-6 * np.abs(expected).max()
    assert error < 1e-5


def test_a_smaller_sketch_errs_within_the_bound_and_says_how_far() -> None:
    """Over many rounds the mean squared error keeps HMT's bound; the report is right within 30%."""
    updates = {str(n): drawn(n) for n in range(6)}
    expected, size = mean_product(updates), 4
    values = np.linalg.svd(expected, compute_uv=False)
    bound = (1 + size / (OVERSAMPLING - 1)) * float(np.square(values[size:]).sum())
    squares, told = [], []
    for number in range(40):
        found, error = aggregated(updates, size, number)
        squares.append(float(np.square(found - expected).sum()))
        told.append(error**2)
    # The basis has 4 + 8 columns, so no error is below that of the best 12.
    best = float(np.square(values[size + OVERSAMPLING :]).sum())
    assert best < np.mean(squares) < bound
    assert np.mean(told) == pytest.approx(np.mean(squares) / np.square(expected).sum(), rel=0.3)


def test_the_server_needs_means_alone() -> None:
    """One client that sent the others' mean answers would give the same adapter, bit for bit."""
    updates = {str(n): drawn(n) for n in range(3)}
    sketching = Sketching(factors=(LAYER,), size=12)
    start = {LAYER.correction: np.zeros((LAYER.outputs, LAYER.inputs), np.float32)} | drawn(99)
    first = {name: sketching.first(each) for name, each in updates.items()}

    def second(bases: Arrays) -> dict[str, Arrays]:
        return {name: sketching.second(each, bases) for name, each in updates.items()}

    alone = sketching.aggregate(start, first, second, drawn=drawn(99))
    summed = sketching.aggregate(
        start,
        {"all": mean_of(first)},
        lambda bases: {"all": mean_of(second(bases))},
        drawn=drawn(99),
    )
    for name, values in alone.arrays.items():
        assert np.array_equal(values, summed.arrays[name])


def test_a_rank_that_the_mean_does_not_fill_can_still_learn() -> None:
    """Where B is zero everywhere, A is as it was drawn; nothing is added to the base."""
    model = tiny_model("llama")
    rule, first = aggregation_named("fedask", model=model)
    for layer in factors_of(model):
        first[layer.upper] = np.zeros_like(first[layer.upper])
    found = rule(first, {"a": dict(first), "b": dict(first)})
    for layer in factors_of(model):
        assert np.array_equal(found.arrays[layer.lower], first[layer.lower])
        assert not found.arrays[layer.upper].any()
        assert not found.arrays[layer.correction].any()


def test_shapes_are_those_announced() -> None:
    """First and second answers and bases have the shapes that both ends check against."""
    sketching, update = Sketching(factors=(LAYER,), size=5), drawn(1)
    first = sketching.first(update)
    bases = sketching.bases(first)
    second = sketching.second(update, bases)
    for found, like in (
        (first, sketching.first_like(update)),
        (bases, sketching.bases_like()),
        (second, sketching.second_like()),
    ):
        assert {n: a.shape for n, a in found.items()} == {n: a.shape for n, a in like.items()}
    assert first["sketch/q"].shape == (60, 5 + OVERSAMPLING + PROBES)


def trained(folder: Path, clients: list[DPLoRAClient], **settings: Any) -> Any:
    federation = server(folder, lora_config=BOTH, rounds=1, num_clients=len(clients))
    return federation, federation.train(clients=clients, aggregation="fedask", **settings)


def at_second(change: Callable[[Message, DPLoRAClient], Message], one: DPLoRAClient) -> None:
    """Let a client answer the first question honestly, and the second by `change`."""
    answer = one.answer

    def other(message: Message) -> Message:
        if message.metadata.message_type == MessageType.QUERY:
            return change(message, one)
        return answer(message)

    one.answer = other  # type: ignore[method-assign]


def dies(message: Message, one: DPLoRAClient) -> Message:
    raise OSError("gone")


def sends_nothing_finite(message: Message, one: DPLoRAClient) -> Message:
    sketching = read_sketching(message.content.config_records["config"], one._adapter.factors)
    assert sketching is not None
    arrays = {n: Array(np.full_like(a, np.nan)) for n, a in sketching.second_like().items()}
    return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)


def sends_other_shapes(message: Message, one: DPLoRAClient) -> Message:
    arrays = {"projection/x": Array(np.zeros(3, np.float32))}
    return Message(RecordDict({"arrays": ArrayRecord(arrays)}), reply_to=message)


@pytest.mark.parametrize("change", [dies, sends_nothing_finite, sends_other_shapes])
def test_who_fails_the_second_question_is_left_out(folder: Path, change: Any) -> None:
    """The model is the mean of the two who answered both, and the third is named."""
    clients = [client(folder, n, lora_config=BOTH) for n in (1, 2, 3)]
    at_second(change, clients[2])
    federation, history = trained(folder, clients)
    (report,) = history.rounds
    assert report.survivors == ("site-1", "site-2", "site-3")
    assert report.filtered == {"site-3": "did not answer the second question"}
    for layer in factors_of(federation.model):
        weights = [effective_weight(each.training._model, layer) for each in clients[:2]]
        mean = (weights[0] + weights[1]) / 2
        found = effective_weight(federation.model, layer)
        assert float((found - mean).abs().max()) < 1e-6


def test_a_second_question_costs_nothing_and_answers_for_its_own_round_alone(folder: Path) -> None:
    """Asked again, with hostile bases or another round, the client charges nothing and refuses."""
    one, seen = client(folder, 1, lora_config=BOTH), []

    def look(message: Message, each: DPLoRAClient) -> Message:
        seen.append(message)
        return DPLoRAClient.answer(each, message)

    at_second(look, one)
    _, history = trained(folder, [one])
    assert history.rounds[0].filtered == {}
    assert one.training.steps_charged == 3
    question = seen[0]
    question.content.config_records["config"]["server-round"] = 2
    assert "was not answered" in DPLoRAClient.answer(one, question).error.reason
    question.content.config_records["config"]["server-round"] = 1
    bases = question.content.array_records["arrays"]
    name = next(iter(bases))
    bases[name] = Array(np.full_like(bases[name].numpy(), np.inf))
    assert "not finite" in DPLoRAClient.answer(one, question).error.reason
    one.close()
    asked_again = client(folder, 1, lora_config=BOTH)
    assert "not finite" in asked_again.answer(question).error.reason
    assert asked_again._training is None
    stranger = client(folder, 2, lora_config=BOTH)
    assert "was not answered" in stranger.answer(question).error.reason
    assert len(read_ledger(path=folder / "site-1" / "ledger.jsonl").releases) == 3


def test_a_new_process_answers_the_second_question(folder: Path) -> None:
    """A client that restarts between the questions answers from the update on its disk."""
    clients = [client(folder, n, lora_config=BOTH) for n in (1, 2)]

    def restart(message: Message, one: DPLoRAClient) -> Message:
        one.close()
        return client(folder, 1, lora_config=BOTH).answer(message)

    at_second(restart, clients[0])
    _, history = trained(folder, clients)
    assert history.rounds[0].filtered == {}
    assert history.rounds[0].aggregation_error < 1e-5


def test_a_small_sketch_trains_and_reports_its_error(folder: Path) -> None:
    """Two rounds with a sketch below the mean's rank: an error above rounding, and below 1."""
    clients = [client(folder, n, lora_config=BOTH) for n in (1, 2)]
    federation = server(folder, lora_config=BOTH, rounds=2)
    history = federation.train(clients=clients, aggregation="fedask", sketch_size=1)
    assert [report.survivors for report in history.rounds] == [("site-1", "site-2")] * 2
    assert all(0 <= report.aggregation_error < 1 for report in history.rounds)


def test_what_sketches_do_not_go_with_is_refused(folder: Path) -> None:
    """A defence, another rule, or a size of nothing: before anybody is asked."""
    federation = server(folder, lora_config=BOTH)
    for settings, why in (
        ({"aggregation": "fedask", "defence": Defence()}, "with a defence"),
        ({"aggregation": "fedex", "sketch_size": 4}, "sends no sketches"),
        ({"aggregation": "fedask", "sketch_size": 0}, "whole number above 0"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            federation.app(**settings)  # type: ignore[arg-type]
