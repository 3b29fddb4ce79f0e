"""What an operator writes in a node's file is what its client does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_client import client_of, require_readable
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.ranks.rank_choice import PrivateRank, PublicRank
from tests.dpacc.federated.deployment.shipped_app import nodes, run_config, shipped
from tests.dpacc.federated.federations import node_settings


@pytest.mark.parametrize(
    ("written", "rank"),
    [
        ({}, None),
        ({"rank": 1}, 1),
        ({"adaptive-rank": True}, "adaptive"),
        ({"rank-epsilon": 0.5}, PrivateRank(epsilon=0.5)),
        ({"rank-upload-bytes": 4e5}, PublicRank(upload_bytes=4e5)),
        (
            {"rank-memory-bytes": 2e8, "rank-upload-bytes": 4e5},
            PublicRank(memory_bytes=2e8, upload_bytes=4e5),
        ),
    ],
)
def test_a_rank_may_be_said_in_five_ways(
    tmp_path: Path, written: dict[str, Any], rank: Any
) -> None:
    """A number, limits of memory and line, or a part of ε to choose it by."""
    told = read_config(NodeSettings, node_settings(tmp_path, "north") | written)
    assert told.own_rank == rank


@pytest.mark.parametrize(
    "written",
    [
        {"rank": 1, "adaptive-rank": True},
        {"rank-epsilon": 0.5, "rank-upload-bytes": 4e5},
        {"rank": 1, "rank-memory-bytes": 4e5},
    ],
)
def test_a_rank_is_not_said_twice(tmp_path: Path, written: dict[str, Any]) -> None:
    """One of the two would have no effect."""
    with pytest.raises(ConfigurationError, match="decided in one way"):
        read_config(NodeSettings, node_settings(tmp_path, "north") | written)


def test_a_rank_chosen_between_rounds_outlives_the_process(folder: Path) -> None:
    """Made anew for each message, a node chooses once, pays once, and trains at what it chose."""
    choosing = nodes(folder, rank_epsilon=5.0, most_rounds=3)
    run = shipped(run_config(folder, rounds=3), choosing)
    assert [sorted(report.survivors) for report in run.history.rounds] == [["site-1", "site-2"]] * 3
    for name in ("site-1", "site-2"):
        charged = [report.books[name].choice_epsilon for report in run.history.rounds]
        assert charged == [0.0, 5.0, 5.0]
        assert len(read_ledger(path=folder / name / "rank_ledger.jsonl").releases) == 1
        assert run.history.epsilons()[name] <= 20.0


def tagged(folder: Path, number: int) -> dict[str, Any]:
    path = folder / f"tags-{number}.jsonl"
    record = {"tokens": ["the", "film", "was", "good"], "classes": ["O", "B", "O", "O"]}
    path.write_text("\n".join(json.dumps(record) for _ in range(12)))
    return node_settings(folder, f"site-{number}") | {
        "data-path": str(path),
        "task": "token-classification",
        "labels": "O,B",
        "words-field": "tokens",
        "label-field": "classes",
    }


def test_nodes_classify_words(folder: Path) -> None:
    """Both fields are each node's own to name."""
    config = run_config(folder, rounds=1, task="token-classification", labels="O,B")
    run = shipped(config, lambda number: tagged(folder, number))
    assert sorted(run.history.rounds[0].survivors) == ["site-1", "site-2"]


def test_chats_and_answers_reach_the_reader_of_records(folder: Path) -> None:
    """As a run alone is told of them: a wrong field stops the node before it connects."""
    chats = node_settings(folder, "north") | {"messages-field": "messages", "learn-end": False}
    told = read_config(NodeSettings, chats)
    assert (told.learned["messages_field"], told.learned["learn_end"]) == ("messages", False)
    with pytest.raises(ConfigurationError, match="messages"):
        require_readable(chats)
    asked = {"prompt-field": "text", "completion-field": "text", "answers": "good,bad"}
    closed = node_settings(folder, "north") | asked | {"learn-end": False}
    assert read_config(NodeSettings, closed).learned["answers"] == ("good", "bad")
    with pytest.raises(ConfigurationError, match="answers"):
        client_of(node_config=closed | {"learn-end": True}, run_config=run_config(folder))
