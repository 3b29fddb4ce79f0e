"""Files of a federation that a crash has torn."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError
from tests.dpacc.federated.federations import client, server


def tear(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("torn", ["state.json", "rounds.jsonl", "adapter-0002.safetensors"])
def test_a_torn_state_of_the_server_is_refused_by_name(folder: Path, torn: str) -> None:
    """It does not begin again from nothing, as if nobody had been asked yet."""
    one = client(folder, 1)
    server(folder, num_clients=1).train(clients=[one])
    tear(folder / "server" / torn)
    with pytest.raises(ConfigurationError, match=r"state\.json is damaged"):
        server(folder, num_clients=1).train(clients=[one])
    assert one.training.steps_charged == 6


def test_an_answer_that_was_torn_is_made_anew_and_charged_anew(folder: Path) -> None:
    """Asked the same again, the client takes steps of its plan that nobody has seen yet."""
    one = client(folder, 1)
    stopped = server(folder, num_clients=1)

    def die(model: object) -> dict[str, float]:
        if (
            len(stopped.history.rounds) == 0
            and (folder / "site-1/last_update.safetensors").exists()
        ):
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        stopped.train(clients=[one], measure=die)
    tear(folder / "site-1/last_update.safetensors")
    history = server(folder, num_clients=1).train(clients=[one])
    assert history.rounds[0].survivors == ("site-1",)
    steps = [each.step for each in read_ledger(path=folder / "site-1/ledger.jsonl").releases]
    assert steps == list(range(6))
    assert history.rounds[1].failed["site-1"].startswith("budget spent")
