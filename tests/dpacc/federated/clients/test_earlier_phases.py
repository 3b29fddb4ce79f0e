"""Records or rounds are added by the owner's word, and never for nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from dpacc_accounting import (
    Budget,
    BudgetError,
    Ledger,
    create_budget,
    merge_ledgers,
    read_budget,
    read_ledger,
)
from flwr.app.user_config import UserConfig

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.clients.earlier_phases import EarlierPhases
from dpacc.federated.clients.private_client import DPLoRAClient
from dpacc.federated.deployment.flower_config import read_config
from dpacc.federated.deployment.node_client import client_of, require_readable
from dpacc.federated.deployment.node_settings import NodeSettings
from dpacc.federated.requests import StoppedError
from dpacc.federated.server.history import read_history
from dpacc.federated.settings import DPSettings
from dpacc.plan import PrivacyPlan
from tests.dpacc.federated.deployment.shipped_app import NodeOf, nodes, run_config, shipped
from tests.dpacc.federated.federations import DELTA, client, server, texts, trusting

WHOLE = DPSettings(epsilon=50.0, delta=DELTA, expected_batch_size=4)


def grown(folder: Path, **changes: Any) -> NodeOf:
    """Nodes whose files hold what they held, and five records more."""
    before = nodes(folder, **changes)

    def node(number: int) -> Any:
        told = before(number)
        path = folder / f"grown-{number}.jsonl"
        added = texts(folder / "added.jsonl", count=5, seed=90 + number).read_text()
        path.write_text(f"{Path(str(told['data-path'])).read_text()}\n{added}")
        return told | {"data-path": str(path)}

    return node


@pytest.fixture(scope="module")
def first_phase(tmp_path_factory: pytest.TempPathFactory, model: Path) -> Path:
    """Two rounds of two nodes, whose whole budget of ε = 20 they cost."""
    place = tmp_path_factory.mktemp("first-phase")
    (place / "model").symlink_to(model)
    shipped(run_config(place, model=str(model)), nodes(place))
    return place


@pytest.fixture
def begun(tmp_path: Path, first_phase: Path) -> Path:
    """A copy of what it left."""
    return Path(shutil.copytree(first_phase, tmp_path / "begun", symlinks=True))


def more_rounds(folder: Path, rounds: int) -> UserConfig:
    return run_config(folder, rounds=rounds, model=str((folder / "model").resolve()))


def plan_of(phase: Path) -> PrivacyPlan:
    return PrivacyPlan.from_json(read_ledger(path=phase / "ledger.jsonl").plan)


def test_a_record_more_stops_a_node_before_it_connects(begun: Path) -> None:
    """In one line, with both numbers and both remedies; and a server is told nothing of it."""
    with pytest.raises(ConfigurationError, match=r"holds 17 of its unit, example.* for 12:.* next"):
        require_readable(grown(begun)(1))
    later = shipped_anew(begun, grown(begun))
    assert set(later.failed.values()) == {"this client could not answer; its own log says why"}


def shipped_anew(folder: Path, node_of: NodeOf) -> Any:
    """One round of another run, by a server that knows nothing of the first."""
    config = more_rounds(folder, 1) | {"folder": str(folder / "second")}
    try:
        return shipped(config, node_of).history.rounds[0]
    except ConfigurationError:
        return read_history(path=folder / "second/state.json").rounds[0]


def test_the_next_phase_takes_the_added_records_at_what_is_left(begun: Path) -> None:
    """Both phases together keep the node's ε; what a record in both pays is counted twice over."""
    report = shipped_anew(begun, grown(begun, phase=2, epsilon=45.0, most_rounds=1))
    assert sorted(report.survivors) == ["site-1", "site-2"]
    for name in ("site-1", "site-2"):
        first, second = begun / name, begun / name / "phase-2"
        assert (plan_of(first).dataset_size, plan_of(second).dataset_size) == (12, 17)
        costs = [
            plan_of(first).guarantee(delta=DELTA / 2).epsilon,
            plan_of(second).guarantee(delta=DELTA / 4).epsilon,
        ]
        assert sum(costs) == pytest.approx(report.books[name].epsilon)
        assert 20.0 < costs[0] < sum(costs) <= 45.0
        assert (report.books[name].delta, report.books[name].epsilon_budget) == (DELTA, 45.0)
        both = {at: read_ledger(path=Path(at) / "ledger.jsonl") for at in map(str, (first, second))}
        exact = merge_ledgers(records=both, delta=DELTA).together
        assert exact is not None
        assert exact.epsilon <= report.books[name].epsilon
        (note,) = both[str(second)].notes
        assert note.subject == "earlier-phases"
        assert report.books[name].qualified_by == ("earlier-phases",)


def test_a_budget_of_the_old_file_grants_the_grown_one_nothing(begun: Path) -> None:
    """A budget of the new file does, and counts the first phase once its ledger is committed."""
    more = grown(begun, phase=2, epsilon=45.0, most_rounds=1)
    old, new = begun / "old.budget.jsonl", begun / "new.budget.jsonl"
    files = {old: begun / "site-1.jsonl", new: str(more(1)["data-path"])}
    for path, data in files.items():
        create_budget(path=path, name=path.stem, epsilon=60.0, delta=DELTA, data=data)
    with pytest.raises(BudgetError, match="is not the data of budget"):
        require_readable(more(1) | {"budget": str(old)})
    Budget(path=new).commit(ledgers=[begun / "site-1/ledger.jsonl"])
    told: list[UserConfig] = [{"budget": str(new)}, {}]
    report = shipped_anew(begun, lambda number: more(number) | told[number - 1])
    assert report.failed == {}
    ledgers = [begun / "site-1/ledger.jsonl", begun / "site-1/phase-2/ledger.jsonl"]
    assert [each.state for each in read_budget(path=new).shares.values()] == ["committed"] * 2
    assert set(read_budget(path=new).shares) == {read_ledger(path=each).run for each in ledgers}


def test_rounds_are_added_to_the_same_run(begun: Path) -> None:
    """The server goes on with what it has seen, and prices each phase's rounds at their noise."""
    again = nodes(begun, phase=2, epsilon=45.0)
    history = shipped(more_rounds(begun, 4), again).history
    assert [sorted(each.survivors) for each in history.rounds] == [["site-1", "site-2"]] * 4
    assert [each.books["site-1"].steps_charged for each in history.rounds] == [3, 6, 9, 12]
    told = history.federation()["clients"]
    assert [each["epsilon_budget"] for each in told] == [45.0, 45.0]  # as they said last
    (schedule, _) = [each["schedule"] for each in told]
    assert [each["rounds"] for each in schedule] == [2, 2]
    assert schedule[0].get("noise_multiplier") != schedule[1]["noise_multiplier"]
    ledgers = [begun / "site-1/ledger.jsonl", begun / "site-1/phase-2/ledger.jsonl"]
    exact = merge_ledgers(records={str(at): read_ledger(path=at) for at in ledgers}, delta=DELTA)
    price = next(each for each in history.guarantee().prices if each.name == "site-1")
    assert exact.together is not None
    assert price.server.epsilon == pytest.approx(exact.together.epsilon, rel=1e-3)
    assert price.server.epsilon <= history.epsilons()["site-1"] <= 45.0


def test_a_phase_that_lost_its_ledger_gives_a_server_that_saw_it_nothing(begun: Path) -> None:
    """As one ledger's older copy: all phases' steps are told, and the server saw more."""
    again = nodes(begun, phase=2, epsilon=45.0, most_rounds=4)
    shipped(more_rounds(begun, 3), again)
    shutil.rmtree(begun / "site-1/phase-2")
    history = shipped(more_rounds(begun, 4), again).history
    assert history.rounds[-1].survivors == ("site-2",)
    assert "holds 6 steps and the server has seen 9" in history.rounds[-1].failed["site-1"]


def test_a_choice_of_rank_stays_counted(folder: Path) -> None:
    """The first phase's choice is in its cost, in what is told, and in the server's price."""
    shipped(run_config(folder), nodes(folder, rank_epsilon=5.0))
    again = nodes(folder, phase=2, epsilon=45.0)
    history = shipped(run_config(folder, rounds=3), again).history
    books = history.rounds[-1].books["site-1"]
    first = plan_of(folder / "site-1").guarantee(delta=DELTA / 2).epsilon + 5.0
    assert books.choice_epsilon == 5.0
    assert first < books.epsilon <= 45.0
    earlier = EarlierPhases([folder / "site-1"], dp=WHOLE)
    assert earlier.epsilon == first
    assert earlier.left.epsilon < 50.0 - first


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"epsilon": 20.0}, "earlier phases cost epsilon=.* and this client has 20 for all"),
        ({"unit_field": "text"}, "protects one example, and this phase one text"),
        ({"phase": 3}, r"phase-2/ledger\.jsonl is not there"),
    ],
)
def test_a_phase_that_cannot_be_counted_does_not_begin(
    begun: Path, change: dict[str, Any], reason: str
) -> None:
    """Nothing left, another unit, or a phase in between that never was."""
    node = grown(begun, **{"phase": 2, "epsilon": 45.0} | change)(1)
    with pytest.raises(ConfigurationError, match=reason):
        require_readable(node)


def test_a_phase_that_is_over_does_not_go_on(begun: Path) -> None:
    """Whoever names an earlier one again is told which has begun."""
    shipped_anew(begun, nodes(begun, phase=2, epsilon=45.0, most_rounds=1))
    with pytest.raises(ConfigurationError, match=r"phase=1 is over: .*phase-2 has begun"):
        client_of(node_config=nodes(begun)(1), run_config=run_config(begun))


def test_what_was_not_private_is_followed_by_nothing(folder: Path) -> None:
    """A phase of a fixed seed voids all that could be said of the next."""
    server(folder, num_clients=1, rounds=1).train(clients=[client(folder, 1)])
    with pytest.raises(ConfigurationError, match="not private"):
        EarlierPhases([folder / "site-1"], dp=WHOLE)


def test_a_node_that_failed_does_not_go_on_in_another_phase(begun: Path) -> None:
    """Its owner has to look, whatever the phase: another number is no way around."""
    (begun / "site-1/stopped.json").write_text("{}")
    with pytest.raises(StoppedError):
        client_of(node_config=grown(begun, phase=2, epsilon=45.0)(1), run_config=run_config(begun))


def test_who_trusts_the_server_has_no_phases(tmp_path: Path) -> None:
    """Its books are the server's."""
    told = {"trusts-server": True, "phase": 2}
    settings = {k: v for k, v in nodes(tmp_path)(1).items() if k not in ("epsilon", "delta")}
    with pytest.raises(ConfigurationError, match="phase=2 with trusts_server"):
        read_config(NodeSettings, {k: v for k, v in settings.items() if k != "most-rounds"} | told)


def test_a_phase_counts_with_its_whole_plan(tmp_path: Path) -> None:
    """However little of it was spent: when it ended followed from what it had released."""
    plan = PrivacyPlan.calibrate(
        dataset_size=12,
        expected_batch_size=4,
        steps=30,
        target_epsilon=20.0,
        target_delta=DELTA,
        max_grad_norm=1.0,
    )
    with Ledger.open(path=tmp_path / "ledger.jsonl", plan=plan.to_json()) as ledger:
        ledger.charge(step=0, event=plan.charge(0))
    earlier = EarlierPhases([tmp_path], dp=WHOLE)
    assert earlier.epsilon == plan.guarantee(delta=DELTA / 2).epsilon > 20.0


def test_shares_of_delta_never_exceed_it(begun: Path) -> None:
    """However many phases there are: half, a quarter, an eighth; and ε is never above."""
    phases = EarlierPhases([begun / "site-1", begun / "site-2"], dp=WHOLE)
    costs = [plan_of(begun / f"site-{k}").guarantee(delta=DELTA / 2**k).epsilon for k in (1, 2)]
    assert phases.epsilon == sum(costs)
    assert phases.left.delta == DELTA / 8
    assert phases.epsilon + phases.left.epsilon <= 50.0


def test_a_later_phases_noise_is_foretold_as_it_will_be(begun: Path) -> None:
    """A robust rule asks how much of an update is noise: of what earlier phases left."""
    node = nodes(begun, phase=2, epsilon=45.0, most_rounds=1)
    begins = client_of(node_config=node(1), run_config=run_config(begun))
    assert isinstance(begins, DPLoRAClient)
    foretold = begins.participant(rounds=9, local_epochs=1.0).noise
    shipped_anew(begun, node)
    found = plan_of(begun / "site-1/phase-2")
    assert (foretold.noise_multiplier, foretold.steps) == (found.noise_multiplier, found.steps)


def test_a_first_phase_that_was_not_the_first_is_no_beginning(begun: Path) -> None:
    """A folder named one too deep would leave out what came before it."""
    shipped_anew(begun, nodes(begun, phase=2, epsilon=45.0, most_rounds=1))
    with pytest.raises(ConfigurationError, match=r"phases came before it.* name them all"):
        EarlierPhases([begun / "site-1/phase-2"], dp=WHOLE)


def test_where_the_server_adds_the_noise_no_round_is_added(folder: Path) -> None:
    """Its noise was sized, or its price told, for the rounds that were agreed on."""
    privacy = ClientPrivacy(noise_multiplier=1.0, clipping_norm=0.5, delta=DELTA)
    named: dict[str, Any] = {"privacy_budget": None, "client_privacy": privacy, "num_clients": 1}
    server(folder, rounds=1, **named).train(clients=[trusting(folder, 1)])
    again = server(folder, rounds=2, **named)
    with pytest.raises(ConfigurationError, match="other settings"):
        again.train(clients=[trusting(folder, 1)])
