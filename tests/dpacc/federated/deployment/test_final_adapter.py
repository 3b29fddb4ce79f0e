"""A node keeps the finished adapter if it wants it, whatever a server sends in its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from flwr.app import Array, ArrayRecord, Message, RecordDict

from dpacc.errors import ConfigurationError
from dpacc.federated.deployment.final_adapter import FILES, keep_adapter, send_adapter, take_adapter
from dpacc.federated.server.in_process_grid import LocalGrid
from tests.dpacc.federated.deployment.shipped_app import nodes, run_config, shipped
from tests.dpacc.federated.federations import node_settings

WEIGHTS = {"base_model.model.q_proj.lora_A.weight": np.ones((2, 4), dtype=np.float32)}
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "someone/else",
    "r": 2,
    "lora_alpha": 16.0,
    "target_modules": ["q_proj"],
    "task_type": "CAUSAL_LM",
}


def record(changes: Mapping[str, bytes] | None = None, **config: Any) -> ArrayRecord:
    files = {
        "adapter_config.json": json.dumps(CONFIG | config).encode(),
        "adapter_model.safetensors": safetensors.numpy.save(WEIGHTS),
        "README.md": b"# A card\n",
    } | dict(changes or {})
    return ArrayRecord({n: Array(np.frombuffer(c, dtype=np.uint8)) for n, c in files.items()})


def test_who_wants_it_has_what_was_published(folder: Path) -> None:
    """The same numbers and card, on the node's own base; who does not ask keeps nothing."""
    named = nodes(folder)

    def one_of_them(number: int) -> Any:
        wanted = {"final-adapter": str(folder / "kept")} if number == 1 else {}
        return named(number) | wanted

    shipped(run_config(folder, rounds=1), one_of_them)
    kept, published = folder / "kept", folder / "server/adapter"
    assert {each.name for each in kept.iterdir()} == set(FILES)
    for name in ("adapter_model.safetensors", "README.md"):
        assert (kept / name).read_bytes() == (published / name).read_bytes()
    said = json.loads((kept / "adapter_config.json").read_text())
    theirs = json.loads((published / "adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(folder / "model")
    for name in ("r", "lora_alpha", "task_type", "layers_to_transform"):
        assert said[name] == theirs[name]
    assert set(said["target_modules"]) == set(theirs["target_modules"])
    assert sorted(each.name for each in folder.glob(".*")) == []


def test_nothing_that_names_a_model_or_code_is_kept(tmp_path: Path) -> None:
    """The configuration is written anew: what is not known of it is left out."""
    evil = {"auto_mapping": {"base_model_class": "os.system"}, "init_lora_weights": "/etc/passwd"}
    keep_adapter(record(**evil), folder=tmp_path / "kept", base="own")
    said = json.loads((tmp_path / "kept/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "own"
    assert not set(said) & set(evil)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (record({"../../.ssh/authorized_keys": b"key"}), "other files than"),
        (record({"adapter_model.safetensors": b"\x80\x04pickled"}), "no safetensors"),
        (record({"README.md": b"\x1b]0;owned\x07"}), "a terminal obeys"),
        (record({"README.md": b"\xff"}), "no text"),
        (record({"README.md": bytes(2**20 + 1)}), "longer than"),
        (record({"adapter_config.json": b"[]"}), "is none"),
        (record(r=0), "no adapter here"),
        (record(lora_alpha=float("nan")), "no adapter here"),
        (record(target_modules="(a+)+$"), "no adapter here"),
        (record(lora_alpha=10**400), "no adapter here"),
        (record(rank_pattern={"(a+)+$": 8}), "no adapter here"),
        (record(alpha_pattern={"q_proj": 8}), "no adapter here"),
        (record(modules_to_save=[["score"]]), "no adapter here"),
        (
            record(
                {
                    "adapter_model.safetensors": safetensors.numpy.save(
                        {"a": np.full((2, 2), np.nan, dtype=np.float32)}
                    )
                }
            ),
            "beyond belief",
        ),
    ],
)
def test_what_is_no_adapter_is_not_kept(tmp_path: Path, sent: ArrayRecord, reason: str) -> None:
    """And what was there before stays as it is."""
    kept = tmp_path / "kept"
    keep_adapter(record(), folder=kept, base="own")
    before = {each.name: each.read_bytes() for each in kept.iterdir()}
    with pytest.raises(ConfigurationError, match=reason):
        keep_adapter(sent, folder=kept, base="own")
    assert {each.name: each.read_bytes() for each in kept.iterdir()} == before


def test_a_folder_with_anything_else_is_not_exchanged(tmp_path: Path) -> None:
    """A node that named its data's folder by mistake keeps its data."""
    (tmp_path / "notes.jsonl").write_text("{}")
    with pytest.raises(ConfigurationError, match="holds more than an adapter"):
        keep_adapter(record(), folder=tmp_path, base="own")
    assert (tmp_path / "notes.jsonl").exists()


def test_every_node_answers_alike(tmp_path: Path) -> None:
    """Kept, not wanted, refused, or no node at all by its settings: an answer tells nothing."""
    wants = node_settings(tmp_path, "north") | {"final-adapter": str(tmp_path / "kept")}
    LocalGrid({})  # Flower's messages belong to a run

    def answer(content: ArrayRecord, node: Any) -> Message:
        sent = Message(RecordDict({"arrays": content}), dst_node_id=1, message_type="query")
        sent.metadata.__dict__["_message_id"] = "1"
        return take_adapter(sent, node_config=node, run_config={})

    answers = [
        answer(record(), wants),
        answer(record(), node_settings(tmp_path, "north")),
        answer(record(r=0), wants),
        answer(record(), {"epsilonn": 1.0}),
    ]
    assert all(not each.has_error() and not each.content for each in answers)
    assert (tmp_path / "kept/adapter_config.json").exists()


def test_a_failure_there_never_harms_the_run(tmp_path: Path) -> None:
    """No published file, or no link any more: all that was done stays done."""

    class Gone(LocalGrid):
        def get_node_ids(self) -> Any:
            raise ConnectionError("the link is gone")

    send_adapter(LocalGrid({}), folder=tmp_path / "nothing", timeout=1.0)
    for name in FILES:
        (tmp_path / name).write_bytes(b"")
    send_adapter(Gone({}), folder=tmp_path, timeout=1.0)
