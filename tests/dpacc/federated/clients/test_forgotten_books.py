"""A client on an older copy of its ledger gives nothing, or costs what it gave."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dpacc_accounting import read_ledger

from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.federated.server.history import ClientBooks, History, RoundReport
from dpacc.federated.server.kept_state import KeptState
from dpacc.federated.updates.layout import Arrays
from tests.dpacc.federated.federations import client, server


class Restored:
    """Stops a run after its second round, and brings back a client's folder as after its first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, one: Any, again: Any, **settings: Any) -> History:
        """Rounds one and two by a client, the third by the same on its older folder."""
        federation = server(self.folder, num_clients=1, rounds=3, **settings)
        site = self.folder / "site-1"

        def stop(report: RoundReport) -> None:
            if report.number == 1:
                shutil.copytree(site, self.folder / "copy")
            if report.number == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            federation.train(clients=[one], on_round=stop)
        one.close()
        shutil.rmtree(site)
        shutil.copytree(self.folder / "copy", site)
        goes_on = server(self.folder, num_clients=1, rounds=3, **settings)
        self.before = shared(self.folder)
        return goes_on.train(clients=[again])


def shared(folder: Path) -> Arrays:
    """The adapter that the server kept."""
    state = KeptState(folder / "server").read()
    assert state is not None
    return state.arrays


def steps(folder: Path) -> int:
    return len(read_ledger(path=folder / "site-1/ledger.jsonl").releases)


def test_a_client_on_an_older_ledger_gives_nothing(folder: Path) -> None:
    """The server says how many steps it has seen: nothing is trained, nor charged a second time."""
    history = Restored(folder).run(client(folder, 1), client(folder, 1))
    assert history.rounds[2].survivors == ()
    assert "holds 3 steps and the server has seen 6" in history.rounds[2].failed["site-1"]
    assert steps(folder) == 3
    assert history.epsilons()["site-1"] == history.rounds[1].books["site-1"].epsilon


class Unheeding(DPLoRAClient):
    """Does not listen to what the server has seen, as a client that lies would not."""

    def answer(self, message: Any) -> Any:
        message.content.config_records["config"].pop("steps-seen", None)
        return super().answer(message)


def unheeding(folder: Path) -> DPLoRAClient:
    honest = client(folder, 1)
    settings = {"client_id": "site-1", "dp_config": honest.dp_config}
    return Unheeding(
        data_path=folder / "data-1.jsonl",
        model_name=str(folder / "model"),
        lora_config=honest.lora_config,
        task={"max_length": 16},
        folder=folder / "site-1",
        **settings,  # type: ignore[arg-type]
    )


def test_what_it_gives_all_the_same_is_counted_and_not_used(folder: Path) -> None:
    """Nine steps were released and the ledger says six: the server's books price nine."""
    again = unheeding(folder)
    restored = Restored(folder)
    history = restored.run(client(folder, 1, fixed_seed=None), again)
    assert history.rounds[2].survivors == ()
    assert "an older copy was brought back" in history.rounds[2].failed["site-1"]
    assert steps(folder) == 6
    spent = again.training.plan.guarantee(steps=9).epsilon
    assert history.rounds[2].books["site-1"].epsilon < 0.9 * spent
    (price,) = history.guarantee().prices
    assert price.server.epsilon >= spent * (1 - 1e-9)
    assert history.epsilons()["site-1"] == price.server.epsilon
    after = shared(folder)
    assert all(np.array_equal(restored.before[name], values) for name, values in after.items())


def test_its_numbers_do_not_enter_a_sum(folder: Path) -> None:
    """Under masks too: one of two on older books leaves too few, and no sum is opened."""
    settings = SecureSum(clients=2)
    other = SecureClient(client=client(folder, 2), secure_sum=settings)
    first = SecureClient(client=client(folder, 1), secure_sum=settings)
    second = SecureClient(client=unheeding(folder), secure_sum=settings)
    federation = server(folder, rounds=3, secure_sum=settings)

    def restore(report: RoundReport) -> None:
        if report.number == 1:
            shutil.copytree(folder / "site-1", folder / "copy")
        if report.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        federation.train(clients=[first, other], on_round=restore)
    first.close()
    shutil.rmtree(folder / "site-1")
    shutil.copytree(folder / "copy", folder / "site-1")
    again = server(folder, rounds=3, secure_sum=settings)
    history = again.train(clients=[second, other])
    assert history.rounds[2].survivors == ()
    assert "an older copy was brought back" in history.rounds[2].failed["site-1"]
    counted = history.federation()["clients"][0]["schedule"]
    assert sum(each["rounds"] * each["local_steps"] for each in counted) == 9
    assert steps(folder) == 6


def report(number: int, *, charged: int, taken: int, noise_multiplier: float = 1.0) -> RoundReport:
    """One round of one client, as a server's history keeps it."""
    books = ClientBooks(
        epsilon=1.0,
        delta=1e-5,
        epsilon_budget=8.0,
        noise_multiplier=noise_multiplier,
        sampling_probability=0.1,
        steps_charged=charged,
        steps_taken=taken,
    )
    return RoundReport(
        number=number,
        asked=("a",),
        survivors=("a",),
        failed={},
        filtered={},
        books={"a": books},
        quality={},
    )


@pytest.mark.parametrize(
    ("told", "counted"),
    [
        ([(3, 3), (6, 3), (9, 3)], 9),  # as it should be
        ([(3, 3), (8, 3), (11, 3)], 11),  # two steps were lost in a crash, and are paid
        ([(3, 3), (6, 3), (6, 3)], 9),  # restored to after the first round
        ([(3, 3), (6, 3), (3, 3)], 9),  # restored to before it
        ([(3, 3), (6, 3), (6, 3), (9, 3)], 12),  # and going on
    ],
)
def test_steps_are_counted_by_what_was_given(told: list[tuple[int, int]], counted: int) -> None:
    """Growth of the ledger, or the steps that an update took, whichever is more."""
    history = History()
    for number, (charged, taken) in enumerate(told, start=1):
        history.rounds.append(report(number, charged=charged, taken=taken))
    (only,) = history.federation()["clients"]
    assert sum(each["rounds"] * each["local_steps"] for each in only["schedule"]) == counted


@pytest.mark.parametrize(("before", "now"), [(0.5, 2.0), (2.0, 0.5)])
def test_steps_that_were_lost_between_two_noises_count_as_of_less(
    before: float, now: float
) -> None:
    """A late update may have left under either: two steps here were of one or the other."""
    history = History()
    history.rounds.append(report(1, charged=3, taken=3, noise_multiplier=before))
    history.rounds.append(report(2, charged=8, taken=3, noise_multiplier=now))
    (only,) = history.federation()["clients"]
    counted = [(each["local_steps"], each.get("noise_multiplier")) for each in only["schedule"]]
    first = None  # the client's own, which is said once
    assert counted == [(3, first), (2, min(before, now) if now < before else first), (3, now)]


def test_an_update_that_is_sent_again_comes_with_its_books(folder: Path) -> None:
    """A process that takes no step tells what its ledger holds, and not of none."""
    told = []

    def tell(one: DPLoRAClient) -> DPLoRAClient:
        answer = one.answer

        def hear(message: Any) -> Any:
            told.append(answer(message))
            return told[-1]

        one.answer = hear  # type: ignore[method-assign]
        return one

    def die(model: object) -> dict[str, float]:
        if told:
            raise KeyboardInterrupt
        return {}

    first, second = tell(client(folder, 1)), tell(client(folder, 1))
    with pytest.raises(KeyboardInterrupt):
        server(folder, num_clients=1, rounds=1).train(clients=[first], measure=die)
    first.close()
    history = server(folder, num_clients=1, rounds=1).train(clients=[second])
    assert history.rounds[0].survivors == ("site-1",)
    assert steps(folder) == 3
    once, again = (dict(each.content.metric_records["metrics"]) for each in told)
    assert once == again
    assert again["steps-charged"] == again["steps-taken"] == 3


SPOILED: dict[str, dict[str, float]] = {
    "more steps than charged": {"steps-taken": 4},
    "no step": {"steps-taken": 0},
    "steps below none": {"steps-charged": -3, "steps-taken": -3},
    "no noise": {"noise-multiplier": 0.0},
    "noise below none": {"noise-multiplier": -1.0},
    "more than all": {"sampling-probability": 1.5},
    "nothing of them": {"sampling-probability": 0.0},
    "a choice that pays back": {"choice-epsilon": -1.0},
}


class Lying(DPLoRAClient):
    """Trains as others do, and says what it likes of its books."""

    lie: dict[str, float]

    def answer(self, message: Any) -> Any:
        honest = super().answer(message)
        honest.content.metric_records["metrics"].update(self.lie)
        return honest


def test_books_that_cannot_be_are_refused_and_break_no_price(folder: Path) -> None:
    """Each liar is in `failed`; what the honest one costs is told all the same."""
    clients: list[DPLoRAClient] = []
    for number, lie in enumerate(SPOILED.values(), start=1):
        liar = client(folder, number)
        liar.__class__ = Lying
        liar.lie = lie  # type: ignore[attr-defined]
        clients.append(liar)
    clients.append(client(folder, 9))
    history = server(folder, num_clients=9, rounds=1).train(clients=clients)
    (report,) = history.rounds
    assert report.survivors == ("site-9",)
    assert all("ledger" in reason for reason in report.failed.values())
    assert [each.name for each in history.guarantee().prices] == ["site-9"]


def test_rounds_of_less_noise_are_priced_as_such() -> None:
    """A client whose noise changed between rounds costs what each round's noise hides."""
    history = History()
    for number, sigma in enumerate((2.0, 0.5), start=1):
        history.rounds.append(report(number, charged=3 * number, taken=3, noise_multiplier=sigma))
    (price,) = history.guarantee().prices
    weaker = History(rounds=[report(1, charged=3, taken=3, noise_multiplier=0.5)])
    assert price.server.epsilon > weaker.guarantee().prices[0].server.epsilon


def test_what_a_client_once_said_of_its_books_is_not_forgotten() -> None:
    """A ledger brought back from before a note was written takes nothing back."""
    rounds = [report(1, charged=3, taken=3), report(2, charged=6, taken=3)]
    told = replace(rounds[0].books["a"], epsilon=math.inf, void_because=("fixed-seed",))
    rounds[0] = replace(rounds[0], books={"a": replace(told, qualified_by=("whitening",))})
    history = History(rounds=rounds)
    (price,) = history.guarantee().prices
    assert price.server.void_because == ("fixed-seed",)
    assert price.server.qualified_by == ("whitening",)
    assert history.epsilons() == {"a": math.inf}
