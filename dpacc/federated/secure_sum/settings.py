"""What a secure sum agrees on, and what is refused before anybody is asked."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.secure_sum.neighbourhoods import (
    SECURITY_BITS,
    Neighbourhood,
    Sum,
    fitting_neighbourhood,
)
from dpacc.federated.setting_limits import require_count, require_kind, require_positive
from dpacc.federated.settings import LoraSettings

ProtocolName = Literal["secagg", "pairwise", "ckks"]


@dataclass(frozen=True, kw_only=True)
class SecureSum:
    """How the sum of all updates reaches the server without any one of them.

    Server and clients must be given the same one: a client refuses a server that asks otherwise.

    Args:
        protocol: "secagg", masks whose seeds are shared so that clients may drop out; "pairwise",
            masks alone, which open only if all answer; "ckks", homomorphic encryption (needs the
            extra `homomorphic`).
        clients: n, all that take part.
        threshold: t, the fewest whose sum is ever opened; by default all. It must exceed
            (n + colluding)/2, or a server could tell some clients that one of them is gone, tell
            others that it is there, and collect both of its secrets.
        colluding: how many clients may work together with the server.
        reach: example level: the most that one number of an update may move in a round; clients
            refuse to send more. Client level has the clipping norm instead.
        neighbours: "secagg": with how many others, drawn by itself, each client shares its secrets.
            "auto" takes the fewest that are safe, or everybody where that is as cheap; see
            `dpacc.federated.secure_sum.neighbourhoods`.
        signed: whether clients check one another's keys against a list of their own, and sign whose
            numbers arrived before they open anything. Each needs `SigningKeys`.

    >>> SecureSum(clients=5, threshold=4, colluding=1).honest
    3
    >>> SecureSum(clients=1000, threshold=800, colluding=50).neighbourhood
    Neighbourhood(neighbours=154, fewest=95)
    """

    clients: int
    threshold: int | None = None
    colluding: int = 0
    protocol: ProtocolName = "secagg"
    reach: float = 8.0
    # What a server keeps of runs does not depend on it.
    neighbours: int | Literal["auto"] = field(default="auto", repr=False)
    signed: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        if self.protocol not in get_args(ProtocolName):
            raise ConfigurationError(
                f"protocol={self.protocol!r} must be one of {', '.join(get_args(ProtocolName))}"
            )
        require_count("clients", self.clients)
        require_count("colluding", self.colluding, at_least=0)
        require_positive("reach", self.reach)
        if self.threshold is not None:
            require_count("threshold", self.threshold)
        if self.protocol == "pairwise" and self.fewest != self.clients:
            raise ConfigurationError(
                f"threshold={self.threshold} with protocol='pairwise', whose masks cancel only if "
                f"all {self.clients} answer; leave the threshold out, or take protocol='secagg'"
            )
        if self.protocol == "ckks" and self.colluding:
            raise ConfigurationError(
                "colluding with protocol='ckks': a server that works together with the client that "
                "holds the key reads every update; take protocol='secagg'"
            )
        if not self.clients + self.colluding < 2 * self.fewest <= 2 * self.clients:
            least = (self.clients + self.colluding) // 2 + 1
            raise ConfigurationError(
                f"threshold={self.fewest} of clients={self.clients} with colluding="
                f"{self.colluding}: a server could collect both secrets of one client by telling "
                f"others different things; take {least} to {self.clients}"
            )
        if self.honest < 2:
            raise ConfigurationError(
                f"threshold={self.fewest} with colluding={self.colluding} could open the sum of "
                "one honest client, which hides nothing; raise the threshold"
            )
        require_kind("signed", self.signed, bool)
        if self.signed and self.protocol == "ckks":
            raise ConfigurationError(
                "signed with protocol='ckks': who holds the key opens what the server sends it, "
                "whoever signed; take protocol='secagg'"
            )
        self._require_neighbours()

    def _require_neighbours(self) -> None:
        """Refuse a number of neighbours that is none, or too small.

        Raises:
            ConfigurationError: with what would do.
        """
        if self.neighbours == "auto":
            return
        require_count("neighbours", self.neighbours)
        if self.protocol != "secagg":
            raise ConfigurationError(
                f"neighbours={self.neighbours} with protocol={self.protocol!r}, in which all are "
                "everybody's; leave it out, or take protocol='secagg'"
            )
        if 2 * self.neighbours > self.clients - 2:
            raise ConfigurationError(
                f"neighbours={self.neighbours} of clients={self.clients}: each masks with those "
                "that it draws and those that draw it, so that everybody is as cheap; leave it out"
            )
        if self.neighbourhood is None:
            raise ConfigurationError(
                f"neighbours={self.neighbours} of clients={self.clients} with threshold="
                f"{self.fewest} and colluding={self.colluding}: by a chance above "
                f"2^-{SECURITY_BITS} they hide too little, or too often nothing is opened; take "
                "neighbours='auto'"
            )

    @property
    def fewest(self) -> int:
        """t."""
        return self.clients if self.threshold is None else self.threshold

    @property
    def honest(self) -> int:
        """h = t − colluding, the honest clients that are in every sum that is opened."""
        return self.fewest - self.colluding

    @property
    def neighbourhood(self) -> Neighbourhood | None:
        """Whom each client's secrets are shared with; None means everybody."""
        if self.protocol != "secagg":
            return None
        return fitting_neighbourhood(
            Sum(clients=self.clients, threshold=self.fewest, colluding=self.colluding),
            neighbours=None if self.neighbours == "auto" else self.neighbours,
        )

    @property
    def fewest_shares(self) -> int:
        """How many shares yield one client's secret."""
        found = self.neighbourhood
        return self.fewest if found is None else found.fewest

    @property
    def stated(self) -> dict[str, Any]:
        """The settings that decide what an opened sum hides."""
        known = asdict(self)
        del known["neighbours"]
        return known if self.signed else {n: value for n, value in known.items() if n != "signed"}

    def agreed(self, privacy: ClientPrivacy | None) -> str:
        """What server and clients compare before the first key is made.

        Raises:
            ConfigurationError: the noise is such as clients cannot share.
        """
        _require_shareable(privacy)
        noise = None if privacy is None else privacy.own
        found = self.neighbourhood
        drawn = {} if found is None else asdict(found)
        return json.dumps([self.stated | drawn, noise], sort_keys=True)


def _require_shareable(privacy: ClientPrivacy | None) -> None:
    """Refuse noise that is correlated between rounds."""
    if privacy is not None and privacy.correlated is not None:
        raise ConfigurationError(
            "secure_sum with correlated noise: each client draws its share anew, and clients that "
            "drop out would take earlier shares with them, so that nobody can take a part back; "
            "leave secure_sum out and trust the server, or take noise without min_separation"
        )


def require_summable(
    *,
    settings: SecureSum,
    clients: int,
    aggregation: str,
    lora: LoraSettings,
    defended: bool,
    sampled: bool,
    privacy: ClientPrivacy | None,
    compressed: bool,
) -> None:
    """Refuse what a server cannot do that sees the sum alone.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if settings.clients != clients:
        raise ConfigurationError(
            f"secure_sum is for clients={settings.clients} and num_clients={clients}; give both "
            "the same number"
        )
    if defended:
        raise ConfigurationError(
            "secure_sum with a defence: Krum, medians and outlier tests look at single updates, "
            "which secure aggregation hides; leave one of them out"
        )
    if aggregation != "ffa" and lora.method != "dylora":
        raise ConfigurationError(
            f"secure_sum with aggregation={aggregation!r}, which needs every client's product of "
            "factors; a sum yields the mean of B alone: take aggregation='ffa'"
        )
    _require_shareable(privacy)
    if compressed:
        require_maskable_codes(settings=settings, client_level=privacy is not None)
    if sampled and privacy is not None:
        raise ConfigurationError(
            "client_sampling_rate below 1 with client_privacy and secure_sum: whether a sum opens "
            "would depend on who was drawn, which no amplification by sampling covers; ask all "
            "clients, and let noise be sized for that"
        )


def require_maskable_codes(*, settings: SecureSum, client_level: bool) -> None:
    """Refuse compression where codes would save nothing or break the noise.

    Raises:
        ConfigurationError: with the reason and the remedy.
    """
    if client_level:
        raise ConfigurationError(
            "secure_sum with client_privacy and compression: the clients' noise is sized for "
            "every number on the sum's own grid, and would be cut with the codes; leave the "
            "compression out"
        )
    if settings.protocol == "ckks":
        raise ConfigurationError(
            "compression with protocol='ckks', whose encrypted numbers are as wide whatever lies "
            "in them; take protocol='secagg', or leave the compression out"
        )
