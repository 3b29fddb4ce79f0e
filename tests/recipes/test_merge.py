"""A merged model says what base and adapter say together, and carries its privacy statement."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dpacc.cli import terminal
from dpacc.errors import ConfigurationError
from dpacc.recipe.models import load_adapter, load_base
from dpacc.recipe.settings import Task
from tests.dpacc.federated.federations import classifier_folder, opinions
from tests.recipes.training import WORDS, Train, as_arguments, refusal
from tests.scripts import load_script
from tests.tiny_models import save_tiny_llama

RECIPE = Path(__file__).parents[2] / "recipes/merge.py"


@pytest.fixture(scope="module")
def merging() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


def test_the_merged_model_needs_no_adapter(
    merging: ModuleType,
    train: Train,
    material: Path,
    tmp_path: Path,
) -> None:
    """Its logits are those of base and adapter; statement, ledger and tokenizer are beside it."""
    folder = train(learning_rate=0.1) / "tiny"
    output = tmp_path / "merged"
    merging.main(as_arguments({"adapter": folder, "output": output}))
    tokens = torch.arange(4, 12).unsqueeze(0)
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    bare = base(tokens).logits
    adapted = PeftModel.from_pretrained(base, folder)(tokens).logits
    merged, tokenizer = load_base(model=str(output))
    torch.testing.assert_close(merged(tokens).logits, adapted)
    assert not torch.allclose(bare, adapted)
    assert tokenizer("the film")["input_ids"]
    tuned = tmp_path / "tuned"
    save_tiny_llama(tuned, words=WORDS, seed=1)
    with pytest.raises(ConfigurationError, match="tuned has other weights than the base of"):
        merging.main(as_arguments({"adapter": folder, "output": tmp_path / "no", "model": tuned}))
    for name in ("privacy.json", "ledger.jsonl"):
        assert (output / name).read_bytes() == (folder / name).read_bytes()
    (said,) = re.findall(r"## Privacy.*?(?=\n## )", (folder / "README.md").read_text(), re.DOTALL)
    card = (output / "README.md").read_text()
    assert said in card
    assert "AutoModelForCausalLM.from_pretrained" in card
    assert "peft" not in card.lower().replace("needs no peft", "")
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_an_adapter_of_every_rank_is_merged_at_one(
    merging: ModuleType, train: Train, material: Path, tmp_path: Path
) -> None:
    """--rank keeps the first rows of a dylora run; a rank beyond its own is refused in one line."""
    folder = train(lora_method="dylora", lora_rank=4, learning_rate=0.1) / "tiny"
    tokens = torch.arange(4, 12).unsqueeze(0)
    logits = []
    for rank in (1, 4):
        output = tmp_path / f"merged-{rank}"
        merging.main(as_arguments({"adapter": folder, "output": output, "rank": rank}))
        logits.append(load_base(model=str(output)).model(tokens).logits)
    base = AutoModelForCausalLM.from_pretrained(material / "model")
    whole = PeftModel.from_pretrained(base, folder)
    torch.testing.assert_close(logits[1], whole(tokens).logits)
    for name, parameter in whole.named_parameters():
        if "lora_A" in name:
            parameter.data[1:] = 0
    torch.testing.assert_close(logits[0], whole(tokens).logits)
    assert not torch.allclose(*logits)
    with pytest.raises(ConfigurationError, match="rank=5 must lie between 1 and"):
        merging.main(as_arguments({"adapter": folder, "output": tmp_path / "x", "rank": 5}))


@pytest.fixture
def classified(
    train: Train,
    tmp_path: Path,
) -> Callable[..., tuple[Path, Path]]:
    """Train a tiny encoder to tell two classes; its folder, and the run's."""

    def run(*, by_mean: bool, **changes: object) -> tuple[Path, Path]:
        model = classifier_folder(tmp_path)
        if by_mean:
            (model / "1_Pooling").mkdir()
            (model / "1_Pooling/config.json").write_text('{"pooling_mode_mean_tokens": true}')
        data = opinions(tmp_path / "opinions.jsonl", count=40, seed=0)
        shared = {"train_data": data, "held_out_data": data, "labels": "bad,good"}
        shared |= {"allow_held_out_overlap": True, "max_length": 32}
        shared |= {"task": "sequence-classification", "lora_target_modules": "query,value"}
        runs = train(**shared | {"model": model, "learning_rate": 0.1} | changes)
        return model, runs / "tiny"

    return run


@pytest.mark.parametrize("by_mean", [False, True])
def test_a_merged_classifier_answers_as_it_did(
    merging: ModuleType,
    classified: Callable[..., tuple[Path, Path]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    by_mean: bool,
) -> None:
    """Head and pooling are in the folder; a mean, which transformers cannot say, is told."""
    model, folder = classified(by_mean=by_mean)
    output = tmp_path / "merged"
    capsys.readouterr()
    merging.main(as_arguments({"adapter": folder, "output": output, "labels": "bad,good"}))
    ids, mask = torch.tensor([[5, 6, 7, 8], [9, 7, 0, 0]]), torch.tensor([[1] * 4, [1, 1, 0, 0]])
    task: Task = "sequence-classification"
    base = load_base(model=str(model), task=task, labels=("bad", "good")).model
    adapted = load_adapter(model=base, folder=folder).eval()(input_ids=ids, attention_mask=mask)
    merged = load_base(model=str(output), task=task).model.eval()
    found = merged(input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(found.logits, adapted.logits)
    assert merged.config.id2label == {0: "bad", 1: "good"}
    plain = AutoModelForSequenceClassification.from_pretrained(output).eval()
    same = torch.allclose(plain(input_ids=ids, attention_mask=mask).logits, adapted.logits)
    told = [" ".join(capsys.readouterr().out.split()), (output / "README.md").read_text()]
    assert same is not by_mean
    assert [("load_base" in each) for each in told] == [by_mean, by_mean]


def test_a_head_of_other_classes_is_one_line(
    merging: ModuleType,
    classified: Callable[..., tuple[Path, Path]],
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A head for three classes does not fit a base that makes two, unless somebody names them."""
    told = {"labels": "bad,good,mixed", "lora_target_modules": "q_proj"}
    _, folder = classified(by_mean=False, model=material / "model", **told)
    output = tmp_path / "merged"
    unnamed = as_arguments({"adapter": folder, "output": output})
    merging.main(unnamed)
    assert AutoModelForSequenceClassification.from_pretrained(output).num_labels == 3
    shutil.rmtree(output)
    (folder / "config.yaml").unlink()
    assert "--labels" in refusal(merging.main, unnamed, capsys)
    assert not output.exists()
    merging.main(as_arguments({"adapter": folder, "output": output, "labels": "bad,good,mixed"}))
    assert output.is_dir()


def test_an_adapter_for_something_else_is_refused(
    merging: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the head is for is read off the adapter, never guessed."""
    (tmp_path / "adapter_config.json").write_text('{"task_type": "QUESTION_ANS"}')
    with pytest.raises(SystemExit), terminal.one_line_errors():
        merging.main(as_arguments({"adapter": tmp_path, "output": tmp_path / "new"}))
    assert "task_type=QUESTION_ANS" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["adapter", "output"])
def test_what_cannot_be_merged_is_one_line(
    merging: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    """No adapter, or a folder that would be overwritten: exit code 2 before anything is loaded."""
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "adapter_config.json").write_text("{}")
    values = {"adapter": tmp_path / "there", "output": tmp_path / "new"}
    values |= (
        {"adapter": tmp_path / "not"} if wrong == "adapter" else {"output": tmp_path / "there"}
    )
    assert refusal(merging.main, as_arguments(dict(values)), capsys).count("\n") <= 2
    assert not (tmp_path / "new").exists()


def test_nothing_is_uploaded_unasked(
    merging: ModuleType,
    train: Train,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub hears of a merge only where it is named, and the new repository is private."""
    heard: list[tuple[str, object]] = []

    class Hub:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            heard.append((name, private))

        def upload_folder(self, *, repo_id: str, folder_path: Path, allow_patterns: None) -> None:
            assert allow_patterns is None
            heard.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    folder = train() / "tiny"
    merging.main(as_arguments({"adapter": folder, "output": tmp_path / "one"}))
    assert heard == []
    asked = {"adapter": folder, "output": tmp_path / "two", "push_to_hub": "me/private"}
    merging.main(as_arguments(asked))
    assert heard[0] == ("me/private", True)
    assert "privacy.json" in str(heard[1][1])
