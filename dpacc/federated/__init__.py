"""Federated private LoRA on Flower: organisations share an adapter, never their records.

Each client trains with this project's own engine, a ledger and a budget of its own; Flower carries
the messages. Read `settings` with `setting_limits`, then the rooms: `clients`, `server`,
`aggregation`, `updates`, `ranks` and `secure_sum`. `requests` are what passes between them,
`budgets` what each client may spend; `healthcare` is a scenario of hospitals, `monitoring` says
what ε bought, `benchmark` compares federations on public data, `trials` try settings on it, and
`fronts` are names that people know from elsewhere; `deployment`, with Flower's programs `superlink`
and `supernode`, puts it on machines of its own.

Names are loaded on first use. Offers `DPLoRAClient`, `FederatedServer`, `DPSettings` and others.
"""

import os
from typing import TYPE_CHECKING

from dpacc import on_first_use

if TYPE_CHECKING:
    from dpacc.federated.aggregation.client_level import ClientPrivacy as ClientPrivacy
    from dpacc.federated.aggregation.robust import Defence as Defence
    from dpacc.federated.aggregation.rollback import Rollback as Rollback
    from dpacc.federated.benchmark.settings import BenchmarkConfig as BenchmarkConfig
    from dpacc.federated.benchmark.suite import FederatedBenchmark as FederatedBenchmark
    from dpacc.federated.budgets import largest_budget as largest_budget
    from dpacc.federated.budgets import read_budgets as read_budgets
    from dpacc.federated.clients.private_client import DPLoRAClient as DPLoRAClient
    from dpacc.federated.clients.trusting_client import TrustingClient as TrustingClient
    from dpacc.federated.fronts.accountant import PrivacyAccountant as PrivacyAccountant
    from dpacc.federated.fronts.aggregators import (
        ByzantineRobustAggregator as ByzantineRobustAggregator,
    )
    from dpacc.federated.fronts.aggregators import CompressedDPLoRA as CompressedDPLoRA
    from dpacc.federated.fronts.aggregators import SecureAggregator as SecureAggregator
    from dpacc.federated.fronts.clients import AdaptiveRankSelector as AdaptiveRankSelector
    from dpacc.federated.fronts.clients import PersonalizedDPLoRA as PersonalizedDPLoRA
    from dpacc.federated.healthcare.scenario import HealthcareFederation as HealthcareFederation
    from dpacc.federated.monitoring.utility_monitor import UtilityMonitor as UtilityMonitor
    from dpacc.federated.ranks.rank_choice import PrivateRank as PrivateRank
    from dpacc.federated.ranks.rank_choice import PublicRank as PublicRank
    from dpacc.federated.secure_sum.settings import SecureSum as SecureSum
    from dpacc.federated.secure_sum.signed.signatures import SigningKeys as SigningKeys
    from dpacc.federated.secure_sum.summing_client import SecureClient as SecureClient
    from dpacc.federated.server.federated_server import FederatedServer as FederatedServer
    from dpacc.federated.server.history import History as History
    from dpacc.federated.settings import DPSettings as DPSettings
    from dpacc.federated.settings import LoraSettings as LoraSettings
    from dpacc.federated.settings import PrivacyBudget as PrivacyBudget
    from dpacc.federated.updates.compression import Compression as Compression

# Flower reads them when it is imported; what a hospital runs should not phone home.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")

_HOMES = {
    "BenchmarkConfig": "dpacc.federated.benchmark.settings",
    "FederatedBenchmark": "dpacc.federated.benchmark.suite",
    "UtilityMonitor": "dpacc.federated.monitoring.utility_monitor",
    "PrivacyAccountant": "dpacc.federated.fronts.accountant",
    "CompressedDPLoRA": "dpacc.federated.fronts.aggregators",
    "ByzantineRobustAggregator": "dpacc.federated.fronts.aggregators",
    "SecureAggregator": "dpacc.federated.fronts.aggregators",
    "PersonalizedDPLoRA": "dpacc.federated.fronts.clients",
    "AdaptiveRankSelector": "dpacc.federated.fronts.clients",
    "ClientPrivacy": "dpacc.federated.aggregation.client_level",
    "TrustingClient": "dpacc.federated.clients.trusting_client",
    "Compression": "dpacc.federated.updates.compression",
    "DPLoRAClient": "dpacc.federated.clients.private_client",
    "DPSettings": "dpacc.federated.settings",
    "Defence": "dpacc.federated.aggregation.robust",
    "FederatedServer": "dpacc.federated.server.federated_server",
    "HealthcareFederation": "dpacc.federated.healthcare.scenario",
    "History": "dpacc.federated.server.history",
    "LoraSettings": "dpacc.federated.settings",
    "PrivacyBudget": "dpacc.federated.settings",
    "PrivateRank": "dpacc.federated.ranks.rank_choice",
    "PublicRank": "dpacc.federated.ranks.rank_choice",
    "Rollback": "dpacc.federated.aggregation.rollback",
    "SecureClient": "dpacc.federated.secure_sum.summing_client",
    "SecureSum": "dpacc.federated.secure_sum.settings",
    "SigningKeys": "dpacc.federated.secure_sum.signed.signatures",
    "largest_budget": "dpacc.federated.budgets",
    "read_budgets": "dpacc.federated.budgets",
}

__all__ = [
    "AdaptiveRankSelector",
    "BenchmarkConfig",
    "ByzantineRobustAggregator",
    "ClientPrivacy",
    "CompressedDPLoRA",
    "Compression",
    "DPLoRAClient",
    "DPSettings",
    "Defence",
    "FederatedBenchmark",
    "FederatedServer",
    "HealthcareFederation",
    "History",
    "LoraSettings",
    "PersonalizedDPLoRA",
    "PrivacyAccountant",
    "PrivacyBudget",
    "PrivateRank",
    "PublicRank",
    "Rollback",
    "SecureAggregator",
    "SecureClient",
    "SecureSum",
    "SigningKeys",
    "TrustingClient",
    "UtilityMonitor",
    "largest_budget",
    "read_budgets",
]


__getattr__, __dir__ = on_first_use(globals(), _HOMES)
