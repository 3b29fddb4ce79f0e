"""Flower's Grid inside one process: no sockets, no workers, the same messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import uuid4

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from dpacc.federated.requests import COULD_NOT, refusal


class LocalGrid(Grid):
    """Runs each ClientApp where it stands, one after the other.

    Every message is serialised as Flower sends it over a network and read back, so that nothing
    but bytes passes between server and clients.

    Args:
        apps: the ClientApp of each node.

    Attributes:
        bytes_sent: serialised bytes from the server to its clients.
        bytes_received: and back.
    """

    def __init__(self, apps: Mapping[int, ClientApp]) -> None:
        self._apps = dict(apps)
        self._contexts = {
            node: Context(run_id=1, node_id=node, node_config={}, state=RecordDict(), run_config={})
            for node in apps
        }
        self._replies: dict[str, Message] = {}
        self.bytes_sent = 0
        self.bytes_received = 0
        self.set_run(Run.create_empty(run_id=1))

    def set_run(self, run: Run) -> None:
        """Messages of this process belong to `run` from now on."""
        self._run = run
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = run.run_id, 0, 0

    @property
    def run(self) -> Run:
        """The run that messages belong to."""
        return self._run

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        """All nodes, in a fixed order."""
        return list(self._apps)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Deliver each message and keep its reply; what fails answers with an error."""
        return [self._deliver(message) for message in messages]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies to these messages, once each."""
        found = [self._replies.pop(message_id, None) for message_id in message_ids]
        return [reply for reply in found if reply is not None]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Deliver one after the other, each when the reply before it has been taken.

        Nothing is waited for, so `timeout` has no effect. Messages have their numbers at once.
        """
        del timeout
        sent = list(messages)
        for message in sent:
            _number(message)
        return (reply for each in sent for reply in self.pull_messages(self.push_messages([each])))

    def _deliver(self, message: Message) -> str:
        message_id = _number(message)
        sent = message_to_proto(message).SerializeToString()
        reply = self._ask(message.metadata.dst_node_id, _read(sent))
        received = message_to_proto(reply).SerializeToString()
        self.bytes_sent += len(sent)
        self.bytes_received += len(received)
        self._replies[message_id] = _read(received)
        return message_id

    def _ask(self, node: int, message: Message) -> Message:
        try:
            return self._apps[node](message, self._contexts[node])
        except Exception:  # as a SuperNode does; the text might quote private data
            return refusal(COULD_NOT, message)


def _number(message: Message) -> str:
    """The message's number, which it is given once."""
    if not message.metadata.message_id:
        message.metadata.__dict__["_message_id"] = str(uuid4())
    return str(message.metadata.message_id)


def _read(data: bytes) -> Message:
    return message_from_proto(ProtoMessage.FromString(data))
