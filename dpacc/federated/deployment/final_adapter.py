"""The finished adapter, for nodes that want it: the server sends what it publishes, and no more.

Nothing here reads a record, and every node answers alike, so an answer tells nothing. What comes is
a server's word, and so is checked like any: three files, of which the configuration is written anew
by what is known of it, with the node's own base.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.serverapp import Grid

from dpacc.artifacts.run_folder import write_file
from dpacc.errors import ConfigurationError
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.simulated_nodes import own_config
from dpacc.federated.updates.layout import LARGEST, read_array

FINAL = "final_adapter"
"""Flower's action."""

_CONFIG, _WEIGHTS, _CARD = "adapter_config.json", "adapter_model.safetensors", "README.md"
FILES = (_CONFIG, _WEIGHTS, _CARD)
_LONGEST = 2**20
_LOG = logging.getLogger(__name__)

_NAMES = ("target_modules", "modules_to_save")
_PATTERNS = ("rank_pattern", "alpha_pattern")
"""Expressions that a library would search every layer's name for; no adapter here has any."""
_TASKS = ("CAUSAL_LM", "SEQ_CLS", "TOKEN_CLS", None)


def send_adapter(grid: Grid, *, folder: Path, timeout: float) -> None:
    """Send what was published to every node that is connected; the run is over, whoever takes it.

    Args:
        grid: the federation's.
        folder: of the published adapter, whose three files alone are sent.
        timeout: seconds to wait for answers, which say nothing.
    """
    try:
        arrays = {name: _array((folder / name).read_bytes()) for name in FILES}
        messages = [
            Message(
                RecordDict({"arrays": ArrayRecord(arrays)}),
                dst_node_id=node,
                message_type=f"query.{FINAL}",
            )
            for node in grid.get_node_ids()
        ]
        list(grid.send_and_receive(messages, timeout=timeout))
    except Exception:  # all rounds are kept and published; nothing may undo that now
        _LOG.exception("the adapter in %s did not reach all nodes", folder)


def take_adapter(message: Message, *, node_config: UserConfig, run_config: UserConfig) -> Message:
    """Keep the adapter if this node wants it; the answer is the same in every case."""
    try:
        node = read_config(NodeSettings, own_config(node_config, run_config))
        if node.final_adapter is not None:
            keep_adapter(
                message.content.array_records["arrays"],
                folder=Path(node.final_adapter),
                base=node.model,
            )
    except Exception:
        _LOG.exception("the finished adapter was not kept")
    return Message(RecordDict(), reply_to=message)


def keep_adapter(arrays: ArrayRecord, *, folder: Path, base: str) -> None:
    """Check what the server sent, then exchange the folder for it as a whole.

    Args:
        arrays: each file's bytes, by its name.
        folder: where the node wants it.
        base: the node's own model, which the configuration will name.

    Raises:
        ConfigurationError: it is no adapter, or the folder holds something else.
    """
    if set(arrays) != set(FILES):
        raise ConfigurationError(f"the server sent other files than {', '.join(FILES)}")
    sent = {name: _bytes(name, arrays[name]) for name in FILES}
    config = _configuration(sent[_CONFIG], base=base)
    _require_weights(sent[_WEIGHTS])
    checked = {_CONFIG: config, _WEIGHTS: sent[_WEIGHTS], _CARD: _card(sent[_CARD])}
    if folder.exists() and not {each.name for each in folder.iterdir()} <= set(FILES):
        raise ConfigurationError(f"{folder} holds more than an adapter; name an empty folder")
    fresh = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o700, parents=True)
    for name, content in checked.items():
        write_file(path=fresh / name, content=content)
    shutil.rmtree(folder, ignore_errors=True)
    fresh.replace(folder)


def _array(content: bytes) -> Array:
    return Array(np.frombuffer(content, dtype=np.uint8))


def _bytes(name: str, described: Array) -> bytes:
    values = read_array(name, described)
    if values.dtype != np.uint8 or values.ndim != 1:
        raise ConfigurationError(f"the server's {name} is no file")
    if name != _WEIGHTS and len(values) > _LONGEST:
        raise ConfigurationError(f"the server's {name} is longer than {_LONGEST} bytes")
    return values.tobytes()


def _configuration(content: bytes, *, base: str) -> bytes:
    """PEFT's configuration of a LoRA adapter, of which nothing is taken that could name a file, a
    model or code.
    """
    try:
        said: Mapping[str, Any] = json.loads(content)
        rank, alpha = said["r"], said["lora_alpha"]
        known = {
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "task_type": said.get("task_type"),
            "inference_mode": True,
            "r": rank,
            "lora_alpha": alpha,
            "use_rslora": said.get("use_rslora", False),
            "fan_in_fan_out": said.get("fan_in_fan_out", False),
            "layers_to_transform": said.get("layers_to_transform"),
            "bias": "none",
            **{name: said.get(name) for name in _NAMES},
            **{name: {} for name in _PATTERNS},
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError("the server's adapter_config.json is none") from error
    fits = (
        _is_count(rank)
        and _is_number(alpha)
        and known["task_type"] in _TASKS
        and all(isinstance(known[name], bool) for name in ("use_rslora", "fan_in_fan_out"))
        and all(known[n] is None or _are(known[n], str) for n in _NAMES)
        and (known["layers_to_transform"] is None or _are(known["layers_to_transform"], int))
        and not any(said.get(name) for name in _PATTERNS)
    )
    if not fits:
        raise ConfigurationError("the server's adapter_config.json says what no adapter here does")
    return json.dumps(known, indent=2, sort_keys=True).encode()


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 2**16


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= LARGEST


def _are(values: object, kind: type) -> bool:
    return isinstance(values, list) and all(
        isinstance(each, kind) and not isinstance(each, bool) for each in values
    )


def _require_weights(content: bytes) -> None:
    """Finite numbers of believable size, in a format that holds nothing else."""
    try:
        tensors = safetensors.numpy.load(content)
    except Exception as error:  # whoever sent it chose the bytes
        raise ConfigurationError("the server's weights are no safetensors") from error
    for name, values in tensors.items():
        if values.dtype != np.float32 or not (np.abs(values) <= LARGEST).all():
            raise ConfigurationError(f"the server's {name[:80]} holds numbers beyond belief")


def _card(content: bytes) -> bytes:
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigurationError("the server's card is no text") from error
    if not all(each.isprintable() or each in "\n\t" for each in text):
        raise ConfigurationError("the server's card holds characters that a terminal obeys")
    return content
