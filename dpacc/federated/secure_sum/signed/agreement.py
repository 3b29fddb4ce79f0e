"""A client's part in a signed sum: whose keys it takes, and that all were told the same of it.

Nothing is taken of a client whose key its owner has not pinned. Before anything is opened each
signs, once, all keys, who is there, whom each drew and whose numbers arrived; only signatures of
the same let a share go (see `signatures`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence, Set
from typing import cast

from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum.messages import STRANGER, Party, Payload, Request, paired
from dpacc.federated.secure_sum.neighbourhoods import circle_bits, who_drew, with_holders
from dpacc.federated.secure_sum.signed.signatures import is_signed, list_digest, said_of_keys


def signed_offer(offered: Payload, party: Party) -> Payload:
    """The keys that a client offers, with its signature."""
    assert party.keys is not None
    mask_key, seal_key = cast(bytes, offered["mask-key"]), cast(bytes, offered["seal-key"])
    said = said_of_keys(party.node, party.agreed, party.session, mask_key, seal_key)
    signature = party.keys.sign("keys", *said)
    return {**offered, "signer": party.keys.public, "signature": signature}


def take_signers(asked: Request, party: Party) -> None:
    """Keep who signed which keys, all of whom this client's owner knows, each once.

    Raises:
        RequestRefused: naming the first of whom that does not hold.
    """
    assert party.keys is not None
    signers, signatures = paired(asked, "nodes", "signers"), paired(asked, "nodes", "signatures")
    masks, seals = party.roster(), party.roster("seal-keys")
    for node in masks:
        said = said_of_keys(node, party.agreed, party.session, masks[node], seals[node])
        if not party.keys.knows(signers[node]) or not is_signed(
            signatures[node], signers[node], "keys", *said
        ):
            raise RequestRefused(
                f"{STRANGER}{node}: its keys are not signed by one; if it is to take part, get its "
                "public key from its owner"
            )
    if len({*signers.values()}) != len(signers) or signers[party.node] != party.keys.public:
        raise RequestRefused("the server's list names one signer twice, or not this client's own")
    party.state["signers"] = [signers[node] for node in masks]


def take_circles(asked: Request, party: Party, sources: Set[str]) -> None:
    """Keep whom each drew, as all that sign must have been told it: both of a pair are masked.

    Raises:
        RequestRefused: it is not whom this client drew, or not who drew it.
    """
    told, nodes = paired(asked, "present", "circles"), party.nodes
    drew = who_drew(party.node, told, nodes)
    if told[party.node] != circle_bits(party.circle, nodes) or drew != sources | {party.node}:
        raise RequestRefused("the server tells of other neighbours than it forwards shares of")
    party.state["circles"] = list(told.values())


def sign_survivors(party: Party, arrived: Sequence[str]) -> Payload:
    """This client's signature of whose numbers arrived, and of all else that it was told."""
    assert party.keys is not None
    digest = party.state["confirmed"] = _digest(party, arrived)
    return {"signature": party.keys.sign("survivors", party.session, party.agreed, digest)}


def require_confirmed(asked: Request, party: Party, arrived: Sequence[str]) -> None:
    """Refuse a list that threshold clients of those on it have not signed, this one among them.

    Among neighbours those count whose secrets enough that signed hold shares of.

    Raises:
        RequestRefused: with what differs, or how many are missing.
    """
    digest, fewest = _digest(party, arrived), party.settings.fewest
    if digest != party.state["confirmed"]:
        raise RequestRefused("the server's list of survivors is another than this client signed")
    signatures, signers = paired(asked, "signers", "signatures"), party.roster("signers")
    said = ("survivors", party.session, party.agreed, digest)
    some = {*arrived} & signatures.keys()
    agreeing = {node for node in some if is_signed(signatures[node], signers[node], *said)}
    if circles := _circles(party):
        shares_needed, nodes = party.settings.fewest_shares, [*signers]
        agreeing = with_holders(agreeing, circles=circles, nodes=nodes, fewest=shares_needed)
    if len(agreeing) < fewest:
        raise RequestRefused(
            f"fewer than {fewest} clients signed whose numbers arrived: others were told another "
            "list, or the server keeps theirs back"
        )


def _digest(party: Party, arrived: Sequence[str]) -> str:
    """Of all that clients must have been told alike."""
    drawn = [f"{node} {bits.hex()}" for node, bits in _circles(party).items()]
    return list_digest(_roster_lines(party), party.present, drawn, arrived)


def _roster_lines(party: Party) -> list[str]:
    """Each client's keys in this sum, and who signed them."""
    names = ("mask-keys", "seal-keys", "signers")
    columns = [cast(list[bytes], party.state[name]) for name in names]
    rows = zip(party.nodes, *columns, strict=True)
    return [json.dumps([node, *(each.hex() for each in keys)]) for node, *keys in rows]


def _circles(party: Party) -> dict[str, bytes]:
    """Whom each that is there drew; in signed sums among neighbours."""
    told = cast(list[bytes], party.state.get("circles", []))
    return dict(zip(party.present, told, strict=True)) if told else {}
