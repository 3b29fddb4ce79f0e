"""What is wrong with a federation's settings, or with a client's base, is said beforehand."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.aggregation.robust import Defence
from dpacc.federated.ranks.rank_choice import PrivateRank, PublicRank
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.history import read_history
from dpacc.federated.server.round_settings import RoundSettings, measured
from dpacc.federated.settings import (
    DPSettings,
    LoraSettings,
    PrivacyBudget,
    Task,
    dp_settings,
    lora_settings,
)
from dpacc.federated.updates.compression import Compression
from tests.dpacc.federated.federations import (
    DELTA,
    LORA,
    WORDS,
    classifier_folder,
    client,
    opinions,
    server,
)
from tests.tiny_models import save_tiny_llama

ROUND: dict[str, Any] = {
    "aggregation": "ffa",
    "client_sampling_rate": 1.0,
    "local_epochs": 1.0,
    "defence": None,
    "measure": None,
    "on_round": None,
    "compression": None,
    "sketch_size": None,
}
OWN: dict[str, Any] = {"epsilon": 8.0, "delta": 1e-5, "expected_batch_size": 8}


def changed(kind: Callable[..., Any], good: dict[str, Any], **wrong: Any) -> Callable[[], Any]:
    """Settings of which one is wrong."""
    return lambda: kind(**good | wrong)


WRONG: dict[str, Callable[[], Any]] = {
    "epsilon=-1": changed(DPSettings, OWN, epsilon=-1),
    "epsilon=nan": changed(DPSettings, OWN, epsilon=float("nan")),
    "delta=1": changed(DPSettings, OWN, delta=1),
    "expected_batch_size=2.5": changed(DPSettings, OWN, expected_batch_size=2.5),
    "most_rounds=0": changed(DPSettings, OWN, most_rounds=0),
    "most_local_epochs=0": changed(DPSettings, OWN, most_local_epochs=0),
    "epsilon='8'": changed(PrivacyBudget, {"epsilon": 8.0, "delta": 1e-5}, epsilon="8"),
    "rank=0": changed(LoraSettings, {}, rank=0),
    "method='whitened'": changed(LoraSettings, {}, method="whitened"),
    "target_modules='q_proj'": changed(LoraSettings, {}, target_modules="q_proj"),
    "attackers=0.2": changed(Defence, {}, attackers=0.2),
    "most_norm=-1": changed(Defence, {}, most_norm=-1),
    "signal_to_noise=-1": changed(Defence, {}, signal_to_noise=-1),
    "despite_noise='yes'": changed(Defence, {}, despite_noise="yes"),
    "clients=3.0": changed(SecureSum, {}, clients=3.0),
    "threshold=2.5": changed(SecureSum, {"clients": 3}, threshold=2.5),
    "noise_multiplier=True": changed(
        ClientPrivacy, {"clipping_norm": 1.0, "delta": 1e-5}, noise_multiplier=True
    ),
    "local_epochs=0": changed(RoundSettings, ROUND, local_epochs=0),
    "round_timeout=nan": changed(RoundSettings, ROUND, round_timeout=float("nan")),
    "client_sampling_rate=1.5": changed(RoundSettings, ROUND, client_sampling_rate=1.5),
    "defence='krum'": changed(RoundSettings, ROUND, defence="krum"),
    "compression=4": changed(RoundSettings, ROUND, compression=4),
    "measure=5": changed(RoundSettings, ROUND, measure=5),
    "on_round=5": changed(RoundSettings, ROUND, on_round=5),
    "aggregation='fedexp'": changed(RoundSettings, ROUND, aggregation="fedexp"),
    "unit_cap=0": changed(DPSettings, OWN, unit_cap=0),
    "unit_field=5": changed(DPSettings, OWN, unit_field=5),
    "target_modules=()": changed(LoraSettings, {}, target_modules=()),
    "voters=2.5": changed(PrivateRank, {"epsilon": 0.1}, voters=2.5),
    "candidates=0": changed(PrivateRank, {"epsilon": 0.1}, candidates=(0,)),
    "upload_bytes='3MB'": changed(PublicRank, {}, upload_bytes="3MB"),
    "bits=8.0": changed(Compression, {}, bits=8.0),
    "unit=5": changed(
        ClientPrivacy, {"noise_multiplier": 1.0, "clipping_norm": 1.0, "delta": 1e-5}, unit=5
    ),
    "max_length='long'": changed(Task, {}, fields={"max_length": "long"}),
    "a task with lables": changed(Task, {}, fields={"lables": ("bad", "good")}),
    "labels=None": changed(Task, {}, fields={"task": "sequence-classification"}),
    "task=5": changed(Task, {}, fields=5),
    "dp_config['noise_multiplier']=1.1": lambda: dp_settings({**OWN, "noise_multiplier": 1.1}),
    "dp_config['secure_mode']=False": lambda: dp_settings({**OWN, "secure_mode": False}),
    "dp_config has no entry 'epsilom'": lambda: dp_settings({**OWN, "epsilom": 1.0}),
    "dp_config has no 'delta'": lambda: dp_settings({"epsilon": 1.0, "expected_batch_size": 8}),
    "lora_config gives rank twice": lambda: lora_settings({"r": 2, "rank": 2}),
}


@pytest.mark.parametrize("named", list(WRONG))
def test_a_wrong_setting_is_refused_where_it_is_given(named: str) -> None:
    """By its name and value, before there is any server or client that could spend a budget."""
    with pytest.raises(ConfigurationError) as refused:
        WRONG[named]()
    assert str(refused.value).startswith(named)


@pytest.mark.parametrize(
    "wrong",
    [
        {"privacy_budget": 8.0},
        {"privacy_budget": {"epsilon": 8.0}},
        {"privacy_budget": {"epsilon": 8.0, "delta": 1e-5, "unit": "patient"}},
        {"num_clients": 0},
        {"rounds": 1.5},
        {"secure_sum": 2},
        {"lora_config": {"rang": 2}},
        {"lora_config": {"r": 2, "lora_dropout": 0.1}},
    ],
)
def test_a_server_takes_no_settings_of_another_kind(folder: Path, wrong: dict[str, Any]) -> None:
    """A bare number, or a mapping of other keys, is refused before the base is loaded."""
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=rf"^{name}( has no |\[|=)"):
        server(folder / "without a model", **wrong)


def test_mappings_say_what_the_classes_say() -> None:
    """Peft's words and ours, with what changes nothing here, make the same settings."""
    peft = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "lora_dropout": 0.0}
    ours = LoraSettings(rank=2, alpha=4, target_modules=("q_proj",))
    assert lora_settings(peft | {"bias": "none"}) == lora_settings(ours) == ours
    assert dp_settings({**OWN, "secure_mode": True}) == DPSettings(**OWN)
    typed = Task(
        fields={"max_length": "16", "task": "sequence-classification", "labels": ["a", "b"]}
    )
    assert dict(typed.fields)["max_length"] == 16
    assert typed.labels == ("a", "b")


SUM = SecureSum(clients=2)
JOINING: dict[str, tuple[Callable[[Path], list[Any]], dict[str, Any], str]] = {
    "one too few": (lambda at: [client(at, 1)], {}, "2 and 1 clients given"),
    "no client": (lambda at: [client(at, 1), 5], {}, "clients holds 5"),
    "one ledger for two": (
        lambda at: [client(at, 1), client(at, 2, folder=at / "site-1")],
        {},
        "site-1 and site-2 have one folder",
    ),
    "more passes than an owner allows": (
        lambda at: [client(at, 1), client(at, 2, dp={"most_local_epochs": 1.0})],
        {"local_epochs": 2},
        "local_epochs=2 and site-2's most_local_epochs is 1",
    ),
    "more passes than a hidden client's owner allows": (
        lambda at: [
            SecureClient(client=client(at, n, dp={"most_local_epochs": 1.0}), secure_sum=SUM)
            for n in (1, 2)
        ],
        {"local_epochs": 2},
        "site-1's most_local_epochs is 1",
    ),
    "more than was promised": (
        lambda at: [client(at, 1), client(at, 2, dp={"epsilon": 80.0})],
        {},
        "site-2 keeps epsilon=80",
    ),
    "another delta": (
        lambda at: [client(at, 1), client(at, 2, dp={"delta": 1e-5})],
        {},
        "site-2 keeps epsilon=20 at delta=1e-05",
    ),
    "batches larger than the data": (
        lambda at: [client(at, 1), client(at, 2, dp={"expected_batch_size": 400})],
        {},
        "expected_batch_size=400 exceeds the 12 privacy units",
    ),
    "a word of another library": (
        lambda at: [client(at, 1), client(at, 2)],
        {"aggregation": "secure_weighted"},
        "every client counts alike",
    ),
    "a keyword that is none": (
        lambda at: [client(at, 1), client(at, 2)],
        {"local_epoch": 2},
        "do you mean local_epochs=",
    ),
}


@pytest.mark.parametrize("named", list(JOINING))
def test_what_would_fail_in_the_first_round_is_said_before_it(folder: Path, named: str) -> None:
    """By name, and no client has charged a step: the others would have paid for a round."""
    make, asked, why = JOINING[named]
    with pytest.raises(ConfigurationError, match=re.escape(why)):
        server(folder, rounds=1).train(clients=make(folder), **asked)
    assert not list(folder.glob("site-*/ledger.jsonl"))


@pytest.mark.parametrize("found", [0.5, {"accuracy": "high"}, None])
def test_a_measure_that_finds_no_numbers_is_refused(found: Any) -> None:
    """As soon as it is first called, which is before the first round."""
    with pytest.raises(ConfigurationError, match="mapping of names to numbers"):
        measured(lambda model: found, torch.nn.Identity())


@pytest.mark.parametrize("rank", [0, -1, 3, 1.5])
def test_a_rank_that_the_shared_adapter_does_not_hold_is_refused(folder: Path, rank: Any) -> None:
    """At the client that names it, which need not be asked for that."""
    with pytest.raises(ConfigurationError, match=f"^rank={rank}"):
        client(folder, 1, rank=rank)


def other_weights(folder: Path) -> Path:
    """The same architecture and words, one layer of which was trained a little."""
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.mul_(1.01)
    save_tiny_llama(folder / "other", words=WORDS)
    model.save_pretrained(folder / "other")
    return folder / "other"


def other_words(folder: Path) -> Path:
    """The same weights; two words have each other's numbers."""
    place = folder / "words"
    save_tiny_llama(place, words=[WORDS[1], WORDS[0], *WORDS[2:]])
    AutoModelForCausalLM.from_pretrained(folder / "model").save_pretrained(place)
    return place


@pytest.mark.parametrize(("make", "part"), [(other_weights, "base"), (other_words, "tokenizer")])
def test_a_client_of_another_base_is_not_averaged(
    folder: Path, make: Callable[[Path], Path], part: str
) -> None:
    """It says what differs, and its ledger holds no step; the others' round goes on."""
    stranger = client(folder, 2, model_name=str(make(folder)))
    history = server(folder, rounds=1).train(clients=[client(folder, 1), stranger])
    assert history.rounds[0].survivors == ("site-1",)
    assert f"differs from the server's in its {part}:" in history.rounds[0].failed["node 2"]
    assert not (folder / "site-2/ledger.jsonl").exists()


def test_a_client_with_its_classes_in_another_order_is_not_averaged(tmp_path: Path) -> None:
    """Its good is the others' bad: the head's rows would mean two things."""
    model = str(classifier_folder(tmp_path))
    task = {"task": "sequence-classification", "labels": ("bad", "good"), "max_length": 16}
    own = DPSettings(epsilon=20.0, delta=DELTA, expected_batch_size=4)
    kept: dict[str, Any] = {"model_name": model, "lora_config": LORA, "dp_config": own}
    lora = LoraSettings(rank=2, target_modules=("query",))
    clients = [
        client(
            tmp_path,
            number,
            **kept | {"lora_config": lora},
            data_path=opinions(tmp_path / f"{number}.jsonl", count=12, seed=number),
            task=task | {"labels": labels},
        )
        for number, labels in ((1, ("bad", "good")), (2, ("good", "bad")))
    ]
    run = server(tmp_path, model_name=model, lora_config=lora, task=task, rounds=1)
    (report,) = run.train(clients=clients).rounds
    assert report.survivors == ("site-1",)
    assert "in its labels:" in report.failed["node 2"]
    assert read_history(path=tmp_path / "server/state.json").rounds
