"""Federated private LoRA on Flower: organisations share an adapter, never their records.

Each client trains with this project's own engine, a ledger and a budget of its own; Flower carries
the messages. Names are loaded on first use.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dpacc.federated.budgets import largest_budget as largest_budget
    from dpacc.federated.budgets import read_budgets as read_budgets
    from dpacc.federated.client import DPLoRAClient as DPLoRAClient
    from dpacc.federated.client_level import ClientPrivacy as ClientPrivacy
    from dpacc.federated.compression import Compression as Compression
    from dpacc.federated.defence import Defence as Defence
    from dpacc.federated.history import History as History
    from dpacc.federated.plain_client import TrustingClient as TrustingClient
    from dpacc.federated.rank_choice import PrivateRank as PrivateRank
    from dpacc.federated.rank_choice import PublicRank as PublicRank
    from dpacc.federated.secure_sum.client import SecureClient as SecureClient
    from dpacc.federated.secure_sum.settings import SecureSum as SecureSum
    from dpacc.federated.server import FederatedServer as FederatedServer
    from dpacc.federated.settings import DPSettings as DPSettings
    from dpacc.federated.settings import LoraSettings as LoraSettings
    from dpacc.federated.settings import PrivacyBudget as PrivacyBudget

# Flower reads them when it is imported; what a hospital runs should not phone home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

_HOMES = {
    "ClientPrivacy": "dpacc.federated.client_level",
    "TrustingClient": "dpacc.federated.plain_client",
    "Compression": "dpacc.federated.compression",
    "DPLoRAClient": "dpacc.federated.client",
    "DPSettings": "dpacc.federated.settings",
    "Defence": "dpacc.federated.defence",
    "FederatedServer": "dpacc.federated.server",
    "History": "dpacc.federated.history",
    "LoraSettings": "dpacc.federated.settings",
    "PrivacyBudget": "dpacc.federated.settings",
    "PrivateRank": "dpacc.federated.rank_choice",
    "PublicRank": "dpacc.federated.rank_choice",
    "SecureClient": "dpacc.federated.secure_sum.client",
    "SecureSum": "dpacc.federated.secure_sum.settings",
    "largest_budget": "dpacc.federated.budgets",
    "read_budgets": "dpacc.federated.budgets",
}

__all__ = [
    "ClientPrivacy",
    "Compression",
    "DPLoRAClient",
    "DPSettings",
    "Defence",
    "FederatedServer",
    "History",
    "LoraSettings",
    "PrivacyBudget",
    "PrivateRank",
    "PublicRank",
    "SecureClient",
    "SecureSum",
    "TrustingClient",
    "largest_budget",
    "read_budgets",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'dpacc.federated' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
