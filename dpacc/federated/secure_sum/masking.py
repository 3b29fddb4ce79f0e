"""A client's side of "secagg" and "pairwise": masks that cancel in the sum.

Client i sends xᵢ + PRG(bᵢ) + Σ_{j>i} PRG(sᵢⱼ) − Σ_{j<i} PRG(sᵢⱼ) modulo 2ʷ, sᵢⱼ being agreed by
the pair and bᵢ its own (Bonawitz et al. 2017, doi 10.1145/3133956.3133982). Of bᵢ, and of the key
behind its sᵢⱼ, every client of its circle holds a share: of each client's two secrets the server
may learn one, bᵢ if its numbers arrived, the key if they did not. The circle is everybody, or the
client and `neighbours` that it draws by itself; j are those in i's circle, or in whose circle i is.
"pairwise" has no bᵢ and no shares.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from typing import cast

from dpacc.federated.requests import RequestRefused
from dpacc.federated.secure_sum.fixed_point import Integers, Residues, residues
from dpacc.federated.secure_sum.keys import (
    add_mask,
    add_pair_mask,
    agreed_key,
    is_public_key,
    new_key,
    pair_key,
    public_key,
    sealed,
    self_key,
    unsealed,
)
from dpacc.federated.secure_sum.messages import (
    CONFIRM,
    KEYS,
    OPEN,
    SHARES,
    TRAIN,
    WRONG_SHARE,
    ClientSide,
    Party,
    Payload,
    Request,
    paired,
    several,
)
from dpacc.federated.secure_sum.shamir import SharesDisagree, committed, shares
from dpacc.federated.secure_sum.signed.agreement import (
    require_confirmed,
    sign_survivors,
    signed_offer,
    take_circles,
    take_signers,
)


def offer_keys(asked: Request, party: Party) -> Payload:
    """Two public keys: one for masks, one under which shares travel."""
    del asked
    masks, seals = new_key(), new_key()
    party.state.update({"mask-private": masks, "seal-private": seals})
    asks_more = party.settings.protocol == "secagg" or party.keys is not None
    party.then(SHARES if asks_more else TRAIN)
    offered: Payload = {"mask-key": public_key(masks), "seal-key": public_key(seals)}
    return offered if party.keys is None else signed_offer(offered, party)


def hand_out_shares(asked: Request, party: Party) -> Payload:
    """For every other client, sealed: a share of the own seed and one of the masks' key.

    Raises:
        RequestRefused: too few or too many clients, or keys that do not fit.
    """
    party.turn(SHARES, asked)
    circle = _drawn_circle(_take_roster(asked, party), party)
    _require_keys(party, circle)
    seed, count, fewest = new_key(), len(circle), party.settings.fewest_shares
    of_seed = shares(seed, threshold=fewest, count=count)
    of_key = shares(party.kept("mask-private"), threshold=fewest, count=count)
    seals = party.roster("seal-keys")
    boxes = {
        peer: sealed(
            one + two,
            key=_seal_key(party, peer, seals[peer]),
            about=_about(party, party.node, peer),
        )
        for peer, one, two in zip(circle, of_seed, of_key, strict=True)
        if peer != party.node
    }
    own = circle.index(party.node)
    party.state.update({"circle": circle, "seed": seed, "own-share": of_seed[own] + of_key[own]})
    party.then(TRAIN)
    return {
        "nodes": list(boxes),
        "sealed": list(boxes.values()),
        "seed-digest": hashlib.sha256(seed).digest(),
        "commitments": [
            committed(one + two, session=party.session, source=party.node, destination=peer)
            for peer, one, two in zip(circle, of_seed, of_key, strict=True)
        ],
    }


def _drawn_circle(nodes: Sequence[str], party: Party) -> list[str]:
    """This client and whom it shares its secrets with; nobody else has a say in the draw."""
    found = party.settings.neighbourhood
    if found is None:
        return sorted(nodes)
    others = [node for node in nodes if node != party.node]
    return sorted([party.node, *secrets.SystemRandom().sample(others, found.neighbours)])


def take_shares(asked: Request, party: Party) -> None:
    """Keep the shares of all that handed theirs out, before anything is trained.

    Raises:
        RequestRefused: they are too few, or a share is not what its owner sealed for this client,
            or committed to.
    """
    party.turn(TRAIN, asked)
    boxes, said = paired(asked, "sources", "sealed"), paired(asked, "sources", "commitments")
    present = several(asked, "present", str)
    if not {*boxes} <= {*present} - {party.node} or not {*present} <= {*party.roster()}:
        raise RequestRefused("the server forwards shares of clients that it did not name before")
    if len({*present}) != len(present) or party.node not in present:
        raise RequestRefused("the server's list of who is there repeats one, or lacks this client")
    if party.settings.neighbourhood is None and len(boxes) + 1 != len(present):
        raise RequestRefused("the server keeps back shares of clients that it says are there")
    _require_enough(party, present)
    if party.keys is not None and party.settings.neighbourhood is not None:
        take_circles(asked, party, {*boxes})
    _require_keys(party, [*boxes])
    held, seals = {party.node: party.kept("own-share")}, party.roster("seal-keys")
    for peer, box in boxes.items():
        held[peer] = _opened(box, party, peer, seals[peer])
        if said[peer] != committed(
            held[peer], session=party.session, source=peer, destination=party.node
        ):
            raise RequestRefused(f"{WRONG_SHARE}{peer}: it is not what was committed to")
    peers = ({*party.circle} & {*present} | {*boxes}) - {party.node}
    party.state.update(
        {
            "present": present,
            "peers": sorted(peers),
            "sources": list(held),
            "held": list(held.values()),
        }
    )


def _opened(box: bytes, party: Party, peer: str, seal: bytes) -> bytes:
    about = _about(party, peer, party.node)
    try:
        return unsealed(box, key=_seal_key(party, peer, seal), about=about)
    except SharesDisagree as error:
        raise RequestRefused(f"{WRONG_SHARE}{peer}: {error}") from error


def masked(whole: Integers, asked: Request, party: Party) -> Residues:
    """The numbers under every mask."""
    del asked
    total, roster = residues(whole, words=party.words), party.roster()
    for peer in cast(list[str], party.state["peers"]):
        key = pair_key(
            private=party.kept("mask-private"),
            public=roster[peer],
            session=party.session,
            pair={party.node, peer},
            words=party.words,
        )
        add_pair_mask(total, key, node=party.node, peer=peer)
    if party.settings.protocol == "pairwise":
        party.forget()
        return total
    seed = party.kept("seed")
    add_mask(total, self_key(seed=seed, session=party.session, words=party.words))
    party.then(OPEN if party.keys is None else CONFIRM)
    return total


def confirm(asked: Request, party: Party) -> Payload:
    """Sign whose numbers arrived, once: of two lists no client signs both.

    Raises:
        RequestRefused: the list is none that this client would open.
    """
    party.turn(CONFIRM, asked)
    arrived, _ = _survivors(asked, party)
    party.then(OPEN)
    return sign_survivors(party, arrived)


def give_shares(asked: Request, party: Party) -> Payload:
    """Of each client one share: of its seed if its numbers arrived, of its key if they did not.

    Raises:
        RequestRefused: a client is on both lists, or none, or too few numbers arrived. Nothing is
            given, then or later.
    """
    party.turn(OPEN, asked)
    sources = cast(list[str], party.state["sources"])
    held = dict(zip(sources, cast(list[bytes], party.state["held"]), strict=True))
    try:
        arrived, dropped = _survivors(asked, party)
        if party.keys is not None:
            require_confirmed(asked, party, arrived)
    finally:
        party.forget()
    half = {node: len(box) // 2 for node, box in held.items()}
    given = {node: held[node][: half[node]] for node in arrived if node in held}
    given |= {node: held[node][half[node] :] for node in dropped if node in held}
    return {"nodes": list(given), "shares": list(given.values())}


def _survivors(asked: Request, party: Party) -> tuple[list[str], list[str]]:
    """Whose numbers arrived, and whose did not.

    Raises:
        RequestRefused: a client is on both lists, or none, or too few numbers arrived.
    """
    arrived, dropped = several(asked, "arrived", str), several(asked, "dropped", str)
    if len({*arrived, *dropped}) != len(arrived) + len(dropped):
        raise RequestRefused(
            "the server asks for both secrets of a client, which together unmask its update"
        )
    if {*arrived, *dropped} != {*party.present} or party.node not in arrived:
        raise RequestRefused("the server's list of survivors is not one of this sum's clients")
    _require_enough(party, arrived)
    return arrived, dropped


def know_pairs(asked: Request, party: Party) -> Payload:
    """Keep everybody's keys, of a signed sum without shares, before anybody trains for it.

    Raises:
        RequestRefused: somebody is missing or not known, or keys do not fit.
    """
    party.turn(SHARES, asked)
    _keep_pairs(asked, party)
    party.then(TRAIN)
    return {}


def take_pairs(asked: Request, party: Party) -> None:
    """Keep everybody's keys; without shares, all must take part.

    Raises:
        RequestRefused: somebody is missing, or keys do not fit.
    """
    party.turn(TRAIN, asked)
    if party.keys is None:
        _keep_pairs(asked, party)


def _keep_pairs(asked: Request, party: Party) -> None:
    nodes = _take_roster(asked, party)
    _require_keys(party, nodes)
    party.state["peers"] = [node for node in nodes if node != party.node]


def _take_roster(asked: Request, party: Party) -> list[str]:
    """All clients that offered keys, which are as many as agreed, and all different."""
    masks, seals = paired(asked, "nodes", "mask-keys"), paired(asked, "nodes", "seal-keys")
    keys = [*masks.values(), *seals.values()]
    own = (
        public_key(party.kept("mask-private")),
        public_key(party.kept("seal-private")),
    )
    if len(set(keys)) != len(keys) or (masks.get(party.node), seals.get(party.node)) != own:
        raise RequestRefused("the server's list of keys repeats one, or lacks this client's own")
    if len(masks) > party.settings.clients:
        raise RequestRefused(
            f"the server names {len(masks)} clients; this sum is for {party.settings.clients}"
        )
    nodes = sorted(masks)
    _require_enough(party, nodes, circle=nodes)
    party.state.update(
        {
            "nodes": nodes,
            "mask-keys": [masks[node] for node in nodes],
            "seal-keys": [seals[node] for node in nodes],
        }
    )
    if party.keys is not None:
        take_signers(asked, party)
    return nodes


def _require_keys(party: Party, some: Sequence[str]) -> None:
    """Refuse keys with which nothing secret can be agreed, of those that this client needs."""
    masks, seals = party.roster(), party.roster("seal-keys")
    if not all(is_public_key(keys[node]) for node in some for keys in (masks, seals)):
        raise RequestRefused("the server's list of keys holds what is none; begin a new sum")


def _require_enough(
    party: Party, some: Sequence[str], *, circle: Sequence[str] | None = None
) -> None:
    """Refuse a sum of too few, or of too few who can open this client's part of it."""
    if len(some) < party.settings.fewest:
        raise RequestRefused(
            f"{len(some)} clients are left of a secure sum that needs {party.settings.fewest} or "
            "more"
        )
    left = len({*(circle or party.circle)} & {*some})
    if left < party.settings.fewest_shares:
        raise RequestRefused(
            f"{left} of those that hold this client's secrets are left of a secure sum that needs "
            f"{party.settings.fewest_shares} or more"
        )


def _seal_key(party: Party, peer: str, public: bytes) -> bytes:
    try:
        return agreed_key(
            private=party.kept("seal-private"),
            public=public,
            purpose="/".join(["seal", party.session, *sorted({party.node, peer})]),
        )
    except ValueError as error:
        raise RequestRefused(f"the key of client {peer} is none") from error


def _about(party: Party, source: str, destination: str) -> str:
    return "/".join([party.session, source, destination])


SECAGG = ClientSide(
    queries={
        KEYS: offer_keys,
        SHARES: hand_out_shares,
        CONFIRM: confirm,
        OPEN: give_shares,
    },
    require=take_shares,
    protect=masked,
)
PAIRWISE = ClientSide(
    queries={KEYS: offer_keys, SHARES: know_pairs}, require=take_pairs, protect=masked
)
