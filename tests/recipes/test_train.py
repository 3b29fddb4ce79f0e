"""The training recipe, whole: files in, adapter and proof out, and mistakes told in one line."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from dpacc_accounting import read_ledger
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from dpacc.cli import terminal
from dpacc.errors import PrivacyError
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/train.py"
WORDS = ["the", "film", "was", "dull", "but", "its", "music", "and", "every", "face", "a", "joy"]


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and little files of private and held-out text."""
    folder = tmp_path_factory.mktemp("material")
    save_tiny_llama(folder / "model", words=WORDS)
    write_texts(folder / "private.jsonl", count=60)
    write_texts(folder / "held_out.jsonl", count=10, beginning="joy ")
    (folder / "empty.jsonl").write_text("")
    return folder


def write_texts(path: Path, *, count: int, beginning: str = "") -> None:
    """Texts of twenty authors; none begins with "joy" unless it is asked to."""
    rows = (beginning + " ".join(WORDS[i % 7 : i % 7 + 3 + i % 9]) for i in range(count))
    records = ({"text": row, "author": f"{beginning}author {i % 20}"} for i, row in enumerate(rows))
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def settings(material: Path, runs: Path) -> dict[str, object]:
    return {
        "model": material / "model",
        "train_data": material / "private.jsonl",
        "held_out_data": material / "held_out.jsonl",
        "output_dir": runs,
        "name": "tiny",
        "epsilon": 8,
        "expected_batch_size": 12,
        "steps": 4,
        "evaluate_every": 2,
        "lora_target_modules": "q_proj,v_proj",
        "dtype": "float32",
    }


def as_arguments(values: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in values.items()]


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


Train = Callable[..., Path]


@pytest.fixture
def train(recipe: ModuleType, material: Path, tmp_path: Path) -> Train:
    """Train in this process with some settings changed; return the folder of runs."""

    def run(**changes: object) -> Path:
        if "resume" in changes:
            changes["resume"] = tmp_path / "runs" / str(changes["resume"])
        values = settings(material, tmp_path / "runs") | changes
        with terminal.one_line_errors():
            recipe.main(as_arguments(values))
        return tmp_path / "runs"

    return run


def test_a_run_leaves_adapter_ledger_proof_card_and_picture(
    train: Train, material: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everything a reviewer needs is in the run's folder, and the adapter loads and matters."""
    folder = train() / "tiny"
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "ledger.jsonl",
        "privacy.json",
        "privacy_utility.png",
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
    assert "step 4/4" in err
    assert not re.search(r"examples/s|[0-9] s left", err)  # how long steps take is private


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
    monkeypatch.setattr("dpacc.engine.most_rows_that_fit", lambda **_: rows_that_fit)
    train(per_example_gradients="auto", held_out_data="null", steps=1)
    said = capsys.readouterr().err
    assert f"({chosen} per-example gradients)" in said
    assert said.index(chosen) < said.index("step 1/1")


def test_two_ranks_train_one_adapter(material: Path, tmp_path: Path) -> None:
    """The same recipe, launched on two gloo ranks, charges each step once and saves once."""
    values = settings(material, tmp_path / "runs")
    launcher = [sys.executable, "-m", "accelerate.commands.launch"]
    config = ["--config_file", str(ROOT / "launch_configs/cpu_2proc.yaml")]
    finished = subprocess.run(
        [*launcher, *config, str(RECIPE), *as_arguments(values)],
        cwd=ROOT,
        env={k: v for k, v in os.environ.items() if k != "ACCELERATE_USE_CPU"},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.count("Private fine-tuning") == 1
    folder = tmp_path / "runs/tiny"
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 4
    assert (folder / "adapter_model.safetensors").exists()


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


@pytest.mark.parametrize("clipping", ["per-layer", "adaptive"])
def test_ghost_passes_and_every_clipping_rule_train(clipping: str, train: Train) -> None:
    """The slower, leaner strategy and the other rules are one setting away."""
    folder = train(per_example_gradients="ghost", clipping=clipping) / "tiny"
    assert len(read_ledger(path=folder / "ledger.jsonl").releases) == 4


def test_the_last_adapters_are_averaged(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a run of four steps saves the mean of its last two adapters, and says so."""
    from dpacc.backends.replicated import Replicated

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


def test_the_data_are_looked_at_before_the_weights(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A model without weights and data without the field: the data's mistake is told."""
    shutil.copytree(material / "model", tmp_path / "model")
    (tmp_path / "model/model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit, match="2"):
        train(model=tmp_path / "model", text_field="body")
    assert "no field 'body'" in capsys.readouterr().err


def test_a_run_that_is_refused_before_its_first_charge_leaves_no_folder(
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The probe's refusal comes after the ledger was opened, and takes it away again."""
    monkeypatch.setattr("dpacc.engine.CouplingProbe", RefusingProbe)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert "coupled, said the probe" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    monkeypatch.undo()
    train()
    monkeypatch.setattr("dpacc.engine.CouplingProbe", RefusingProbe)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"tiny"}


class RefusingProbe:
    """A probe that refuses every model."""

    @classmethod
    def before(cls, *_: object, **__: object) -> None:
        raise PrivacyError("coupled, said the probe")


def test_a_run_that_was_charged_keeps_its_ledger(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error at the first update, after the charge: what was spent stays on the books."""

    def failing(*_: object) -> None:
        raise PrivacyError("no update")

    monkeypatch.setattr("dpacc.backends.replicated.Replicated.update", failing)
    with pytest.raises(SystemExit, match="2"):
        train()
    assert len(read_ledger(path=tmp_path / "runs/tiny/ledger.jsonl").releases) == 1


def test_a_killed_run_is_resumed(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dying at the third update and resuming takes the steps that are left, and no more."""
    from dpacc.backends.replicated import Replicated

    update, updates = Replicated.update, []

    def dying(*arguments: object) -> None:
        updates.append(arguments)
        if len(updates) == 3:
            raise KeyboardInterrupt
        update(*arguments)

    monkeypatch.setattr(Replicated, "update", dying)
    with pytest.raises(KeyboardInterrupt):
        train(checkpoint_every=2)
    monkeypatch.setattr(Replicated, "update", update)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(checkpoint_every=2, resume="tiny") / "tiny"
    record = read_ledger(path=folder / "ledger.jsonl")
    assert [release.step for release in record.releases] == [0, 1, 2, 3]
    assert (folder / "adapter_model.safetensors").exists()


def test_a_killed_run_averages_what_an_uninterrupted_one_would(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dying amid the averaged steps, the third and fourth, changes nothing in their mean."""
    from dpacc.backends.replicated import Replicated

    update = Replicated.update
    seen: list[list[torch.Tensor]] = []
    dies = [True]

    def watched(
        self: Replicated, parameters: list[torch.nn.Parameter], gradient: torch.Tensor
    ) -> None:
        if dies and len(seen) == 3:
            dies.clear()
            raise KeyboardInterrupt
        update(self, parameters, gradient)
        seen.append([p.detach().clone() for p in parameters])

    monkeypatch.setattr(Replicated, "update", watched)
    with pytest.raises(KeyboardInterrupt):
        train(average_iterates=0.5, checkpoint_every=3)
    gc.collect()  # the interrupted engine lets go of its ledger
    folder = train(average_iterates=0.5, checkpoint_every=3, resume="tiny") / "tiny"
    assert len(seen) == 4
    means = [(third + fourth) / 2 for third, fourth in zip(seen[2], seen[3], strict=True)]
    saved = load_file(folder / "adapter_model.safetensors").values()
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
    train(**asked, **data, epsilon=1e4, steps=12, learning_rate=0.1)
    before, after = re.findall(
        r"step (?:0|12): held-out perplexity ([\d.]+)", capsys.readouterr().err
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


MISTAKES = {
    "epsilon": ("0", "epsilon=0"),
    "delta": ("0.5", "delta=0.5 is no less than 1/60"),
    "expected_batch_size": ("61", "exceeds"),
    "train_data": ("nowhere.jsonl", "nowhere.jsonl"),
    "lora_target_modules": ("q_porj", "q_porj"),
    "model": ("./no-such-model", "./no-such-model"),
    "resume": ("nothing-there", "nothing-there"),
    "unit_field": ("autor", "autor"),
    "quantization": ("nf5", "nf5"),
    "learning_rat": ("1", "did you mean learning_rate"),
    "output_dir": ("s3://bucket/runs", "no folder of this machine"),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_one_line_and_exit_code_2_and_writes_nothing(
    name: str, train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each bad input names the culprit; no folder is made, no traceback shown."""
    value, culprit = MISTAKES[name]
    with pytest.raises(SystemExit) as exit_:
        train(**{name: value})
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert culprit in error
    assert not (tmp_path / "runs").exists()


def test_an_empty_dataset_is_refused(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """There is nobody to protect and nothing to learn from."""
    with pytest.raises(SystemExit, match="2"):
        train(train_data=material / "empty.jsonl")
    assert "empty.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_model_without_weights_is_refused(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is no model is told as such."""
    (tmp_path / "hollow").mkdir()
    with pytest.raises(SystemExit, match="2"):
        train(model=tmp_path / "hollow")
    assert "hollow" in capsys.readouterr().err


def test_the_script_itself_exits_with_2(material: Path, tmp_path: Path) -> None:
    """Run as a program, a mistake gives exit code 2 within a second or two, before torch loads."""
    values = settings(material, tmp_path / "runs") | {"epsilon": -1}
    finished = subprocess.run(
        [sys.executable, str(RECIPE), *as_arguments(values)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1
    assert "epsilon=-1" in finished.stderr


def test_adapters_start_alike_whatever_torch_did_before(train: Train) -> None:
    """The seed fixes the public start; secret noise then makes two runs differ."""
    from safetensors.torch import load_file

    first = load_file(train() / "tiny/adapter_model.safetensors")
    second = load_file(train() / "tiny-2/adapter_model.safetensors")
    assert first.keys() == second.keys()
    assert not any(torch.equal(first[name], second[name]) for name in first)


def test_held_out_data_that_is_private_is_refused(
    train: Train, material: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The training file itself, some rows of it, or an author who has rows in both; no folder is
    made. Where it is allowed, ledger and card say it, and whitening never is."""
    rows = (material / "private.jsonl").read_text().splitlines()
    part = tmp_path / "part.jsonl"
    part.write_text("\n".join(rows[3:5]))
    same_author = tmp_path / "author.jsonl"
    same_author.write_text(json.dumps({"text": "joy joy joy", "author": "Author 3 "}))
    for changes in (
        {"held_out_data": material / "private.jsonl"},
        {"held_out_data": part},
        {"held_out_data": part, "lora_method": "whitened", "allow_held_out_overlap": True},
        {"held_out_data": same_author, "unit_field": "author", "expected_batch_size": 5},
    ):
        with pytest.raises(SystemExit):
            train(**changes)
        error = capsys.readouterr().err
        assert "private training" in error
        assert "joy" not in error
    assert not (tmp_path / "runs").exists()
    folder = train(held_out_data=part, allow_held_out_overlap=True) / "tiny"
    assert "metrics were computed without noise" in (folder / "README.md").read_text()


def test_the_card_says_by_what_adapters_were_whitened(train: Train) -> None:
    """Held-out people are in the weights even with a proper split."""
    card = (train(lora_method="whitened") / "tiny/README.md").read_text()
    assert "whitened by the held-out data" in card
    assert "in the released weights" in card
