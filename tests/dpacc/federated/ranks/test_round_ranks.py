"""One rank a round for all: nothing beyond it learns, is noised, or crosses; nobody may choose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import epsilon, read_ledger
from flwr.app import Message

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.ranks.round_ranks import ROUND_RANK, FirstRanks, rank_asked, round_ranks
from dpacc.federated.requests import RequestRefused
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.kept_state import KeptState
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import Arrays, load_arrays, trainable_arrays
from dpacc.layers.dynamic_rank import DynamicRank
from dpacc.step.logical_step import LogicalStep
from tests.dpacc.federated.federations import (
    CLASSES,
    DELTA,
    classifier_folder,
    client,
    die_in_the_second_round,
    opinions,
    server,
)

LORA = LoraSettings(method="dylora", rank=4, target_modules=("q_proj", "v_proj"), seed=17)
ROUNDS = 3


def begun(place: Path, **changes: Any) -> FederatedServer:
    """A server whose adapter has no zeros, so that what moves shows."""
    federation = server(place, **{"rounds": ROUNDS, "lora_config": LORA} | changes)
    normal = np.random.default_rng(3).standard_normal
    arrays = trainable_arrays(federation.model)
    shaken = {name: (0.1 * normal(each.shape)).astype(np.float32) for name, each in arrays.items()}
    load_arrays(federation.model, shaken)
    return federation


def clients(place: Path, **changes: Any) -> list[DPLoRAClient]:
    return [client(place, n, lora_config=LORA, **changes) for n in (1, 2)]


class Watched:
    """The adapter at the beginning, and after each round."""

    def __init__(self) -> None:
        self.adapters: list[Arrays] = []

    def __call__(self, model: Any) -> dict[str, float]:
        self.adapters.append(trainable_arrays(model))
        return {}

    @property
    def moved(self) -> list[tuple[int, int]]:
        """Of each round, the rows and columns that are not what they were: least and most."""
        found = []
        for before, after in zip(self.adapters, self.adapters[1:], strict=False):
            counts = [_moved(before[n], after[n], n) for n in before]
            found.append((min(counts), max(counts)))
        return found


def _moved(before: np.ndarray, after: np.ndarray, name: str) -> int:
    """How many first rows of A or columns of B differ, all of whose numbers then do."""
    changed = before != after if "lora_A" in name else (before != after).T
    rows = changed.any(axis=1)
    first = int(rows.sum())
    assert changed[:first].all()
    return first


def drawn(lora: LoraSettings = LORA, rounds: int = ROUNDS) -> list[int]:
    ranks = round_ranks(lora)
    assert ranks is not None
    return [ranks.of(number) for number in range(1, rounds + 1)]


def exactly(ranks: Iterable[int]) -> list[tuple[int, int]]:
    return [(rank, rank) for rank in ranks]


def test_beyond_a_rounds_rank_nothing_moves(folder: Path) -> None:
    """All first rows and columns move, to the last number, and no other by a single bit."""
    assert drawn() == [2, 3, 4]
    seen = Watched()
    history = begun(folder).train(clients=clients(folder), aggregation="average", measure=seen)
    assert all(len(report.survivors) == 2 for report in history.rounds)
    assert seen.moved == exactly(drawn())


def test_what_is_done_to_updates_stays_within_the_rank(folder: Path) -> None:
    """Codes and outlier tests are of what learns; beyond it nothing moves."""
    seen, federation = Watched(), begun(folder)
    federation.train(
        clients=clients(folder),
        aggregation="average",
        measure=seen,
        compression=Compression(bits=8, keep=0.5),
        defence=Defence(rule="none"),
    )
    for before, after, rank in zip(seen.adapters, seen.adapters[1:], drawn(), strict=False):
        first = FirstRanks(rank=rank, whole=before)
        assert all(np.array_equal(first.kept(after)[name], after[name]) for name in after)
        assert any(not np.array_equal(before[name], after[name]) for name in after)


def test_all_clients_train_at_the_rounds_rank(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client takes every step of a round at the rank that its number draws, for its price."""
    taken: dict[int, list[int]] = {}
    honest = DynamicRank.rank

    def rank(self: DynamicRank, step: int) -> int:
        taken.setdefault(id(self), []).append(honest(self, step))
        return honest(self, step)

    monkeypatch.setattr(DynamicRank, "rank", rank)
    members = clients(folder)
    begun(folder).train(clients=members, aggregation="average")
    steps = members[0].training.steps_per_round
    assert steps == 3
    for ranks in taken.values():
        each = len(ranks) // ROUNDS
        assert [{*ranks[at : at + each]} for at in range(0, len(ranks), each)] == [
            {rank} for rank in drawn()
        ]
    assert len(taken) == 2
    for member in members:
        event = read_ledger(path=member.folder / "ledger.jsonl").event
        assert event == member.training.plan.event()
        spent = epsilon(event=event, delta=DELTA)
        assert 19 < spent.epsilon <= member.dp_config.epsilon


def test_a_resumed_federation_goes_on_with_the_right_ranks(folder: Path) -> None:
    """A server that died, and clients that start anew, train the next rounds at their own ranks."""
    die_in_the_second_round(begun(folder), clients(folder), aggregation="average")
    kept = KeptState(folder / "server").read()
    assert kept is not None
    seen = Watched()
    seen.adapters.append(kept.arrays)
    history = begun(folder).train(clients=clients(folder), aggregation="average", measure=seen)
    assert len(history.rounds) == ROUNDS
    assert seen.moved == exactly(drawn()[1:])
    other = replace(LORA, seed=18)
    with pytest.raises(ConfigurationError, match="a federation with other settings"):
        server(folder, rounds=ROUNDS, lora_config=other).train(
            clients=clients(folder), aggregation="average"
        )


def test_whoever_draws_another_rank_is_refused_before_any_charge(folder: Path) -> None:
    """A client of another seed, one of plain LoRA, and a server that names another rank or none."""
    strangers = [
        client(folder, 1, lora_config=replace(LORA, seed=18)),
        client(folder, 2, lora_config=replace(LORA, method="lora")),
    ]
    assert drawn()[0] != drawn(replace(LORA, seed=18))[0]
    history = begun(folder, rounds=1).train(clients=strangers, aggregation="average")
    reasons = [*history.rounds[0].failed.values()]
    assert len(reasons) == 2
    assert all("give both the same method, rank and seed" in reason for reason in reasons)
    for name in ("site-1", "site-2"):
        assert not (folder / name / "ledger.jsonl").exists()
    (right,) = drawn(rounds=1)
    assert rank_asked({ROUND_RANK: right}, number=1, lora=LORA) == right
    for wrong in ({ROUND_RANK: 1 + right % 4}, {}):
        with pytest.raises(RequestRefused, match=f"this client's is {right}"):
            rank_asked(wrong, number=1, lora=LORA)


class OtherRank(DPLoRAClient):
    """Trains as asked, and then says and sends what it likes."""

    said: int

    def answer(self, message: Message) -> Message:
        """An honest answer, with another rank's name and every array whole."""
        reply = super().answer(message)
        reply.content.config_records["config"]["rank"] = self.said
        reply.content["arrays"] = message.content.array_records["arrays"]
        return reply


@pytest.mark.parametrize("lies", [True, False])
def test_an_update_of_another_rank_is_refused(folder: Path, lies: bool) -> None:
    """By what it says, or else by its shapes; the others' mean is taken without it."""
    honest, other = clients(folder)
    other.__class__ = OtherRank
    (rank,) = drawn(rounds=1)
    assert rank < 4
    other.said = rank if lies else 4  # type: ignore[attr-defined]
    (first,) = begun(folder, rounds=1).train(clients=[honest, other], aggregation="average").rounds
    assert first.survivors == ("site-1",)
    (why,) = first.failed.values()
    assert ("agreed are" if lies else f"all train at rank {rank}") in why


def test_a_step_that_fails_leaves_the_next_round_a_whole_adapter(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a failed round had put aside is not brought into the next one's start."""
    only = client(folder, 1, lora_config=LORA, dp={"most_rounds": ROUNDS + 1})
    federation = begun(folder, num_clients=1)
    federation.train(clients=[only], aggregation="average")
    training, start = only.training, trainable_arrays(federation.model)
    monkeypatch.setattr(LogicalStep, "update", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError) as failed:
        training.run_round(start, rank=1)
    now = trainable_arrays(training._model)
    assert failed.value.__traceback__ is not None
    assert all(np.array_equal(now[name], start[name]) for name in start)


@pytest.mark.parametrize("aggregation", ["ffa", "fedex", "stacking", "fedask"])
def test_rules_that_hold_at_one_rank_alone_are_refused(folder: Path, aggregation: Any) -> None:
    """A correction of the base would be there at every rank."""
    with pytest.raises(ConfigurationError, match="take aggregation='average'"):
        begun(folder).train(clients=clients(folder), aggregation=aggregation)


def test_a_rank_of_ones_own_is_refused(folder: Path) -> None:
    """The round's is everybody's."""
    with pytest.raises(ConfigurationError, match="all train at one rank a round"):
        clients(folder, rank=2)


def test_a_head_is_trained_at_every_rank(folder: Path) -> None:
    """Beside the first rows and columns a classifier's head moves in each round, whole."""
    task = {"task": "sequence-classification", "labels": tuple(CLASSES), "max_length": 16}
    lora = replace(LORA, target_modules=("query", "value"))
    settings: dict[str, Any] = {
        "model_name": str(classifier_folder(folder)),
        "lora_config": lora,
        "task": task,
    }
    seen = Watched()
    federation = server(folder, num_clients=1, rounds=2, **settings)
    data = opinions(folder / "opinions.jsonl", count=12, seed=1)
    federation.train(
        clients=[client(folder, 1, data_path=data, **settings)],
        aggregation="average",
        measure=seen,
    )
    for before, after in zip(seen.adapters, seen.adapters[1:], strict=False):
        heads = [name for name in after if "lora_" not in name]
        assert heads
        assert all((before[name] != after[name]).all() for name in heads)
    rank = drawn(lora)[0]
    assert rank < 4
    before, after = seen.adapters[:2]
    first = FirstRanks(rank=rank, whole=before)
    assert all(np.array_equal(first.kept(after)[name], after[name]) for name in after)
