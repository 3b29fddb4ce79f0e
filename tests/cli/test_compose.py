"""`dpacc compose` prices a federation from a file, and says on which line a mistake is."""

import json
from pathlib import Path

import pytest
from dpacc_accounting import price_federation, read_federation

ROUNDS = """\
level: example
delta: 1e-6          # read as a number
unit: patient
defaults: {rounds: 100, local_steps: 10, noise_multiplier: 1.0}
clients:
  - {name: north, dataset_size: 5000, batch_size: 50, epsilon_budget: 4}
  - {name: south, dataset_size: 800, batch_size: 16, participation: 0.1, local_steps: 1}
  - name: east
    sampling_probability: 0.01
    schedule:
      - {rounds: 30, noise_multiplier: 1.2}
      - {rounds: 70, local_steps: 5}
overlaps:
  - [north, east]
"""


@pytest.fixture
def rounds(tmp_path: Path) -> Path:
    """A small federation in YAML."""
    path = tmp_path / "rounds.yaml"
    path.write_text(ROUNDS)
    return path


def test_json_is_the_whole_report(dpacc, rounds: Path) -> None:
    """A script gets every client in both views, the overlaps and what is assumed."""
    outcome = dpacc("compose", rounds, "--json")
    found = json.loads(outcome.out)
    assert outcome.err == ""
    assert [price["name"] for price in found["prices"]] == ["north", "south", "east"]
    assert [price["name"] for price in found["overlaps"]] == ["north + east"]
    assert found["worst"]["server"]["name"] == "north + east"
    assert found["prices"][0]["within_budget"] is True
    assert found["prices"][1]["released"]["epsilon"] < found["prices"][1]["server"]["epsilon"]
    assert found["prices"][0]["server"]["unit"] == "patient"


def test_json_files_are_read_as_well(dpacc, rounds: Path, tmp_path: Path) -> None:
    """The same federation in JSON has the same price, which is the accountant's own."""
    import yaml

    document = yaml.safe_load(ROUNDS.replace("1e-6", "0.000001"))
    path = tmp_path / "rounds.json"
    path.write_text(json.dumps(document))
    own = price_federation(federation=read_federation(document=document)).to_json()
    assert json.loads(dpacc("compose", path, "--json").out) == own
    assert json.loads(dpacc("compose", rounds, "--json").out) == own


def test_the_table_shows_the_dearest_first(dpacc, rounds: Path) -> None:
    """A person reads both views, the budget, δ, adjacency, unit and what must hold."""
    outcome = dpacc("compose", rounds)
    lines = outcome.out.splitlines()
    order = [line.split()[0] for line in lines[2:6]]
    assert order == ["north", "north", "south", "east"]
    words = " ".join(outcome.out.split())
    for fact in ("server's view", "released", "budget", "1e-06", "add-or-remove", "patient"):
        assert fact in words
    assert "holds if" in words


def test_long_tables_are_cut(dpacc, rounds: Path) -> None:
    """--top cuts the rows, and a message says how many are left."""
    outcome = dpacc("compose", rounds, "--top", 1)
    assert "3 more rows" in outcome.err
    assert "south" not in outcome.out


def test_a_budget_that_is_exceeded_is_shouted(dpacc, rounds: Path) -> None:
    """The row and the facts below name who is over budget."""
    rounds.write_text(ROUNDS.replace("epsilon_budget: 4", "epsilon_budget: 1"))
    shown = dpacc("compose", rounds).out
    assert "1, EXCEEDED" in shown
    assert "over budget" in shown
    assert json.loads(dpacc("compose", rounds, "--json").out)["over_budget"] == ["north"]


def test_a_server_without_a_guarantee_is_not_given_a_number(dpacc, tmp_path: Path) -> None:
    """Central noise protects from nobody who holds the server: no ε is shown for it."""
    path = tmp_path / "rounds.yaml"
    path.write_text("level: client\ndelta: 1e-6\nrounds: 10\nsampling: none\nnoise_multiplier: 2\n")
    assert "none holds" in dpacc("compose", path).out
    assert json.loads(dpacc("compose", path, "--json").out)["worst"]["server"]["epsilon"] == "inf"


@pytest.mark.parametrize("many", [False, True])
def test_the_plot_is_a_picture(dpacc, rounds: Path, tmp_path: Path, many: bool) -> None:
    """--plot writes a PNG, of bars for a few clients and of a distribution for many."""
    if many:
        rounds.write_text(
            "level: example\ndelta: 1e-6\ndefaults: {local_steps: 1, noise_multiplier: 1.0, "
            "sampling_probability: 0.01}\nclients:\n"
            + "".join(f"  - {{name: c{n}, rounds: {n + 1}}}\n" for n in range(20))
        )
    picture = tmp_path / "out.png"
    assert dpacc("compose", rounds, "--plot", picture).code == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("rounds: 70", "round: 70", "line 12: clients[2].schedule[1].round is not a known field"),
        ("participation: 0.1", "participation: 2", "line 7: clients[1].participation = 2 must be"),
        ("local_steps: 10,", "", ""),
        ("noise_multiplier: 1.0}", "noise_multiplier: x}", "line 6: clients[0].noise_multiplier"),
        ("[north, east]", "[north, eats]", "line 14: overlaps[0] names 'eats', which is no client"),
        ("delta: 1e-6 ", "delta: 1e-6 1", "line 2: delta must be a number"),
        ("level: example", "level: [", "line"),
        ("unit: patient", "delta: 1e-5", "delta is given twice"),
        ("unit: patient", "- 3", "line 3"),
    ],
)
def test_mistakes_are_one_line(dpacc, rounds: Path, old: str, new: str, message: str) -> None:
    """A mistake is one line on stderr with the file, the line, the field and code 2."""
    assert old in ROUNDS
    rounds.write_text(ROUNDS.replace(old, new))
    outcome = dpacc("compose", rounds)
    if not message:
        assert outcome.code == 0
        return
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.count("\n") == 1
    assert str(rounds) in outcome.err
    assert message in outcome.err


def test_files_that_cannot_be_read(dpacc, rounds: Path, tmp_path: Path) -> None:
    """A missing file, a list, broken JSON and an unwritable figure are one line each."""
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "broken.json").write_text('{"level":\n oops}')
    for words, message in [
        ([tmp_path / "absent.yaml"], "No such file"),
        ([tmp_path], "directory"),
        ([tmp_path / "list.yaml"], "name: value"),
        ([tmp_path / "broken.json"], "line 2"),
        ([rounds, "--plot", tmp_path / "nowhere" / "a.png"], "there is no folder"),
    ]:
        outcome = dpacc("compose", *words)
        assert outcome.code == 2
        assert outcome.err.count("\n") == 1
        assert message in outcome.err
