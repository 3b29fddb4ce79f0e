"""The client that a node is, made anew for each message: its own settings decide what it does."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeAlias

from flwr.app import Context, Message
from flwr.app.user_config import UserConfig

from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.clients.trusting_client import TrustingClient
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.flower_programs import draw_apart
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.deployment.run_settings import RunSettings
from dpacc.federated.deployment.simulated_nodes import own_config
from dpacc.federated.requests import COULD_NOT, refusal
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.settings import LoraSettings

_LOG = logging.getLogger(__name__)

Deployed: TypeAlias = DPLoRAClient | SecureClient | TrustingClient
"""What a node may be."""


def client_of(*, node_config: UserConfig, run_config: UserConfig) -> Deployed:
    """The client that this node is, in a run with these settings.

    Raises:
        ConfigurationError: a setting that is unknown, missing or senseless.
    """
    node = read_config(NodeSettings, own_config(node_config, run_config))
    run = read_config(RunSettings, run_config)
    return _client(node, run.lora)


def require_readable(node_config: UserConfig) -> None:
    """Read the model and every record as this node's own settings say, before it connects.

    Raises:
        ConfigurationError: a setting is missing or senseless, a record does not fit, or the node
            failed before.
    """
    node = read_config(NodeSettings, node_config)
    _client(node, LoraSettings()).require_readable()


def _client(node: NodeSettings, lora: LoraSettings) -> Deployed:
    if node.trusts_server:
        return TrustingClient(
            client_id=node.client_id,
            data_path=node.data_path,
            model_name=node.model,
            lora_config=lora,
            batch_size=node.expected_batch_size,
            learning_rate=node.learning_rate,
            task=node.learned,
            most_local_epochs=node.most_local_epochs,
            folder=node.folder,
        )
    *earlier, folder = node.phase_folders
    client = DPLoRAClient(
        client_id=node.client_id,
        data_path=node.data_path,
        model_name=node.model,
        lora_config=lora,
        dp_config=node.privacy,
        task=node.learned,
        rank=node.own_rank,
        folder=folder,
        earlier_phases=earlier,
    )
    if node.secure_sum is None:
        return client
    return SecureClient(
        client=client, secure_sum=node.secure_sum, folder=node.folder, keys=node.signing_keys
    )


def answer_once(make: Callable[[], Deployed], message: Message, context: Context) -> Message:
    """Make the client, let it answer, let go of its ledger; exceptions stay in the node's log."""
    draw_apart()
    try:
        client = make()
    except Exception:
        _LOG.exception("this node cannot be a client")
        return refusal(COULD_NOT, message)
    try:
        return client.app(message, context)
    except ValueError:  # Flower's, for a stage of secure sums
        return refusal("this client sends its updates alone; leave secure-threshold out", message)
    finally:
        if not isinstance(client, TrustingClient):
            client.close()
