"""Personal budgets: read strictly, and kept apart in every ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from dpacc_accounting import read_ledger

from dpacc.errors import ConfigurationError
from dpacc.federated.budgets import largest_budget, read_budgets
from dpacc.federated.settings import PrivacyBudget
from tests.dpacc.federated.federations import client, server

AGREED = """
delta: 1e-3
levels:
  strict: {epsilon: 1}
  moderate: {epsilon: 4}
  relaxed: {epsilon: 16}
defaults: {expected_batch_size: 4}
clients:
  site-1: strict
  site-2: moderate
  site-3: relaxed
  site-4: {epsilon: 2.5, most_rounds: 1, learning_rate: 0.01}
"""


def agreed(folder: Path, text: str = AGREED) -> Path:
    path = folder / "budgets.yaml"
    path.write_text(text)
    return path


def test_levels_defaults_and_own_settings_are_told_apart(tmp_path: Path) -> None:
    """A client gets its level, the defaults beneath it, or what it says itself; δ is shared."""
    budgets = read_budgets(path=agreed(tmp_path))
    assert [each.epsilon for each in budgets.values()] == [1.0, 4.0, 16.0, 2.5]
    assert {each.delta for each in budgets.values()} == {1e-3}
    assert {each.expected_batch_size for each in budgets.values()} == {4}
    assert budgets["site-4"].most_rounds == 1
    assert budgets["site-4"].learning_rate == 0.01
    assert largest_budget(budgets) == PrivacyBudget(epsilon=16.0, delta=1e-3)
    owned = AGREED.replace("learning_rate: 0.01", "unit_field: who, unit_cap: 3")
    last = read_budgets(path=agreed(tmp_path, owned))["site-4"]
    assert (last.unit_field, last.unit_cap) == ("who", 3)


def test_each_clients_noise_keeps_its_own_budget_in_its_own_ledger(folder: Path) -> None:
    """Every ledger costs at most its own client's ε, and nearly that; σ falls with ε."""
    budgets = read_budgets(path=agreed(folder))
    clients = [
        client(folder, number, dp=vars(budgets[f"site-{number}"]), fixed_seed=None)
        for number in range(1, 5)
    ]
    history = server(folder, num_clients=4, privacy_budget=largest_budget(budgets)).train(
        clients=clients
    )
    spent = history.epsilons()
    for name, settings in budgets.items():
        assert 0.97 * settings.epsilon < spent[name] <= settings.epsilon
    noise = [each.training.plan.noise_multiplier for each in clients[:3]]
    assert noise[0] > noise[1] > noise[2]
    steps = [
        len(read_ledger(path=folder / f"site-{n}" / "ledger.jsonl").releases) for n in range(1, 5)
    ]
    assert steps == [6, 6, 6, 3]
    assert history.guarantee().over_budget == ()


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("site-1: strict", "site-1: strct", "no level"),
        ("epsilon: 2.5", "epsilon: -1", "above 0"),
        ("epsilon: 2.5", "epsilon: .nan", "above 0"),
        ("epsilon: 2.5", "epsilom: 2.5", "did you mean epsilon"),
        ("most_rounds: 1,", "most_rounds: 1.5,", "whole number"),
        ("delta: 1e-3", "delta: 1", "strictly between"),
        ("delta: 1e-3", "", "delta=None"),
        ("defaults: {expected_batch_size: 4}", "", "no expected_batch_size"),
        ("clients:", "client:", "did you mean clients"),
        ("levels:", "levels: [", "not YAML"),
    ],
)
def test_what_is_unclear_is_refused_by_name(
    tmp_path: Path, old: str, new: str, complaint: str
) -> None:
    """One mistake in the file gives one error that names it."""
    assert old in AGREED
    with pytest.raises(ConfigurationError, match=complaint):
        read_budgets(path=agreed(tmp_path, AGREED.replace(old, new)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With the system's own reason."""
    with pytest.raises(ConfigurationError, match="No such file"):
        read_budgets(path=tmp_path / "nowhere.yaml")
