"""A run's folder is its own, and holds whole files that others can read."""

import json
import stat
from hashlib import sha256

import pytest
import torch
from dpacc_accounting import Ledger, read_ledger
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from dpacc.artifacts.progress_chart import Measurement
from dpacc.artifacts.run_folder import new_run_folder, save_adapter, save_run, write_file
from dpacc.errors import ConfigurationError, DpaccError
from dpacc.plan import PrivacyPlan
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.models import add_lora
from tests.tiny_models import tiny_tokenizer

TOKENS = torch.arange(8).reshape(1, 8)
PLAN = PrivacyPlan(
    dataset_size=1000,
    expected_batch_size=10,
    steps=3,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
    target_epsilon=8.0,
)


@pytest.fixture
def base_folder(tmp_path):
    """A folder with a tiny base model."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def model(base_folder):
    """The base with an adapter that does something."""
    base = AutoModelForCausalLM.from_pretrained(base_folder).requires_grad_(False)
    adapted = add_lora(model=base, rank=2, alpha=4)
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.5)
    return adapted.eval()


def save(folder, model, base_folder):
    """Leave a whole run in the folder."""
    with Ledger.open(path=folder / "ledger.jsonl", plan=PLAN.to_json()) as book:
        for step in range(PLAN.steps):
            book.charge(step=step, event=PLAN.charge(step))
    save_run(
        folder=folder,
        model=model,
        config=TrainingConfig(
            model=str(base_folder),
            train_data="private.jsonl",
            epsilon=8.0,
            expected_batch_size=10,
            steps=3,
        ),
        ledger=folder / "ledger.jsonl",
        tokenizer=tiny_tokenizer(["a", "b"]),
        measurements=[
            Measurement(step=0, epsilon=0.0, quality=50.0),
            Measurement(step=3, epsilon=0.3, quality=40.0),
        ],
    )


def test_a_run_never_writes_into_anothers_folder(tmp_path):
    """A taken name gets a number; nothing that was there changes."""
    first = new_run_folder(output_dir=tmp_path / "runs", name="demo")
    (first / "ledger.jsonl").write_text("kept")
    second = new_run_folder(output_dir=tmp_path / "runs", name="demo")
    third = new_run_folder(output_dir=str(tmp_path / "runs"), name="demo")
    assert [folder.name for folder in (first, second, third)] == ["demo", "demo-2", "demo-3"]
    assert (first / "ledger.jsonl").read_text() == "kept"
    assert not any(second.iterdir())


def test_only_the_owner_may_enter_a_runs_folder(tmp_path):
    """Its mode is 0700."""
    folder = new_run_folder(output_dir=tmp_path, name="demo")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_bad_input(tmp_path):
    """A file in the way is a one-line error that names the setting."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ConfigurationError, match="--output_dir") as refused:
        new_run_folder(output_dir=tmp_path / "runs", name="demo")
    assert "\n" not in str(refused.value)


def test_the_adapter_loads_with_peft(tmp_path, model, base_folder):
    """`PeftModel.from_pretrained(base, folder)` predicts what the trained model did."""
    folder = new_run_folder(output_dir=tmp_path, name="demo")
    save(folder, model, base_folder)
    base = AutoModelForCausalLM.from_pretrained(base_folder)
    loaded = PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        wanted, plain = model(TOKENS).logits, base_logits(base_folder)
        assert torch.equal(loaded(TOKENS).logits, wanted)
    assert not torch.allclose(plain, wanted, atol=1e-3)
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(base_folder)


def base_logits(base_folder):
    """What the base predicts on its own."""
    return AutoModelForCausalLM.from_pretrained(base_folder)(TOKENS).logits


def test_a_run_leaves_its_files_and_nothing_else(tmp_path, model, base_folder):
    """The adapter with what it is used by, and all that speaks for it; no scratch file stays."""
    folder = new_run_folder(output_dir=tmp_path, name="demo")
    save(folder, model, base_folder)
    assert {path.name for path in folder.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "ledger.jsonl",
        "privacy.json",
        "privacy_utility.png",
        "run.json",
        "README.md",
        "config.yaml",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "## Privacy statement" in (folder / "README.md").read_text(encoding="utf-8")
    assert (folder / "privacy_utility.png").read_bytes().startswith(b"\x89PNG")


def test_the_proof_holds_plan_and_guarantee(tmp_path, model, base_folder):
    """`privacy.json` is strict JSON: plan, price, attacks, the ledger's end, the adapter's hash."""
    folder = new_run_folder(output_dir=tmp_path, name="demo")
    save(folder, model, base_folder)
    proof = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
    plan = PrivacyPlan.from_json(proof["plan"])
    assert plan == PLAN
    assert proof["guarantee"] == plan.guarantee().to_json()
    record = read_ledger(path=folder / "ledger.jsonl")
    assert proof["ledger"] == {"file": "ledger.jsonl", "head": record.head}
    assert proof["attack_risk"]["false_positives"] == 0.01
    weights = (folder / "adapter_model.safetensors").read_bytes()
    assert proof["adapter"]["adapter_model.safetensors"] == sha256(weights).hexdigest()
    assert [*record.saved] == [proof["adapter"]]


def test_a_failed_save_leaves_nothing_behind(tmp_path, model, monkeypatch):
    """An adapter that could not be written whole leaves neither parts nor scratch."""

    def fail(folder, **_):
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{")
        raise OSError("disk full")

    monkeypatch.setattr(model, "save_pretrained", fail)
    with pytest.raises(DpaccError, match=r"disk full; .* free the disk"):
        save_adapter(model=model, folder=tmp_path)
    assert not (tmp_path / "adapter_config.json").exists()
    assert not (tmp_path / ".adapter.partial").exists()


def test_a_file_is_replaced_whole(tmp_path):
    """Writing again replaces the content, and the scratch file is gone."""
    path = tmp_path / "a.json"
    write_file(path=path, content=b"first, and longer")
    write_file(path=path, content=b"second")
    assert path.read_bytes() == b"second"
    assert list(tmp_path.iterdir()) == [path]
