"""`dpacc federate tune`: proposals as table and document, and errors that say what to do."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from dpacc_accounting import calibrate_noise

from tests.cli.conftest import Run
from tests.dpacc.federated.federations import classifier_folder, opinions
from tests.dpacc.layers.computed_activations import counted

WORDS = [
    "federate", "tune", "--epsilon", 8, "--delta", 1e-4, "--client", "north=2000",
    "--client", "south=800:2", "--batch-size", 50, "--rounds", 3, "--megabytes", 0.1,
]  # fmt: skip
LAYERS = ["--layer", "576x576x30", "--layer", "192x576x30"]


def test_the_document_holds_noise_bytes_and_a_recommendation(dpacc: Run) -> None:
    """σ of each client by its own ε; every proposal within the line; one of them recommended."""
    outcome = dpacc(*WORDS, *LAYERS, "--json")
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    north, south = said["clients"]
    known = calibrate_noise(dataset_size=800, batch_size=50, steps=48, epsilon=2, delta=1e-4)
    assert south["noise_multiplier"] == known.noise_multiplier
    assert south["noise_per_coordinate"] == known.noise_multiplier / 50
    assert north["noise_multiplier"] < south["noise_multiplier"]
    assert said["recommended"] in said["proposals"]
    assert said["reached"] == (said["recommended"]["signal_to_noise"] >= 1.5)
    for each in said["proposals"]:
        assert 0 < each["update_signal"] < each["signal_to_noise"]
        assert 0 < each["upload_bytes"] <= 1e5
        assert each["download_bytes"] == 4 * each["trained"] == 4 * each["rank"] * 23040


def test_the_table_shows_each_rank_once_and_the_line_to_write(dpacc: Run) -> None:
    """A row a rank, and the recommended compression as it is written in Python."""
    outcome = dpacc(*WORDS, *LAYERS, "--ranks", "8,16")
    assert outcome.code == 0, outcome.err
    assert outcome.out.count("184,320") == outcome.out.count("368,640") == 1
    assert "Compression(bits=" in outcome.out
    assert "north" in outcome.out
    assert re.search(r"one update +a signal-to-noise of at most [0-9.]+", outcome.out)


def test_a_known_model_gives_the_same_shape(dpacc: Run) -> None:
    """SmolLM2's q and v projections, by name or by numbers."""
    model = ["--model", "HuggingFaceTB/SmolLM2-135M-Instruct", "--target-modules", "q_proj,v_proj"]
    by_name = dpacc(*WORDS, *model, "--ranks", 8, "--json")
    assert by_name.code == 0, by_name.err
    assert json.loads(by_name.out) == json.loads(dpacc(*WORDS, *LAYERS, "--ranks", 8, "--json").out)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "Give either --model or --layer."),
        ([*LAYERS, "--model", "x"], "Give either --model or --layer."),
        (["--layer", "576"], "no layer"),
        (["--layer", "0x5"], "no layer"),
        ([*LAYERS, "--client", "north=5"], "twice"),
        ([*LAYERS, "--client", "east"], "NAME=N"),
        ([*LAYERS, "--client", "east=100:-1"], "epsilon"),
        ([*LAYERS, "--client", "east=100:1e999"], "epsilon"),
        ([*LAYERS, "--client", "east=100:0"], "epsilon"),
        ([*LAYERS, "--client", "east=10"], "exceeds dataset_size=10"),
        ([*LAYERS, "--ranks", "0"], "no ranks"),
        ([*LAYERS, "--local-epochs", "nan"], "finite"),
        ([*LAYERS, "--megabytes", "0.0001"], "nothing fits"),
        (["--model", "/nowhere"], "no folder"),
        ([*LAYERS, "--try", "."], "--try needs --model"),
        (["--try", "/nowhere", "--model", "x"], "does not exist"),
        ([*LAYERS, "--task", "labels=a,b"], "go with --model"),
        ([*LAYERS, "--task", "labels"], "no setting"),
        (["--model", "x", "--task", "lables=a,b"], "do you mean 'labels'"),
    ],
)
def test_senseless_settings_are_one_line_and_exit_code_2(
    dpacc: Run, words: list[object], why: str
) -> None:
    """The culprit is named."""
    outcome = dpacc(*WORDS, *words)
    assert outcome.code == 2
    assert why in outcome.err
    assert outcome.err.count("\n") == 1


def test_numbers_alone_need_no_training_stack() -> None:
    """With --layer, neither torch nor Flower is loaded."""
    words = [str(each) for each in (*WORDS, *LAYERS, "--json")]
    code = (
        f"import sys; sys.argv = ['dpacc', *{words!r}]\n"
        "from dpacc.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "print('loaded:', *{'torch', 'flwr', 'transformers'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert '"recommended"' in done.stdout
    assert done.stdout.endswith("loaded:\n")


def test_the_line_on_the_page_runs(dpacc: Run) -> None:
    """docs/federated.md's own command recommends something that fits."""
    page = (Path(__file__).parents[3] / "docs/federated.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^\$ dpacc (federate tune .*)$", page, flags=re.MULTILINE)
    outcome = dpacc(*shlex.split(line))
    assert outcome.code == 0, outcome.err
    assert "Recommendation" in outcome.out


def test_candidates_are_tried_on_public_records(
    dpacc: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates, one seed each: what they reached, with its error; then nothing is trained.
    The base is read once, and what lies beneath the adapters is computed by the first alone.
    """
    computed = counted(monkeypatch)
    opinions(tmp_path / "public.jsonl", count=900, seed=3)
    words = [
        *("federate", "tune", "--epsilon", 8, "--delta", 1e-3, "--rounds", 1, "--batch-size", 10),
        *("--client", "north=40", "--client", "south=30:3", "--megabytes", 0.1, "--ranks", "1,2"),
        *("--model", classifier_folder(tmp_path), "--target-modules", "query,value"),
        *("--top-layers", 1),
        *("--task", "labels=bad,good", "--task", "max_length=16", "--held-out", 30),
        *("--try", tmp_path / "public.jsonl", "--candidates", 2, "--seeds", 1),
        *("--folder", tmp_path / "tried", "--learning-rate", 0.01),
    ]
    dpacc("federate", "--help")  # what saving a model has printed is not the command's
    first = dpacc(*words, "--target", 0.99, "--json")
    assert first.code == 0, first.err
    said = json.loads(first.out)["trials"]
    one, other = said["tried"]
    assert one["rank"] == json.loads(first.out)["recommended"]["rank"]
    assert one != other
    assert said["smallest"] is None
    assert said["confidence_needed"] == 0.975
    assert 0 < one["standard_error"] < 0.2
    assert not one["error_holds_seeds"]
    assert one["trials"][0]["guarantees"]["south"]["epsilon"] <= 3
    assert len(list((tmp_path / "tried").iterdir())) == 2
    assert computed[:2] == [40, 30]
    assert computed[2:] == [0, 0]
    again = dpacc(*words, "--target", 0.01)
    assert again.code == 0, again.err
    shown = " ".join(again.out.split())
    assert "the fewest megabytes that reach 0.01, with a confidence of 100.0%" in shown
    assert "north: (ε = " in shown
    assert "one seed tells nothing of training's" in shown


def test_the_group_names_its_commands(dpacc: Run) -> None:
    """Without a command it shows what there is."""
    assert "tune" in dpacc("federate", "--help").out
    assert dpacc("federate", "tun").code == 2
