"""What each client decides for itself, by other names for the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.federated.ranks.rank_choice import PrivateRank
from dpacc.federated.setting_limits import require_count
from dpacc.federated.settings import DPSettings, dp_settings


class AdaptiveRankSelector(PrivateRank):
    """A [`PrivateRank`][dpacc.federated.ranks.rank_choice.PrivateRank], for `rank=` of a client.

    Args:
        min_rank: the smallest candidate; each of the others is twice the one before.
        max_rank: the largest; the shared adapter must have at least that rank.
        privacy_budget_per_selection: ε of the choice, a part of the client's own.

    Raises:
        ConfigurationError: a rank or ε that is none.

    >>> AdaptiveRankSelector(min_rank=4, max_rank=64, privacy_budget_per_selection=0.1).candidates
    (4, 8, 16, 32, 64)
    """

    @names_what_is_unknown(of="AdaptiveRankSelector")
    def __init__(
        self, *, min_rank: int = 4, max_rank: int, privacy_budget_per_selection: float
    ) -> None:
        require_count("min_rank", min_rank)
        require_count("max_rank", max_rank, at_least=min_rank)
        doubled = [min_rank]
        while 2 * doubled[-1] < max_rank:
            doubled.append(2 * doubled[-1])
        candidates = tuple(dict.fromkeys((*doubled, max_rank)))
        super().__init__(epsilon=privacy_budget_per_selection, candidates=candidates)

    def select_rank(self, **given: object) -> NoReturn:
        """Refuse: statistics of a client's data are private, and must not leave it.

        Raises:
            ConfigurationError: always, with what to do.
        """
        raise ConfigurationError(
            f"select_rank({', '.join(given)}): no statistics of a client's data leave it here; "
            "give this object to DPLoRAClient as rank=, which lets the client's own examples vote, "
            "charges the choice to its ledger, and takes it off its epsilon"
        )


class PersonalizedDPLoRA(Mapping[str, DPSettings]):
    """Each client's [`DPSettings`][dpacc.federated.settings.DPSettings], by its name.

    It is what `read_budgets` gives: `largest_budget` of it is the server's `privacy_budget`.

    Args:
        **shared: settings that all clients have, such as expected_batch_size.

    Raises:
        ConfigurationError: an unknown or wrong setting.

    >>> personal = PersonalizedDPLoRA(expected_batch_size=16)
    >>> personal.set_client_privacy("hospital_1", {"epsilon": 1.0, "delta": 1e-5})
    >>> personal["hospital_1"].epsilon
    1.0
    """

    def __init__(self, **shared: Any) -> None:
        dp_settings({"epsilon": 1.0, "delta": 0.5, "expected_batch_size": 1} | shared)
        self._shared = shared
        self._clients: dict[str, DPSettings] = {}

    def set_client_privacy(self, client_id: str, privacy: Mapping[str, Any]) -> None:
        """Name one client's budget.

        Args:
            client_id: of the client.
            privacy: its epsilon and delta, and what else is its own.

        Raises:
            ConfigurationError: an unknown key, or another δ than an earlier client's.
        """
        own = dp_settings({**self._shared, **privacy})
        for name, other in self._clients.items():
            if own.delta != other.delta:
                raise ConfigurationError(
                    f"{client_id}'s delta={own.delta} and {name}'s {other.delta}: all state their "
                    "epsilon at one delta, or nobody can compare them; agree on one"
                )
        self._clients[client_id] = own

    def train_client(self, **given: object) -> NoReturn:
        """Refuse: a client trains when its server asks.

        Raises:
            ConfigurationError: always, with what to do.
        """
        raise ConfigurationError(
            f"train_client({', '.join(given)}): give each DPLoRAClient its dp_config=, such as "
            "personalized['hospital_1'], and all of them to server.train(clients=...)"
        )

    def __getitem__(self, client_id: str) -> DPSettings:
        return self._clients[client_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._clients)

    def __len__(self) -> int:
        return len(self._clients)
