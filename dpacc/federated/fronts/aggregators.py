"""How updates are summed, defended and compressed, by other names for the same settings."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any, NoReturn, cast

from dpacc.errors import ConfigurationError, names_what_is_unknown
from dpacc.federated.aggregation.robust import Defence, Rule
from dpacc.federated.secure_sum.settings import ProtocolName, SecureSum
from dpacc.federated.setting_limits import require_count, require_positive
from dpacc.federated.updates.compression import Compression

_PROTOCOLS = {"masking": "pairwise", "homomorphic": "ckks"}


def share_of(name: str, share: float, *, clients: int) -> int:
    """A share of clients as a whole number of them, rounded up.

    Decimals are taken as they are written: 0.7 of ten is seven, and not eight.

    >>> share_of("threshold", 0.7, clients=10), share_of("byzantine_fraction", 0.2, clients=12)
    (7, 3)
    """
    require_positive(name, share, at_most=1)
    return math.ceil(Fraction(str(share)) * clients)


class SecureAggregator(SecureSum):
    """A [`SecureSum`][dpacc.federated.secure_sum.settings.SecureSum], for `secure_sum=`.

    Args:
        clients: n, all that take part.
        protocol: "secagg"; "masking" is "pairwise" and "homomorphic" is "ckks".
        threshold: t, the fewest whose sum is opened, or their share of n; by default all.
        colluding: how many clients may work together with the server.
        byzantine_robust: False: a rule that looks for hostile updates needs to see them.

    Raises:
        ConfigurationError: as of a `SecureSum`, or `byzantine_robust`.

    >>> SecureAggregator(clients=10, protocol="secagg", threshold=0.7).fewest
    7
    """

    @names_what_is_unknown(of="SecureAggregator")
    def __init__(
        self,
        *,
        clients: int,
        protocol: str = "secagg",
        threshold: float | None = None,
        colluding: int = 0,
        byzantine_robust: bool = False,
    ) -> None:
        if byzantine_robust:
            raise ConfigurationError(
                "byzantine_robust=True inside a secure sum: Krum, medians and outlier tests look "
                "at single updates, which the sum hides; leave it out, or give up the sum and "
                "give server.train a defence=Defence(...)"
            )
        require_count("clients", clients)
        if isinstance(threshold, float):
            threshold = share_of("threshold", threshold, clients=clients)
        super().__init__(
            clients=clients,
            protocol=cast(ProtocolName, _PROTOCOLS.get(protocol, protocol)),
            threshold=threshold,
            colluding=colluding,
        )

    def secure_computation(self, function: object) -> NoReturn:
        """Refuse: nothing of one's own can be computed of updates that nobody sees.

        Raises:
            ConfigurationError: always, with what to do.
        """
        raise ConfigurationError(
            f"secure_computation({function!r}): updates reach the server as one sum, so that no "
            "function of single ones can be computed, nor weights by numbers of examples be "
            "applied; give this object to FederatedServer and to each SecureClient as secure_sum="
        )


class ByzantineRobustAggregator(Defence):
    """A [`Defence`][dpacc.federated.aggregation.robust.Defence], for `server.train(defence=...)`.

    Args:
        clients: n, all that take part.
        method: the rule; "multi_krum", "trimmed_mean" and "coordinate_median" are understood.
        byzantine_fraction: f/n, the share that may be hostile, rounded up to whole clients.

    Raises:
        ConfigurationError: as of a `Defence`.

    >>> ByzantineRobustAggregator(clients=10, method="krum", byzantine_fraction=0.2).attackers
    2
    """

    @names_what_is_unknown(of="ByzantineRobustAggregator")
    def __init__(self, *, clients: int, method: str, byzantine_fraction: float) -> None:
        require_count("clients", clients)
        rule = str(method).replace("_", "-").removeprefix("coordinate-")
        attackers = share_of("byzantine_fraction", byzantine_fraction, clients=clients)
        super().__init__(rule=cast(Rule, rule), attackers=attackers)

    def aggregate(self, **given: object) -> NoReturn:
        """Refuse: the server aggregates, round by round.

        Raises:
            ConfigurationError: always, with what to do.
        """
        raise ConfigurationError(
            f"aggregate({', '.join(given)}): the server does it in each round; give this object to "
            "server.train as defence=, and read report.filtered for whom it left out and why"
        )


class CompressedDPLoRA(Compression):
    """A [`Compression`][dpacc.federated.updates.compression.Compression], for `server.train`.

    Args:
        compression_rate: the share of numbers that is sent, at random places, so that the mean
            stays right.
        quantization_bits: of each number, 32, 8 or 4.
        privacy_aware_compression: True: only what was noised is compressed, which costs nothing.

    Raises:
        ConfigurationError: as of a `Compression`, or to compress what was not noised yet.

    >>> CompressedDPLoRA(compression_rate=0.1, quantization_bits=8).code
    "Compression(bits=8, keep=0.1, selection='random')"
    """

    @names_what_is_unknown(of="CompressedDPLoRA")
    def __init__(
        self,
        *,
        compression_rate: float = 1.0,
        quantization_bits: int = 32,
        privacy_aware_compression: bool = True,
    ) -> None:
        if privacy_aware_compression is not True:
            raise ConfigurationError(
                f"privacy_aware_compression={privacy_aware_compression!r}: updates are compressed "
                "after their noise and never before it; leave it out"
            )
        super().__init__(
            bits=cast(Any, quantization_bits), keep=compression_rate, selection="random"
        )

    def optimize_compression_privacy_tradeoff(self, **given: object) -> NoReturn:
        """Refuse: a choice needs sizes, a model and public records, which a target does not name.

        Raises:
            ConfigurationError: always, with the command that does it.
        """
        raise ConfigurationError(
            f"optimize_compression_privacy_tradeoff({', '.join(given)}): run `dpacc federate tune "
            "--megabytes ... --model ... --try PUBLIC.jsonl --target ...`, which tries rank, "
            "compression and noise with the real engine and says how sure it is"
        )
