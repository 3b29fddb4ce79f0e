"""What may not be given to an adapter that writes, and which adapters may not write."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from dpacc.recipe.models import add_lora, load_base
from tests.recipes.training import as_arguments, lines, listed, refusal


@pytest.fixture
def refused(
    synthesis: ModuleType,
    to_write: Callable[..., dict[str, object]],
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., str]:
    """What is said, with some settings changed, before the recipe exits with code 2."""

    def run(**changes: object) -> str:
        return refusal(synthesis.main, as_arguments(to_write(**changes)), capsys)

    return run


def _other_adapter(folder: Path, material: Path) -> None:
    model = add_lora(
        model=load_base(model=str(material / "model"), dtype="float32").model,
        rank=8,
        alpha=16,
        dropout=0.0,
        target_modules=("q_proj", "v_proj"),
        seed=5,
    )
    model.save_pretrained(folder)


def _lost_end(folder: Path, material: Path) -> None:
    whole = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(whole[:-1]))


def _other_head(folder: Path, material: Path) -> None:
    stated = json.loads((folder / "privacy.json").read_text())
    stated["ledger"]["head"] = "0" * 64
    (folder / "privacy.json").write_text(json.dumps(stated))


def _no_ledger(folder: Path, material: Path) -> None:
    (folder / "ledger.jsonl").unlink()


def _no_adapter(folder: Path, material: Path) -> None:
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (_other_adapter, "is not the one that its ledger says was saved"),
        (_lost_end, "does not say that an adapter was saved"),
        (_other_head, "rests on a line that its ledger does not hold"),
        (_no_ledger, "ledger.jsonl"),
        (_no_adapter, "holds no adapter"),
    ],
    ids=["another", "lost end", "other head", "no ledger", "no adapter"],
)
def test_an_adapter_whose_cost_nobody_knows_writes_nothing(
    refused: Callable[..., str],
    forged: Path,
    material: Path,
    tmp_path: Path,
    forge: Callable[[Path, Path], None],
    words: str,
) -> None:
    """Swapped, unsaved, or with a ledger that lost lines: refused, and no file is there."""
    forge(forged, material)
    assert words in " ".join(refused(run=forged).split())
    assert not (tmp_path / "synthetic.jsonl").exists()


@pytest.mark.parametrize("how", ["the file itself", "a copy", "one record of it", "its beginning"])
def test_prompts_from_the_training_data_are_refused(
    refused: Callable[..., str],
    material: Path,
    tmp_path: Path,
    how: str,
) -> None:
    """By its name, by what it holds, record by record, and where texts only begin alike."""
    private = material / "private.jsonl"
    longest = max((each["text"] for each in lines(private)), key=len)
    prompts = {
        "the file itself": private,
        "a copy": Path(shutil.copyfile(private, tmp_path / "copy.jsonl")),
        "one record of it": listed(tmp_path / "one.jsonl", {"text": longest.upper()}),
        "its beginning": listed(tmp_path / "begun.jsonl", {"text": longest.rpartition(" ")[0]}),
    }[how]
    said = refused(prompts=prompts)
    assert "private training data" in said
    assert longest not in said


def test_what_users_asked_in_private_chats_is_no_prompt(
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    """A chat whose user says what one did in the training data is refused, whatever it is in."""
    asked = {"role": "user", "content": "the film was dull but its music"}
    answer = {"role": "assistant", "content": "joy"}
    private = listed(tmp_path / "private.jsonl", {"talk": [asked, answer]})
    system = {"role": "system", "content": "a joy every face"}
    prompts = listed(tmp_path / "prompts.jsonl", {"talk": [system, asked]})
    said = refused(prompts=prompts, messages_field="talk", train_data=private)
    assert "1 of them stand in" in said


def test_counts_of_private_labels_are_refused(
    refused: Callable[..., str],
    material: Path,
    tmp_path: Path,
) -> None:
    """The training data is no distribution, nor are shares that are none; the remedy is named."""
    fields = {"prompt_field": "label", "completion_field": "text"}
    wrong = tmp_path / "wrong.json"
    for content in ('{"joy": 0}', "[1]", "{}", '{"joy": "much"}', '{"joy": NaN}'):
        wrong.write_text(content)
        said = refused(labels_from=wrong, **fields)
        assert "give --labels_from a public distribution" in " ".join(said.split())
    said = refused(labels_from=material / "private.jsonl", **fields)
    assert "is the private training data" in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "sequence-classification", "labels": "a,b"}, "writes records"),
        ({"learn_end": False}, "never learned where a text ends"),
        ({"prompts": "a.jsonl", "labels_from": "b.json"}, "and not both"),
        ({"max_length": 8, "new_tokens": 8}, "must be below max_length=8"),
        ({"prompt_field": "ask", "completion_field": "say"}, "name public ones with --prompts"),
        ({"records": 0}, "records=0"),
        ({"max_length": 8, "least_tokens": 4}, "least_tokens=4 leaves no room for an end"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    refused: Callable[..., str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2 with the remedy, before any weights are loaded."""
    said = refused(**changes)
    assert words in " ".join(said.split())
    assert said.count("\n") <= 2


def test_what_was_begun_otherwise_is_not_gone_on_with(
    refused: Callable[..., str],
    synthesis: ModuleType,
    to_write: Callable[..., dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another temperature would make a file that no card describes."""
    monkeypatch.setattr(synthesis, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        synthesis.main(as_arguments(to_write()))
    assert "was begun with other settings" in refused(temperature=0.5)


def test_a_file_that_is_there_stays(
    refused: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Nothing is overwritten."""
    (tmp_path / "synthetic.jsonl").write_text("mine")
    assert "exists" in refused()
    assert (tmp_path / "synthetic.jsonl").read_text() == "mine"
