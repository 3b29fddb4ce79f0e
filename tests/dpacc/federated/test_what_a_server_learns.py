"""A server that asks as it likes learns nothing of single records, and is told nothing unnamed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import LedgerError
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.clients.local_training import LocalTraining
from dpacc.federated.deployment.node_client import answer_once, client_of, require_readable
from dpacc.federated.requests import COULD_NOT
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.federated_server import FederatedServer
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.settings import LoraSettings
from dpacc.federated.supernode import require_readable_data
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import to_record, trainable_arrays
from tests.dpacc.federated.federations import DELTA, LORA, client, server, trusting
from tests.tiny_models import save_tiny_llama

LABELS = ("bad", "good", "other")
RUN: UserConfig = {
    "model": "whatever",
    "num-clients": 1,
    "rounds": 1,
    "epsilon": 50.0,
    "delta": DELTA,
    "lora-rank": 2,
    "lora-target-modules": "q_proj,v_proj",
    "task": "sequence-classification",
    "labels": "bad,good,other",
}


def classified(path: Path, *, other: bool) -> Path:
    """Eleven records of two classes; and one of the third, with a word of its own."""
    rows = [{"text": "the film was good", "label": "good" if at % 2 else "bad"} for at in range(11)]
    rows += [{"text": "the film was loud", "label": "other"}] if other else []
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def node(folder: Path, *, other: bool, **changes: Any) -> UserConfig:
    """One of two nodes whose data differ by one record."""
    name = "with" if other else "without"
    return {
        "client-id": "north",
        "data-path": str(classified(folder / f"{name}.jsonl", other=other)),
        "folder": str(folder / name),
        "model": str(folder / "model"),
        "task": "sequence-classification",
        "labels": ",".join(LABELS),
        "max-length": 16,
        "most-rounds": 1,
        "epsilon": 20.0,
        "delta": DELTA,
        "expected-batch-size": 4,
    } | changes


def wanted(folder: Path, **changes: Any) -> RecordDict:
    """What a server sends, honest but for the changes."""
    of_model = {name: changes.pop(name) for name in ("labels", "model") if name in changes}
    run = FederatedServer(
        model_name=str(of_model.get("model", folder / "model")),
        num_clients=1,
        rounds=1,
        privacy_budget=server(folder)._budget,
        lora_config=LORA,
        task={"task": "sequence-classification", "labels": of_model.get("labels", LABELS)},
        folder=folder / "server",
    )
    arrays = trainable_arrays(run.model)
    for name in changes.pop("not_finite", ()):
        arrays[name] = np.full_like(arrays[name], np.nan)
    config = {
        "run": "a run",
        "server-round": 1,
        "layout": run._layout,
        "rounds": 1,
        "local-epochs": 1.0,
        "corrected": False,
        "privacy": "example",
    }
    return RecordDict({"arrays": to_record(arrays), "config": ConfigRecord(config | changes)})


def answer(node_config: UserConfig, run_config: UserConfig, content: RecordDict) -> Message:
    """What a node's process answers."""
    LocalGrid({})  # Flower's messages belong to a run
    asked = Message(content, dst_node_id=1, message_type="train")
    asked.metadata.__dict__["_message_id"] = "1"
    memory = Context(run_id=1, node_id=1, node_config={}, state=RecordDict(), run_config={})
    make = lambda: client_of(node_config=node_config, run_config=run_config)  # noqa: E731
    return answer_once(make, asked, memory)


@pytest.mark.parametrize(
    ("run", "asks", "reason"),
    [
        ({"labels": "bad,good"}, {"labels": ("bad", "good")}, "layout differs"),
        ({"labels": "bad,good"}, {"layout": "another"}, "layout differs"),
        ({"task": "causal-lm", "labels": "null"}, {"layout": "another"}, "layout differs"),
        ({"lora-rank": 3}, {}, "layout differs"),
        ({}, {"privacy": "client"}, "adds its own noise"),
        ({}, {"privacy": "none"}, "adds its own noise"),
        ({}, {"local-epochs": 50.0}, "most_local_epochs is 1"),
        ({}, {"compression": "bits=3"}, ""),
        ({}, {"steps-seen": 99}, "has seen 99"),
        ({"max-length": 2}, {}, COULD_NOT),
    ],
)
def test_one_record_more_changes_no_byte_of_a_refusal(
    folder: Path, run: dict[str, Any], asks: dict[str, Any], reason: str
) -> None:
    """With and without the only record of a class, whatever a malicious server's settings say."""
    content = wanted(folder, **asks)
    told = [answer(node(folder, other=other), RUN | run, content) for other in (True, False)]
    assert [each.has_error() for each in told] == [True, True]
    assert told[0].error.reason == told[1].error.reason
    assert reason in told[0].error.reason
    assert not list(folder.glob("with*/stopped.json"))


def test_a_base_of_the_servers_choice_is_not_used(folder: Path) -> None:
    """Its tokenizer cannot read one word; both nodes train, for they read with their own."""
    save_tiny_llama(folder / "unreading", words=["the", "film", "was", "good", "bad"])
    for spoiled in (folder / "unreading").glob("tokenizer*.json"):
        spoiled.write_text(spoiled.read_text().replace('"<unk>"', "null"))
    run = RUN | {"model": str(folder / "unreading")}
    content = wanted(folder, model=folder / "model")
    content["config"] = ConfigRecord({**content["config"], "model": str(folder / "unreading")})
    for other in (True, False):
        assert not answer(node(folder, other=other), run, content).has_error()


@pytest.mark.parametrize("missing", ["model", "task", "max-length", "most-rounds"])
def test_what_a_node_reads_by_is_in_its_own_file(folder: Path, missing: str) -> None:
    """Without its own word on it a node does not start, whatever the server would say."""
    settings = node(folder, other=True)
    del settings[missing]
    with pytest.raises(ConfigurationError, match=missing.replace("-", "_")):
        client_of(node_config=settings, run_config=RUN)


def test_a_record_that_does_not_fit_stops_a_node_before_it_connects(folder: Path) -> None:
    """In one line, with its place and none of its content."""
    settings = node(folder, other=True, labels="bad,good")
    with pytest.raises(ConfigurationError, match=r"with\.jsonl:12"):
        require_readable(settings)
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    (folder / "north.toml").write_text("\n".join(lines))
    with pytest.raises(SystemExit, match=r"cannot be a client: .*with\.jsonl:12") as stopped:
        require_readable_data(["--superlink", "x", "--node-config", str(folder / "north.toml")])
    assert "loud" not in str(stopped.value)
    with pytest.raises(SystemExit, match="--node-config FILE"):
        require_readable_data(["--superlink", "x"])
    require_readable(node(folder, other=True))


def test_a_client_that_failed_among_its_records_fails_once(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it fails may hang on a record: it says so once, in words that never change."""
    content = wanted(folder)
    settings = node(folder, other=True)
    run_round = LocalTraining.run_round

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a record says: other")

    monkeypatch.setattr(LocalTraining, "run_round", fail)
    assert answer(settings, RUN, content).error.reason == COULD_NOT
    monkeypatch.setattr(LocalTraining, "run_round", run_round)
    assert answer(settings, RUN, content).error.reason == COULD_NOT
    assert answer(settings, RUN, wanted(folder, layout="another")).error.reason == COULD_NOT
    with pytest.raises(Exception, match=r"delete .*stopped\.json"):
        require_readable(settings)
    (folder / "with/stopped.json").unlink()
    assert not answer(settings, RUN, content).has_error()


def test_a_record_that_spoils_later_says_no_more(folder: Path) -> None:
    """A line that is no JSON any more: the same sentence, and no name of an error."""
    content, settings = wanted(folder), node(folder, other=True)
    (folder / "with.jsonl").write_text('{"text": "secret diagnosis"}\n{"text": secret}\n')
    assert answer(settings, RUN, content).error.reason == COULD_NOT
    assert (folder / "with/stopped.json").exists()


def test_a_full_disk_stops_nobody_for_good(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The books' own failure depends on no record: when there is room again, the client answers."""
    content, settings = wanted(folder), node(folder, other=True)
    run_round = LocalTraining.run_round

    def fail(*_: object, **__: object) -> None:
        raise LedgerError("no space left")

    monkeypatch.setattr(LocalTraining, "run_round", fail)
    assert answer(settings, RUN, content).error.reason == COULD_NOT
    monkeypatch.setattr(LocalTraining, "run_round", run_round)
    assert not answer(settings, RUN, content).has_error()


# --- all that leaves ------------------------------------------------------------------------

_SETTING = "its owner's setting, or follows from settings and N, which is public"
_COUNT = "a count of steps that settings, N and requests decide"
_NOISED = "trained with noise, after it was charged"
_KEYS = "random, made for this sum"
_MASKED = "uniform to whoever lacks the masks; of an update that is noised, or holds noise itself"

LEAVES = {
    "train": {
        "config.client": _SETTING,
        "config.rank": f"{_SETTING}; a PrivateRank's is drawn and charged; a round's is public",
        "config.unit": _SETTING,
        "metrics.epsilon": _COUNT,
        "metrics.delta": _SETTING,
        "metrics.epsilon-budget": _SETTING,
        "metrics.noise-multiplier": _SETTING,
        "metrics.sampling-probability": _SETTING,
        "metrics.steps-charged": _COUNT,
        "metrics.steps-taken": _COUNT,
        "metrics.choice-epsilon": _SETTING,
        "metrics.void-because-of:<subject>": f"a flag: {_SETTING}, such as a fixed seed",
        "arrays.<adapter>": _NOISED,
        "arrays.codes": f"{_NOISED}; rounded by public coins",
        "arrays.scales": f"{_NOISED}; rounded by public coins",
        "arrays.sketch": f"{_NOISED}; times public matrices",
        "arrays.secure-sum": _MASKED,
    },
    "query": {"arrays.projection": f"{_NOISED}; times matrices of the server's"},
    "query.secure_sum_keys": {"secure-sum.mask-key": _KEYS, "secure-sum.seal-key": _KEYS},
    "query.secure_sum_shares": {
        "secure-sum.nodes": "the server's own list",
        "secure-sum.sealed": "sealed for another client",
        "secure-sum.seed-digest": _KEYS,
        "secure-sum.commitments": "SHA-256 of shares, each uniform to whoever holds too few",
    },
    "query.secure_sum_open": {
        "secure-sum.nodes": "the server's own list",
        "secure-sum.shares": "of the one secret that the sum needs",
    },
}
"""Every field that a client sends, by message, and why it tells nothing that is not paid for."""


class Listening(LocalGrid):
    """Keeps the name of every field that a client sends."""

    heard: set[tuple[str, str]]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        sent = list(messages)
        replies = list(super().send_and_receive(sent, timeout=timeout))
        for asked, reply in zip(sent, replies, strict=True):
            assert not reply.has_error(), reply.error.reason
            for record, values in reply.content.items():
                for field in values:
                    self.heard.add((asked.metadata.message_type, f"{record}.{_kind(field)}"))
        return replies


def _kind(field: str) -> str:
    if "/" in field:
        return field.partition("/")[0]
    if ":" in field:
        return f"{field.partition(':')[0]}:<subject>"
    return "<adapter>" if "lora_" in field else field


PRIVACY = ClientPrivacy(noise_multiplier=2.0, clipping_norm=0.5, delta=1e-3)
PAIR = SecureSum(clients=2)
BOTH = LoraSettings(rank=2, method="lora", target_modules=LORA.target_modules)
CHANGING = replace(BOTH, method="dylora")
FEDERATIONS: dict[str, tuple[dict[str, Any], dict[str, Any], Callable[[Path, int], Any]]] = {
    "plain": ({}, {}, client),
    "compressed": ({}, {"compression": Compression(bits=8)}, client),
    "sketched": (
        {"lora_config": BOTH},
        {"aggregation": "fedask"},
        lambda folder, n: client(folder, n, lora_config=BOTH),
    ),
    "client level": ({"privacy_budget": None, "client_privacy": PRIVACY}, {}, trusting),
    "one rank a round": (
        {"privacy_budget": None, "client_privacy": PRIVACY, "lora_config": CHANGING},
        {"aggregation": "average"},
        lambda folder, n: trusting(folder, n, lora_config=CHANGING),
    ),
    "in a sum": (
        {"secure_sum": PAIR},
        {},
        lambda folder, n: SecureClient(client=client(folder, n), secure_sum=PAIR),
    ),
    "noise in a sum": (
        {"secure_sum": PAIR, "privacy_budget": None, "client_privacy": PRIVACY},
        {},
        lambda folder, n: SecureClient(
            client=trusting(folder, n), secure_sum=PAIR, privacy=PRIVACY, most_rounds=1
        ),
    ),
}


@pytest.fixture(scope="module")
def every_field(tmp_path_factory: pytest.TempPathFactory, model: Path) -> set[tuple[str, str]]:
    heard: set[tuple[str, str]] = set()
    for name, (of_server, of_run, make) in FEDERATIONS.items():
        folder = tmp_path_factory.mktemp(name.replace(" ", "-"))
        (folder / "model").symlink_to(model)
        grid = Listening({n: make(folder, n).app for n in (1, 2)})
        grid.heard = heard
        context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
        server(folder, rounds=1, **of_server).app(**of_run)(grid, context)
    return heard


def test_every_field_that_leaves_a_client_is_known(every_field: set[tuple[str, str]]) -> None:
    """In every kind of federation: each is named here with why it is public, noised or masked."""
    assert every_field == {(kind, field) for kind, known in LEAVES.items() for field in known}


def test_no_weight_follows_the_number_of_rows(every_field: set[tuple[str, str]]) -> None:
    """Neither examples nor rows are counted to the server, and nothing measured on them is told."""
    private = ("num", "example", "row", "loss", "accuracy", "norm", "seconds", "batch")
    assert not [field for _, field in every_field for word in private if word in field.lower()]
