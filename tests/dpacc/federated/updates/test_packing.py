"""Updates on the wire: really smaller, at the client's own rank, measured, and checked alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import read_ledger
from flwr.app import ConfigRecord, Message

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.ranks.mixed_ranks import NestedRanks
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.compressed_updates import error_bound
from dpacc.federated.updates.compression import Compression
from dpacc.federated.updates.layout import flat, trainable_arrays
from dpacc.federated.updates.packing import Packing, rank_said, require_packable
from tests.dpacc.federated.federations import LORA, client, server, trusting
from tests.dpacc.federated.hostile import SPOILS, HostileCompressor

WIDE = LoraSettings(rank=16, target_modules=LORA.target_modules)
EIGHT = Compression(bits=8)


@pytest.fixture
def grids(monkeypatch: pytest.MonkeyPatch) -> list[LocalGrid]:
    """Every LocalGrid that is made."""
    made: list[LocalGrid] = []
    start = LocalGrid.__init__

    def keep(self: LocalGrid, apps: Any) -> None:
        made.append(self)
        start(self, apps)

    monkeypatch.setattr(LocalGrid, "__init__", keep)
    return made


def sizes(folder: Path, name: str, compression: Compression | None, **changes: Any) -> list[int]:
    """Bytes that one client's update takes in each of two rounds."""
    federation = server(folder, lora_config=WIDE, num_clients=1, folder=folder / name)
    one = client(folder, 1, lora_config=WIDE, folder=folder / f"{name}-site", **changes)
    history = federation.train(clients=[one], compression=compression)
    one.close()
    assert [report.failed for report in history.rounds] == [{}, {}]
    return [report.bytes_received for report in history.rounds]


def test_reported_bytes_are_those_of_the_serialised_messages(
    folder: Path, grids: list[LocalGrid]
) -> None:
    """Both ways, to within the addresses that a grid adds to a message."""
    clients = [client(folder, 1), client(folder, 2)]
    history = server(folder).train(clients=clients, compression=EIGHT)
    (grid,) = grids
    for said, found in (
        (sum(report.bytes_sent for report in history.rounds), grid.bytes_sent),
        (sum(report.bytes_received for report in history.rounds), grid.bytes_received),
    ):
        assert 0 <= found - said < 4 * 120
        assert said > 4 * 300


def test_compressed_updates_are_smaller_on_the_wire(folder: Path) -> None:
    """Of the adapter's numbers: 4 bytes each whole, 1 in 8 bits, ½ in 4, 1⁄20 of ten per cent."""
    whole, eight, four, few = (
        sizes(folder, name, compression)
        for name, compression in (
            ("whole", None),
            ("eight", EIGHT),
            ("four", Compression(bits=4)),
            ("few", Compression(bits=4, keep=0.1, selection="random")),
        )
    )
    model = server(folder, lora_config=WIDE, folder=folder / "count").model
    count = sum(values.size for values in trainable_arrays(model).values())
    for found, payload in ((whole, 4), (eight, 1), (four, 0.5), (few, 0.05)):
        for size in found:
            assert payload * count < size < payload * count + 2000


def test_a_narrow_client_sends_its_own_columns_alone(folder: Path) -> None:
    """Rank 4 of 16 takes a quarter of the bytes, whole or compressed."""
    for name, compression in (("fp32", None), ("int8", EIGHT)):
        (full, _), (narrow, _) = (
            sizes(folder, f"{name}-{rank}", compression, rank=rank) for rank in (None, 4)
        )
        model = server(folder, lora_config=WIDE, folder=folder / f"{name}-count").model
        count = sum(values.size for values in trainable_arrays(model).values())
        each = 1 if compression else 4
        assert full - narrow == pytest.approx(0.75 * count * each, rel=0.05)


@pytest.mark.parametrize("rank", [None, 4])
def test_what_arrives_is_the_update_within_the_bound(folder: Path, rank: int | None) -> None:
    """The server's adapter strays from the client's own by what rounding to 8 bits may add."""
    federation = server(folder, lora_config=WIDE, num_clients=1, rounds=1)
    before = trainable_arrays(federation.model)
    one = client(folder, 1, lora_config=WIDE, rank=rank)
    federation.train(clients=[one], compression=EIGHT)
    ranks = NestedRanks(rank=rank or 16, shared=16)
    sent = ranks.widen(trainable_arrays(one.training._model))
    missed = flat(trainable_arrays(federation.model)) - flat(sent)
    moved = (flat(sent) - flat(before)).astype(np.float32)
    assert 0 < float(np.square(missed).sum()) < error_bound(moved, compression=EIGHT)
    assert np.abs(missed).max() <= np.abs(moved).max() / 127
    zeros = flat(ranks.widen(ranks.narrow(sent))) == 0
    assert not missed[zeros].any()


def test_an_update_that_is_sent_again_is_the_same_bytes(folder: Path) -> None:
    """A request answered before gets the same coins: nothing more can be learned by asking."""
    one = client(folder, 1)
    answers: list[bytes] = []
    answer = one.answer

    def twice(message: Message) -> Message:
        for _ in range(2):
            reply = answer(message)
            codes = reply.content.array_records["arrays"]["codes"]
            answers.append(codes.data)
        return reply

    one.answer = twice  # type: ignore[method-assign]
    history = server(folder, num_clients=1, rounds=1).train(clients=[one], compression=EIGHT)
    assert history.rounds[0].survivors == ("site-1",)
    assert answers[0] == answers[1]
    assert one.training.steps_charged == 3


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_spoiled_reply_leaves_the_round_to_the_others(folder: Path, spoil: str) -> None:
    """The honest client's update alone becomes the adapter; the other one is in `failed`."""
    honest = client(folder, 1, lora_config=WIDE)
    settings: dict[str, Any] = {
        "client_id": "hostile",
        "data_path": folder / "data-1.jsonl",
        "model_name": str(folder / "model"),
        "lora_config": WIDE,
        "dp_config": honest.dp_config,
        "task": {"max_length": 16},
        "folder": folder / "hostile",
    }
    federation = server(folder, lora_config=WIDE, rounds=1)
    history = federation.train(
        clients=[honest, HostileCompressor(spoil=spoil, **settings)], compression=EIGHT
    )
    (report,) = history.rounds
    assert report.survivors == ("site-1",)
    assert list(report.failed) == ["node 2"]
    own = flat(trainable_arrays(honest.training._model))
    assert np.abs(flat(trainable_arrays(federation.model)) - own).max() < 0.01


def test_a_server_that_asks_for_an_unknown_compression_gets_no_update(folder: Path) -> None:
    """The client refuses before it charges anything."""
    one = client(folder, 1)
    answer = one.answer

    def other(message: Message) -> Message:
        message.content.config_records["config"]["compression"] = '{"bits": 2}'
        return answer(message)

    one.answer = other  # type: ignore[method-assign]
    history = server(folder, num_clients=1, rounds=1).train(clients=[one])
    assert "bits=2 must be 32, 8 or 4" in history.rounds[0].failed["node 1"]
    assert not (folder / "site-1" / "ledger.jsonl").exists()


def test_what_cannot_be_compressed_is_refused_at_configuration() -> None:
    """Under masks only what is summable; sketches not at all; all else passes."""
    require_packable(None, aggregation="fedask", secure=True)
    require_packable(Compression(bits=8), aggregation="fedex")
    require_packable(Compression(bits=8, limit=1.0), aggregation="ffa", secure=True)
    with pytest.raises(ConfigurationError, match="public limit"):
        require_packable(Compression(bits=8), aggregation="ffa", secure=True)
    with pytest.raises(ConfigurationError, match="sketches"):
        require_packable(Compression(bits=8), aggregation="fedask")


def test_a_trusted_server_clips_what_it_decodes(folder: Path) -> None:
    """Client level: trusting clients' updates arrive in 8 bits, and one round is charged."""
    federation = server(
        folder,
        rounds=1,
        privacy_budget=None,
        client_privacy=ClientPrivacy(noise_multiplier=1e-3, clipping_norm=0.01, delta=1e-5),
    )
    before = flat(trainable_arrays(federation.model))
    history = federation.train(clients=[trusting(folder, n) for n in (1, 2)], compression=EIGHT)
    assert history.rounds[0].failed == {}
    assert history.rounds[0].bytes_received < history.rounds[0].bytes_sent / 1.5
    moved = float(np.linalg.norm(flat(trainable_arrays(federation.model)) - before))
    assert 0 < moved <= 0.0105
    assert len(read_ledger(path=folder / "server" / "ledger.jsonl").releases) == 1


def test_a_round_is_known_by_its_run_and_number() -> None:
    """What both ends draw coins from is what the server asked, and nothing else."""
    asked = ConfigRecord({"run": "r", "server-round": 3, "compression": EIGHT.words})
    assert Packing.asked(asked) == Packing(compression=EIGHT, run="r", number=3)
    assert rank_said({}, shared=8) == 8
    assert rank_said({"rank": 3}, shared=8) == 3
