"""One organisation's side: its SuperNode starts this for every message of the server's."""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from dpacc.federated.deployment.final_adapter import FINAL, take_adapter
from dpacc.federated.deployment.node_client import answer_once, client_of
from dpacc.federated.secure_sum.messages import CONFIRM, KEYS, OPEN, SHARES

app = ClientApp()


@app.query(FINAL)
def take(message: Message, context: Context) -> Message:
    """The finished adapter, if this client's owner wants it."""
    return take_adapter(message, node_config=context.node_config, run_config=context.run_config)


@app.train()
@app.query()
@app.query(KEYS)
@app.query(SHARES)
@app.query(CONFIRM)
@app.query(OPEN)
def answer(message: Message, context: Context) -> Message:
    """One round's private update, charged to this client's ledger before it leaves, and the stages
    of the sum that hides it, or the second question of a rule that asks twice, if there are any.
    """
    return answer_once(
        lambda: client_of(node_config=context.node_config, run_config=context.run_config),
        message,
        context,
    )
