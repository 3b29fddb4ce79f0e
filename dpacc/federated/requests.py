"""What a server may ask of a client, and what a client may say when it gives nothing.

An answer without an update tells nothing of the client's data: it is one of the server's own
mistakes in words, that the budget is spent, or always the same sentence.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dpacc_accounting import BudgetExceeded, LedgerError
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode

from dpacc.errors import BudgetExhausted, ConfigurationError, DiskRefused, DpaccError
from dpacc.federated.aggregation.factors import Factors
from dpacc.federated.aggregation.sketch_messages import read_sketching
from dpacc.federated.aggregation.sketches import Sketching
from dpacc.federated.updates.layout import Arrays, differing_parts, digest_of, from_record
from dpacc.federated.updates.packing import Packing

SPENT = "budget spent: this client gives nothing more"
"""The refusal of a client that has nothing left to give."""
COULD_NOT = "this client could not answer; its own log says why"
"""The refusal of a client that failed, whatever failed."""
SEEN = "steps-seen"
"""The entry of a request that says how many steps the server has seen in this client's ledger."""

_LONGEST_REASON = 300
_LOG = logging.getLogger(__name__)


class RequestRefused(DpaccError):  # noqa: N818 - reads as what happened
    """The server's own message is wrong, so that telling it why reveals nothing."""


class StoppedError(DpaccError):
    """This client failed among its records before, and its owner has not looked yet."""


class Standstill:
    """A client that failed among its records answers nothing more until its owner has looked.

    Whether training fails may depend on a record and on what the server sent, and nothing hides
    it: so a server learns of one failure, and cannot ask for another.

    Args:
        folder: the client's.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "stopped.json"

    def refuse_to_go_on(self) -> None:
        """Answer nothing while the file is there.

        Raises:
            StoppedError: naming the file.
        """
        if self.path.exists():
            raise StoppedError(
                f"this client failed among its records; mend the cause, which its log names, and "
                f"delete {self.path}"
            )

    @contextmanager
    def among_records(self) -> Iterator[None]:
        """Stop for good if what is done meanwhile fails for a reason of its own."""
        self.refuse_to_go_on()
        try:
            yield
        except (BudgetExhausted, LedgerError, DiskRefused, OSError):  # of books and disk alone
            raise
        except Exception as error:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.path.write_text(json.dumps({"failed": type(error).__name__}))
            raise


def answered(work: Callable[[], Message], *, message: Message, client: str) -> Message:
    """What the work answers, or a refusal in words that no record has shaped."""
    try:
        return work()
    except (BudgetExhausted, BudgetExceeded):
        _LOG.exception("client %s has spent its budget", client)
        return refusal(SPENT, message)
    except RequestRefused as refused:
        return refusal(str(refused), message)
    except Exception:  # its text, and even its kind, may say something about private records
        _LOG.exception("client %s could not answer", client)
        return refusal(COULD_NOT, message)


def refusal(reason: str, message: Message) -> Message:
    """An answer without an update."""
    return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)


def printable(reason: str) -> str:
    """A reason that somebody else wrote, as a report may hold it: short, and of one line.

    >>> printable("gone\\n" + 1000 * "!")[:6], len(printable(1000 * "!"))
    ('gone !', 300)
    """
    return "".join(each if each.isprintable() else " " for each in reason[:_LONGEST_REASON])


def read_start(content: RecordDict, like: Arrays) -> Arrays:
    """The adapter that the server sent.

    Raises:
        RequestRefused: it is not what was agreed.
    """
    try:
        return from_record(content.array_records["arrays"], like=like)
    except ConfigurationError as error:
        raise RequestRefused(str(error)) from error


def require_layout(asked: ConfigRecord, own: str) -> None:
    """The server's adapter is this client's, of the same base, tokenizer and labels.

    Raises:
        RequestRefused: naming what differs.
    """
    differing = differing_parts(own, asked.get("layout"))
    if differing:
        raise RequestRefused(
            f"the adapters' layout differs from the server's in its {', '.join(differing)}: give "
            "both the same model, labels and lora settings"
        )


def read_packing(asked: ConfigRecord) -> Packing:
    """How the server wants updates to be sent.

    Raises:
        RequestRefused: in a way that is not known here.
    """
    try:
        return Packing.asked(asked)
    except (ConfigurationError, ValueError) as error:
        raise RequestRefused(str(error)) from error


def read_sketches(asked: ConfigRecord, factors: tuple[Factors, ...]) -> Sketching | None:
    """The sketches that the server wants instead of an update, if any.

    Raises:
        RequestRefused: their size is senseless.
    """
    try:
        return read_sketching(asked, factors)
    except (ConfigurationError, ValueError) as error:
        raise RequestRefused(str(error)) from error


def read_local_epochs(asked: ConfigRecord, *, most: float) -> float:
    """The passes over its data that the server wants of a client.

    Raises:
        RequestRefused: more than its owner allows.
    """
    wanted = read_number(asked, "local-epochs")
    if wanted > most:
        raise RequestRefused(
            f"the server asks for local-epochs={wanted:g}; this client's most_local_epochs is "
            f"{most:g}"
        )
    return wanted


def read_number(asked: ConfigRecord, name: str) -> float:
    """A number above 0.

    Raises:
        RequestRefused: there is none.
    """
    value = asked.get(name)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value > 0:
        raise RequestRefused(f"the server asks for {name}={value!r}; it must be above 0")
    return value


def round_of(asked: ConfigRecord) -> str:
    """How the name of every request of this run and round begins."""
    return json.dumps([asked["run"], asked["server-round"]]) + " "


def run_of_request(request: str) -> str:
    """Of which run a request is; empty where it is none.

    >>> run_of_request('["a run", 3] 5e88'), run_of_request("")
    ('a run', '')
    """
    try:
        (run, _), _ = json.JSONDecoder().raw_decode(request)
    except ValueError:
        return ""
    return str(run)


def request_of(asked: ConfigRecord, start: Arrays) -> str:
    """What identifies a request: the run, the round, and the adapters it starts from."""
    return round_of(asked) + digest_of(start)
