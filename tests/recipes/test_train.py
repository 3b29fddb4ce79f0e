"""The training recipe, whole: files in, adapter and proof out."""

from __future__ import annotations

import hashlib
import json
import math
import re
from pathlib import Path

import pytest
import torch
import yaml
from dpacc_accounting import read_ledger
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dpacc.artifacts.kept.metrics import Course
from dpacc.artifacts.progress_chart import Measurement
from dpacc.recipe.optimizers import gain_beneath
from tests.recipes.training import Train, lines


def test_a_run_leaves_adapter_ledger_proof_card_and_picture(
    train: Train, material: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything a reviewer needs is in the run's folder, and the adapter loads and matters; the
    rate that was taken, where none was said, is in all that tells of it."""
    folder = train() / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config.yaml",
        "ledger.jsonl",
        "metrics.jsonl",
        "privacy.json",
        "privacy_utility.png",
        "run.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    record = read_ledger(path=folder / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 3]
    proof = json.loads((folder / "privacy.json").read_text())
    assert 0 < proof["guarantee"]["epsilon"] <= 8
    assert proof["ledger"]["head"] == record.head
    assert "add-or-remove" in (folder / "README.md").read_text()
    assert (folder / "privacy_utility.png").read_bytes().startswith(b"\x89PNG")
    assert folder.stat().st_mode & 0o077 == 0
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    loaded = PeftModel.from_pretrained(base, folder)
    trained = [p for name, p in loaded.named_parameters() if "lora_B" in name]
    assert trained
    assert all(p.abs().sum() > 0 for p in trained)
    out, err = capsys.readouterr()
    for fact in ("held-out perplexity", "ε", "δ", "add-or-remove", "example", "noise multiplier"):
        assert fact in out
    rate = yaml.safe_load((folder / "config.yaml").read_text())["learning_rate"]
    assert rate == 0.025 * math.sqrt(gain_beneath(loaded) / 4)
    assert f"| learning_rate | {rate} |" in (folder / "README.md").read_text()
    assert f"learning rate {rate:.3g}" in err
    assert "step 4/4" in err
    assert not re.search(r"examples/s|[0-9] s left", err)  # how long steps take is private


def test_a_line_is_written_after_each_step_was_charged(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One before training and one a step, never ahead of the ledger, and bound by the proof."""
    charged: list[tuple[int, int]] = []

    class Watched(Course):
        def add(self, measurement: Measurement) -> None:
            assert self._path is not None
            ledger = self._path.with_name("ledger.jsonl")
            releases = read_ledger(path=ledger).releases if ledger.exists() else ()
            charged.append((measurement.step, len(releases)))
            super().add(measurement)

    monkeypatch.setattr("dpacc.artifacts.kept.metrics.Course", Watched)
    folder = train() / "tiny"
    assert charged == [(step, step) for step in range(5)]
    rows = lines(folder / "metrics.jsonl")
    assert [row["step"] for row in rows] == [*range(5)]
    course = json.loads((folder / "run.json").read_text())["course"]
    assert [row for row in rows if row["quality"] is not None] == course
    said = json.loads((folder / "privacy.json").read_text())["files"]["metrics.jsonl"]
    assert said == hashlib.sha256((folder / "metrics.jsonl").read_bytes()).hexdigest()


def test_noise_that_drowns_all_is_told_before_the_first_step(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the line on what begins, where noise is far longer than any gradient can be."""
    train(epsilon=0.05, steps=2, lora_rank=16)
    begun, _ = capsys.readouterr().err.split("step 1/2")
    assert "more records, or fewer trainable parameters, would help" in begun
    train(name="usual", steps=2)
    assert "would help" not in capsys.readouterr().err


def test_a_second_run_gets_its_own_folder_and_ledger(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """No run overwrites another's proof, and what both cost together is said."""
    train()
    assert "have spent" not in capsys.readouterr().err
    runs = train()
    said = capsys.readouterr().err
    assert "tiny has spent a budget already; on the same data, all cost together: (ε = " in said
    assert 8 < float(said.split("(ε = ")[1].split(",")[0]) < 16
    assert {path.name for path in runs.iterdir()} == {"tiny", "tiny-2"}
    heads = {read_ledger(path=run / "ledger.jsonl").head for run in runs.iterdir()}
    assert len(heads) == 2


def test_nothing_on_the_screen_comes_from_private_data(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """No loss, norm, batch size or text of a private example is shown; the runs differ anyway."""
    train(held_out_data="null")
    out, err = capsys.readouterr()
    shown = (out + err).lower()
    assert "step 4/4" in shown
    for private in ("loss", "norm=", "clipped", *(f" {word} " for word in ("film", "dull", "joy"))):
        assert private not in shown


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantized_base_trains(
    quantization: str, train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same adapters on a bitsandbytes base, which has nothing to say about its rounding."""
    folder = train(quantization=quantization, gradient_checkpointing="true") / "tiny"
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 4
    assert "MatMul" not in "".join(capsys.readouterr())


@pytest.mark.parametrize(("rows_that_fit", "chosen"), [(7, "ghost"), (8, "materialize")])
def test_what_auto_chose_is_said(
    rows_that_fit: int,
    chosen: str,
    train: Train,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether gradients are kept or passed twice goes by the memory, and shows before step 1."""
    monkeypatch.setattr("dpacc.step.strategies.most_rows_that_fit", lambda **_: rows_that_fit)
    train(per_example_gradients="auto", held_out_data="null", steps=1)
    said = capsys.readouterr().err
    assert f"({chosen} per-example gradients)" in said
    assert said.index(chosen) < said.index("step 1/1")


def test_a_whole_author_can_be_the_privacy_unit(
    train: Train, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a unit field, the plan counts authors, the statement protects one, and how many rows
    there are, which is the authors' own, is neither printed nor written."""
    folder = train(unit_field="author", expected_batch_size=5) / "tiny"
    shown = capsys.readouterr()
    assert "20 private authors" in shown.out + shown.err
    written = [path.read_text() for path in folder.iterdir() if path.suffix in (".md", ".json")]
    for text in (shown.out, shown.err, *written):
        assert not re.search(r"\b60\b", text)
    plan = json.loads((folder / "privacy.json").read_text())["plan"]
    assert plan["dataset_size"] == 20
    assert plan["unit"] == "author"
    assert "one author" in (folder / "README.md").read_text()


@pytest.mark.parametrize("sampling", ["poisson", "examples"])
def test_an_authors_share_can_be_bounded(train: Train, sampling: str) -> None:
    """Two of an author's three rows count: a draw for each step, or kept rows drawn one by one."""
    settings = {"unit_field": "author", "unit_cap": 2, "sampling": sampling}
    folder = train(**settings, expected_batch_size=5) / "tiny"
    plan = json.loads((folder / "privacy.json").read_text())["plan"]
    assert (plan["unit_cap"], plan["sampling"]) == (2, sampling)
    assert plan["dataset_size"] == {"poisson": 20, "examples": 40}[sampling]
    told = {
        "poisson": "mean gradient over at most 2 of its examples, drawn for the step,",
        "examples": "Of each author at most 2 examples are kept",
    }[sampling]
    assert told in (folder / "README.md").read_text()
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == plan["steps"]


@pytest.mark.parametrize("clipping", ["per-layer", "adaptive"])
def test_ghost_passes_and_every_clipping_rule_train(clipping: str, train: Train) -> None:
    """The slower, leaner strategy and the other rules are one setting away."""
    folder = train(per_example_gradients="ghost", clipping=clipping) / "tiny"
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 4


def test_the_last_adapters_are_averaged(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a run of four steps saves the mean of its last two adapters, and says so."""
    from dpacc.ranks.backends.replicated import Replicated

    update = Replicated.update
    seen: list[list[torch.Tensor]] = []

    def watched(
        self: Replicated, parameters: list[torch.nn.Parameter], gradient: torch.Tensor
    ) -> None:
        update(self, parameters, gradient)
        seen.append([p.detach().clone() for p in parameters])

    monkeypatch.setattr(Replicated, "update", watched)
    folder = train() / "tiny"
    assert re.search(r"average_iterates\W+0\.5", (folder / "README.md").read_text())
    saved = load_file(folder / "adapter_model.safetensors").values()
    means = [(third + fourth) / 2 for third, fourth in zip(seen[2], seen[3], strict=True)]
    assert len(seen) == 4
    assert len(means) == len(saved)
    for mean in means:
        assert any(t.shape == mean.shape and torch.allclose(t, mean) for t in saved)


def test_an_answer_is_learned_among_the_answers(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An easy task is learned, and the perplexity shown is among the two answers."""
    path = tmp_path / "asked.jsonl"
    rows = [("film", "joy") if i % 2 else ("music", "dull") for i in range(60)]
    path.write_text("".join(json.dumps({"p": f"{p} ", "c": c}) + "\n" for p, c in rows))
    asked = {"prompt_field": "p", "completion_field": "c", "learn_end": False}
    data = {"train_data": path, "held_out_data": path, "answers": "dull,joy"}
    data |= {"allow_held_out_overlap": True}
    train(**asked, **data, epsilon=1e4, steps=30, learning_rate=0.1)
    before, after = re.findall(
        r"step (?:0|30): held-out perplexity ([\d.]+)", capsys.readouterr().err
    )
    assert 1.5 < float(before) < 3
    assert float(after) < 1.4


def test_a_whitened_run_leaves_an_ordinary_adapter(train: Train, material: Path) -> None:
    """A is trained, B stays orthonormal, and plain PEFT reads both."""
    folder = train(lora_method="whitened") / "tiny"
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    loaded = dict(PeftModel.from_pretrained(base, folder).named_parameters())
    lower = [p for name, p in loaded.items() if "lora_A" in name]
    upper = [p for name, p in loaded.items() if "lora_B" in name]
    assert len(lower) == len(upper) == 4
    assert all(p.abs().sum() > 0 for p in lower)
    for matrix in upper:
        torch.testing.assert_close(matrix.T @ matrix, torch.eye(matrix.shape[1]))


def test_adapters_start_alike_whatever_torch_did_before(train: Train) -> None:
    """The seed fixes the public start; secret noise then makes two runs differ."""
    from safetensors.torch import load_file

    first = load_file(train() / "tiny/adapter_model.safetensors")
    second = load_file(train() / "tiny-2/adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_the_card_says_by_what_adapters_were_whitened(train: Train) -> None:
    """Held-out people are in the weights even with a proper split."""
    card = (train(lora_method="whitened") / "tiny/README.md").read_text()
    assert "whitened by the held-out data" in card
    assert "in the released weights" in card
