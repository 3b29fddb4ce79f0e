"""A merged model says what base and adapter say together, and carries its privacy statement."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from dpacc.cli import terminal
from dpacc.models import load_base
from tests.recipes.test_train import Train, as_arguments, material, recipe, train  # noqa: F401
from tests.scripts import load_script

RECIPE = Path(__file__).parents[2] / "recipes/merge.py"


@pytest.fixture(scope="module")
def merging() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(RECIPE)


def test_the_merged_model_needs_no_adapter(
    merging: ModuleType,
    train: Train,  # noqa: F811
    material: Path,  # noqa: F811
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
    for name in ("privacy.json", "ledger.jsonl", "README.md"):
        assert (output / name).read_bytes() == (folder / name).read_bytes()
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


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
    with pytest.raises(SystemExit) as caught, terminal.one_line_errors():
        merging.main(as_arguments(dict(values)))
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") <= 2
    assert not (tmp_path / "new").exists()


def test_nothing_is_uploaded_unasked(
    merging: ModuleType,
    train: Train,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub hears of a merge only where it is named, and the new repository is private."""
    heard: list[tuple[str, object]] = []

    class Hub:
        def create_repo(self, name: str, *, private: bool, exist_ok: bool) -> None:
            heard.append((name, private))

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            heard.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    folder = train() / "tiny"
    merging.main(as_arguments({"adapter": folder, "output": tmp_path / "one"}))
    assert heard == []
    asked = {"adapter": folder, "output": tmp_path / "two", "push_to_hub": "me/private"}
    merging.main(as_arguments(asked))
    assert heard[0] == ("me/private", True)
    assert "privacy.json" in str(heard[1][1])
