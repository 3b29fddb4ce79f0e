"""What a server takes of a reply that somebody else has written: what was agreed, and no more."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from dpacc.errors import ConfigurationError
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.server.in_process_grid import LocalGrid
from dpacc.federated.server.replies import read_reply
from dpacc.federated.updates.layout import read_array
from tests.dpacc.federated.federations import BUDGET, DELTA, client, server

Change = Callable[[RecordDict], None]


def replying(content: RecordDict | Error) -> Message:
    """The answer to a round's question."""
    LocalGrid({})  # messages belong to its run
    question = Message(RecordDict(), dst_node_id=1, message_type="train")
    question.metadata.__dict__["_message_id"] = "1"
    return Message(content, reply_to=question)


def honest() -> RecordDict:
    """What a client of ε = 20 says after three steps."""
    numbers = {
        "epsilon": 3.0,
        "delta": DELTA,
        "epsilon-budget": 20.0,
        "noise-multiplier": 1.0,
        "sampling-probability": 0.5,
        "steps-charged": 6,
        "steps-taken": 3,
        "choice-epsilon": 0.0,
        "qualified-by:rank-choice": 1.0,
    }
    return RecordDict(
        {
            "arrays": ArrayRecord({"B": Array(np.zeros(3, np.float32))}),
            "metrics": MetricRecord(numbers),
            "config": ConfigRecord({"client": "north", "rank": 2, "unit": "example"}),
        }
    )


def says(name: str, value: Any) -> Change:
    """A word of its own."""
    return lambda reply: reply.config_records["config"].__setitem__(name, value)


def counts(name: str, value: Any) -> Change:
    """A number of its own."""
    return lambda reply: reply.metric_records["metrics"].__setitem__(name, value)


def holds(name: str, record: Any) -> Change:
    """A record of its own."""
    return lambda reply: reply.__setitem__(name, record)


def lacks(name: str) -> Change:
    """A record, or a number, less."""

    def lack(reply: RecordDict) -> None:
        where: Any = reply if name in reply else reply.metric_records["metrics"]
        del where[name]

    return lack


SPOILED: dict[str, Change] = {
    "no arrays": lacks("arrays"),
    "no books": lacks("metrics"),
    "no name": holds("config", ConfigRecord({})),
    "arrays of another kind": holds("arrays", ConfigRecord({"a": 1})),
    "books of another kind": holds("metrics", ConfigRecord({"a": 1})),
    "words of another kind": holds("config", MetricRecord({"a": 1})),
    "a record more": holds("losses", MetricRecord({"loss": 1.0})),
    "a name of 20 MB": says("client", "x" * 20_000_000),
    "an empty name": says("client", ""),
    "a name of two lines": says("client", "north\nsouth"),
    "a name that is a list": says("client", ["north"]),
    "a unit of 20 MB": says("unit", "x" * 20_000_000),
    "a word more": says("loss", 0.1),
    "an epsilon less": lacks("epsilon"),
    "a list of epsilons": counts("epsilon", [1.0, 2.0]),
    "an epsilon below 0": counts("epsilon", -1.0),
    "an epsilon that is none": counts("epsilon", float("nan")),
    "an infinite epsilon without a reason": counts("epsilon", float("inf")),
    "steps below 0": counts("steps-taken", -3),
    "half a step": counts("steps-charged", 6.5),
    "steps without end": counts("steps-charged", 10**15),
    "more steps taken than charged": counts("steps-taken", 7),
    "no noise": counts("noise-multiplier", 0.0),
    "noise that nobody can price": counts("noise-multiplier", 1e-300),
    "a chance above 1": counts("sampling-probability", 1.5),
    "a choice dearer than all": counts("choice-epsilon", 21.0),
    "a loss": counts("loss", 0.7),
}


@pytest.mark.parametrize("spoiled", list(SPOILED))
def test_a_reply_that_does_not_fit_is_refused(spoiled: str) -> None:
    """Whatever is missing, too much, of another kind or beyond belief: one short error."""
    content = honest()
    assert read_reply(replying(content), budget=BUDGET).client == "north"
    SPOILED[spoiled](content)
    with pytest.raises(ConfigurationError) as refused:
        read_reply(replying(content), budget=BUDGET)
    assert len(str(refused.value)) < 300


def test_a_reason_is_one_short_line() -> None:
    """A client's own words, of any length, fill no report."""
    reply = replying(Error(0, "gone\n" + "!" * 10**6))
    with pytest.raises(ConfigurationError) as refused:
        read_reply(reply, budget=BUDGET)
    assert str(refused.value) == "gone " + "!" * 295


def numpy_file(save: Callable[[io.BytesIO], None]) -> bytes:
    """Bytes of a file that numpy wrote."""
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def header(said: str) -> bytes:
    """A .npy without numbers that says what it holds."""
    words = said.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words.encode()


NO_ARRAYS = {
    "an archive": numpy_file(lambda file: np.savez(file, a=np.zeros(3))),
    "a pickle": numpy_file(lambda file: np.save(file, np.array([{}]), allow_pickle=True)),
    "nothing": b"",
    "more than it says": numpy_file(lambda file: np.save(file, np.zeros(3))) + b"!",
    "a shape without numbers": header(
        "{'descr': '<f4', 'fortran_order': False, 'shape': (250000000000,), }"
    ),
    "a shape below 0": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 0), }"),
    "texts": numpy_file(lambda file: np.save(file, np.array(["a", "b"]))),
    "by columns": numpy_file(lambda file: np.save(file, np.asfortranarray(np.ones((2, 3))))),
}


@pytest.mark.parametrize("kind", list(NO_ARRAYS))
def test_bytes_that_are_no_array_are_refused(kind: str) -> None:
    """Without unpickling, unpacking or reserving what they say; an array is read as it was sent."""
    sent = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(read_array("B", Array(sent)), sent)
    claimed = Array(dtype="float32", shape=(3,), stype="numpy.ndarray", data=NO_ARRAYS[kind])
    with pytest.raises(ConfigurationError, match="cannot be read as an array"):
        read_array("B", claimed)


class Hostile(DPLoRAClient):
    """Trains as others do, then spoils its reply."""

    spoil: Change

    def answer(self, message: Message) -> Message:
        """An honest answer, spoiled."""
        found = super().answer(message)
        self.spoil(found.content)
        return found


def archive(reply: RecordDict) -> None:
    """An .npz where an .npy is expected."""
    arrays = reply.array_records["arrays"]
    arrays[next(iter(arrays))] = Array(
        dtype="float32", shape=(3,), stype="numpy.ndarray", data=NO_ARRAYS["an archive"]
    )


def enormous(reply: RecordDict) -> None:
    """Every number is finite, and no product of two of them."""
    arrays = reply.array_records["arrays"]
    for name in list(arrays):
        arrays[name] = Array(np.full_like(arrays[name].numpy(), 1e30))


def test_one_reply_leaves_the_round_to_the_others(folder: Path) -> None:
    """Archives, wrong records and numbers whose products overflow are one client's failure each."""
    clients = [client(folder, number) for number in (1, 2, 3, 4)]
    spoils = (archive, SPOILED["words of another kind"], enormous)
    for one, spoil in zip(clients[1:], spoils, strict=True):
        one.__class__ = Hostile
        one.spoil = spoil  # type: ignore[attr-defined]
    run = server(folder, num_clients=4, rounds=1)
    (report,) = run.train(clients=clients).rounds
    assert report.survivors == ("site-1",)
    assert set(report.failed) == {"node 2", "node 3", "node 4"}
    assert (folder / "server/state.json").stat().st_size < 5000
