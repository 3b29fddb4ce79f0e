"""Ranks from public facts, and from data at a price: votes, chances, charges and totals."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from dpacc_accounting import ExponentialMechanism, merge_ledgers, read_ledger

from dpacc.cli.main import dpacc
from dpacc.errors import ConfigurationError
from dpacc.federated.clients.rank_at_client import OwnRank
from dpacc.federated.ranks.rank_choice import (
    PrivateRank,
    PublicRank,
    RankLedger,
    draw_rank,
    votes,
    weights_of,
)
from dpacc.federated.settings import DPSettings, LoraSettings
from dpacc.federated.updates.compressed_updates import payload_bytes
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import trainable_arrays
from tests.dpacc.federated.aggregation.test_averaging import BOTH
from tests.dpacc.federated.federations import LORA, client, server

WIDE = LoraSettings(rank=8, target_modules=LORA.target_modules)
EIGHT = Compression(bits=8)
DP = DPSettings(epsilon=20.0, delta=1e-3, expected_batch_size=4)


@pytest.mark.parametrize("compression", [None, EIGHT, Compression(bits=4, keep=0.1)])
@pytest.mark.parametrize("limit", [3_000, 10_000, 25_000])
def test_a_public_rank_is_the_largest_that_fits(
    compression: Compression | None, limit: int
) -> None:
    """It fits, and one more would not: by bytes sent, and by memory."""

    def sent(rank: int) -> int:
        return payload_bytes(compression, count=rank * 640 + 10)

    found = PublicRank(upload_bytes=limit).largest(
        shared=64, outputs=640, others=10, compression=compression
    )
    assert sent(found) <= limit
    assert found == 64 or sent(found + 1) > limit
    held = PublicRank(memory_bytes=4 * 14 * 650 * 3).largest(shared=64, outputs=640, others=10)
    assert held == 3


def test_where_not_even_rank_one_fits_it_is_refused() -> None:
    """The error shows what rank 1 takes and what is allowed."""
    with pytest.raises(ConfigurationError, match="sends 400; memory_bytes=None and upload_bytes=9"):
        PublicRank(upload_bytes=9).largest(shared=4, outputs=100)


def test_a_client_trains_at_the_rank_that_its_line_allows(folder: Path) -> None:
    """Its update is within the bytes that it stated, and the others' is not."""
    model = server(folder, lora_config=WIDE, folder=folder / "shape").model
    count = sum(values.size for values in trainable_arrays(model).values())
    slow = client(
        folder, 1, lora_config=WIDE, rank=PublicRank(upload_bytes=payload_bytes(EIGHT, count=count))
    )
    quick = client(folder, 2, lora_config=WIDE)
    narrow = client(folder, 3, lora_config=WIDE, rank=PublicRank(upload_bytes=count * 4 * 0.3))
    history = server(folder, lora_config=WIDE, rounds=1, num_clients=3).train(
        clients=[slow, quick, narrow]
    )
    assert history.rounds[0].failed == {}
    assert [c.training.ranks.rank for c in (slow, quick, narrow)] == [2, 8, 2]
    history = server(
        folder, lora_config=WIDE, rounds=1, num_clients=1, folder=folder / "compressed"
    ).train(clients=[client(folder, 4, lora_config=WIDE, rank=slow._own_rank._given)],
            compression=EIGHT)  # fmt: skip
    assert history.rounds[0].failed == {}


def test_one_more_example_adds_one_vote_to_one_rank() -> None:
    """Whatever its losses, infinite and NaN ones too: the sensitivity that ε rests on."""
    draw = np.random.default_rng(0)
    for _ in range(200):
        losses = {rank: draw.normal(size=9) for rank in (1, 2, 4)}
        without = draw.normal(size=9)
        losses[2][-1] = draw.choice([np.nan, np.inf, -np.inf, losses[2][-1]])
        without[-1] = draw.choice([np.nan, np.inf, without[-1]])
        more = votes(without, losses, enough=0.9)
        fewer = votes(without[:-1], {r: each[:-1] for r, each in losses.items()}, enough=0.9)
        assert sorted(more[rank] - fewer[rank] for rank in more) == [0, 0, 1]


def test_examples_vote_for_the_smallest_rank_that_is_enough() -> None:
    """Ninety per cent of the best gain decides; whoever gains nothing takes the smallest."""
    without = np.array([3.0, 3.0, 3.0, 3.0])
    losses = {
        2: np.array([2.11, 2.05, 3.5, 1.0]),
        4: np.array([2.0, 2.0, 3.1, 2.0]),
        8: np.array([2.0, 2.0, 4.0, 2.5]),
    }
    assert votes(without, losses, enough=0.9) == {2: 3, 4: 1, 8: 0}


def test_chances_are_those_of_the_exponential_mechanism() -> None:
    """Weights in proportion to e^(ε·votes), to twelve digits; each place falls in its own part."""
    counts = {1: 10, 2: 13, 4: 12}
    weights = weights_of(counts, epsilon=0.5)
    for rank, count in counts.items():
        assert weights[rank] / weights[1] == pytest.approx(math.exp(0.5 * (count - 10)), rel=1e-12)

    class At(random.Random):
        place = 0

        def randrange(self, total: int) -> int:  # type: ignore[override]
            assert total == sum(weights.values())
            return self.place

    coins, below = At(), 0
    for rank, weight in weights.items():
        for coins.place in (below, below + weight - 1):
            assert draw_rank(counts, epsilon=0.5, coins=coins) == rank
        below += weight


def test_neighbours_chances_differ_by_at_most_epsilon_in_one_direction() -> None:
    """Over all pairs of outcomes, log-odds move within a range of ε: what the ledger charges."""
    budget, widths = 0.3, []
    for counts in ({1: 4, 2: 4, 4: 0}, {1: 900, 2: 0, 4: 899}, {1: 666, 2: 0, 4: 0}, {1: 0, 2: 0}):
        before = weights_of(counts, epsilon=budget)
        for more in counts:
            after = weights_of(counts | {more: counts[more] + 1}, epsilon=budget)
            moved = [math.log(after[rank] / before[rank]) for rank in counts]
            widths.append(max(moved) - min(moved))
    assert max(widths) == pytest.approx(budget, rel=1e-9)


def test_no_rank_is_impossible() -> None:
    """A rank a million votes behind still has its place among the coins."""

    class First(random.Random):
        def randrange(self, total: int) -> int:  # type: ignore[override]
            return 0

    assert draw_rank({1: 0, 2: 10**6}, epsilon=5.0, coins=First()) == 1


def test_a_choice_is_charged_before_it_is_made_and_never_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the draw dies the charge stays, and the shared rank; nothing is drawn again."""
    setting = PrivateRank(epsilon=0.5)
    books = RankLedger(setting=setting, folder=tmp_path, shared=8, dp=DP)
    assert not books.charged

    def die(*_: Any, **__: Any) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("dpacc.federated.ranks.rank_choice.draw_rank", die)
    with pytest.raises(KeyboardInterrupt):
        books.choose({1: 1, 2: 0, 4: 0, 8: 0})
    again = RankLedger(setting=setting, folder=tmp_path, shared=8, dp=DP)
    assert again.charged
    assert again.rank == 8
    (release,) = read_ledger(path=tmp_path / "rank_ledger.jsonl").releases
    assert release.event == ExponentialMechanism(epsilon=0.5)
    monkeypatch.undo()
    with pytest.raises(Exception, match="before the next free step"):
        again.choose({1: 1, 2: 0, 4: 0, 8: 0})


def federated(folder: Path, **changes: Any) -> tuple[Any, Any]:
    one = client(folder, 1, lora_config=WIDE, rank=PrivateRank(epsilon=4.0), **changes)
    history = server(folder, lora_config=WIDE, num_clients=1, rounds=3).train(clients=[one])
    return one, history


def test_a_client_chooses_after_the_first_round_and_keeps_its_total(folder: Path) -> None:
    """One choice, before round 2; steps and choice together stay within ε, by every account."""
    one, history = federated(folder, fixed_seed=None)
    chosen = json.loads((folder / "site-1" / "rank.json").read_text())["rank"]
    assert [report.failed for report in history.rounds] == [{}, {}, {}]
    assert one.training.ranks.rank == chosen
    books = [report.books["site-1"] for report in history.rounds]
    assert [each.choice_epsilon for each in books] == [0.0, 4.0, 4.0]
    assert [each.steps_charged for each in books] == [3, 6, 9]
    assert one.training.plan.guarantee().epsilon <= 16.0
    assert one.training.plan.guarantee().epsilon < books[-1].epsilon <= 20.0


def test_compose_and_merge_price_the_choice_too(folder: Path) -> None:
    """`compose` on the rounds and `merge` of the two ledgers give the ε that the client states."""
    _, history = federated(folder, fixed_seed=None)
    (folder / "rounds.yaml").write_text(yaml.safe_dump(history.federation()))
    told = CliRunner().invoke(
        dpacc, ["compose", str(folder / "rounds.yaml"), "--json"], catch_exceptions=False
    )
    (price,) = json.loads(told.stdout)["prices"]
    stated = history.epsilons()["site-1"]
    assert price["server"]["epsilon"] == pytest.approx(stated, rel=1e-9)
    place = folder / "site-1"
    ledgers = {n: read_ledger(path=place / f"{n}.jsonl") for n in ("ledger", "rank_ledger")}
    merged = merge_ledgers(records=ledgers)
    assert merged.remarks == ()
    assert merged.together is not None
    assert merged.together.epsilon == pytest.approx(stated, rel=1e-9)
    assert "exponential mechanism" in merged.together.qualified_by[0]


def test_a_restarted_client_keeps_the_rank_that_it_chose(folder: Path) -> None:
    """Its second life trains at that rank, and neither chooses nor pays again."""
    one, _ = federated(folder)
    chosen = one.training.ranks.rank
    one.close()
    again = client(
        folder, 1, lora_config=WIDE, rank=PrivateRank(epsilon=4.0), dp={"most_rounds": 3}
    )
    history = server(
        folder, lora_config=WIDE, num_clients=1, rounds=1, folder=folder / "other"
    ).train(clients=[again])
    assert again.training.ranks.rank == chosen
    assert len(read_ledger(path=folder / "site-1" / "rank_ledger.jsonl").releases) == 1
    assert "budget spent" in history.rounds[0].failed["node 1"]


def test_ranks_that_cannot_be_chosen_are_refused(folder: Path) -> None:
    """A trained A, a choice dearer than all there is, candidates out of range, unknown words."""
    dp = DPSettings(epsilon=1.0, delta=1e-3, expected_batch_size=4)
    for rank, lora, why in (
        (PrivateRank(epsilon=0.1), BOTH, "method='ffa'"),
        (PublicRank(), BOTH, "method='ffa'"),
        (PrivateRank(epsilon=1.0), WIDE, "lower the choice's"),
        (PrivateRank(epsilon=0.1, candidates=(4, 16)), WIDE, "from 1 to the shared 8"),
        ("automatic", WIDE, "'adaptive'"),
    ):
        with pytest.raises(ConfigurationError, match=why):
            OwnRank(rank, lora=lora, dp=dp, folder=folder, fixed_seed=None)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="voters=0"):
        PrivateRank(epsilon=0.1, voters=0)
    own = OwnRank("adaptive", lora=WIDE, dp=dp, folder=folder, fixed_seed=None)
    assert own.set_aside == pytest.approx(0.05)


def test_a_seeded_choice_is_noted_in_its_own_ledger(tmp_path: Path) -> None:
    """Whoever merges it with another run's ledger learns that it promises nothing."""
    books = RankLedger(setting=PrivateRank(epsilon=0.5), folder=tmp_path, shared=8, dp=DP)
    books.choose({1: 1, 2: 0, 4: 0, 8: 0}, fixed_seed=3)
    record = read_ledger(path=tmp_path / "rank_ledger.jsonl")
    assert [note.subject for note in record.notes] == ["fixed-seed"]
    assert merge_ledgers(records={"choice": record}).together is None
