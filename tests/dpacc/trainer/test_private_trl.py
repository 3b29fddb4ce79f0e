"""TRL's SFTTrainer is made private by mixing the private trainer in before it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer, TrainerCallback

from dpacc import PrivacyArguments, PrivateTrainer
from dpacc.errors import ConfigurationError
from dpacc.recipe.models import load_base
from tests.dpacc.step.engine_runs import RecordingOptimizer, received
from tests.dpacc.step.test_averaging import trained
from tests.dpacc.trainer.test_private_trainer import private
from tests.tiny_models import save_tiny_llama, tiny_base, tiny_model

WORDS = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
CHAT = (
    "{% for message in messages %}{{ message['role'] + ' ' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + ' </s>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + ' ' }}{% endif %}{% endfor %}"
)


def sft_trainer(
    folder: Path, *, units: Any = None, privacy: PrivacyArguments | None = None, **changes: Any
) -> Any:
    """TRL's trainer made private, on prompts and completions, with an optimizer that records."""
    trl = pytest.importorskip("trl")
    save_tiny_llama(folder / "base", words=WORDS)

    class PrivateSFTTrainer(PrivateTrainer, trl.SFTTrainer):  # type: ignore[misc]
        pass

    model = tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    return PrivateSFTTrainer(
        model=model,
        optimizers=(optimizer, None),
        processing_class=AutoTokenizer.from_pretrained(folder / "base"),
        args=trl.SFTConfig(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            num_train_epochs=2,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
            **changes,
        ),
        train_dataset=Dataset.from_list(
            [{"prompt": "the film was", "completion": f" {word}"} for word in WORDS]
        ),
        units=units,
        privacy=privacy or private(max_grad_norm=1e-2),
    )


def test_trls_trainer_is_made_private_by_mixing_it_in(tmp_path: Path) -> None:
    """On TRL's own prepared examples: the open loop's gradients, and nothing else logged."""
    run = sft_trainer(tmp_path)
    recorder = run.optimizer
    run.train()
    prepared = [
        {name: each[name] for name in ("input_ids", "labels")} for each in run.train_dataset
    ]
    expected = received(run.plan, prepared, tmp_path / "ledger.jsonl")
    assert len(expected) == run.plan.steps == 6
    torch.testing.assert_close(torch.stack(recorder.received) * 4, expected, rtol=1e-4, atol=1e-6)
    logged = set().union(*run.state.log_history)
    assert "epsilon" in logged
    assert not {"loss", "mean_token_accuracy", "entropy", "num_tokens"} & logged


@pytest.mark.parametrize(
    "option",
    [
        {"packing": True},
        {"padding_free": True},
        {"loss_type": "dft"},
        {"activation_offloading": True},
    ],
)
def test_trls_options_that_mix_examples_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    """Packing and padding-free rows hold several examples, dft is another loss, and offloading
    replaces the hooks that activations are kept by."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        sft_trainer(tmp_path, **option)


def chat_trainer(folder: Path, *, callbacks: Sequence[Any] = ()) -> Any:
    """TRL's trainer made private, on chats, with adapters that TRL adds itself."""
    trl = pytest.importorskip("trl")
    save_tiny_llama(folder / "base", words=[*WORDS, "user", "assistant"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    tokenizer.chat_template = CHAT

    class PrivateSFTTrainer(PrivateTrainer, trl.SFTTrainer):  # type: ignore[misc]
        pass

    chats = [
        {
            "messages": [
                {"role": "user", "content": "the film was"},
                {"role": "assistant", "content": f"very {word}"},
            ]
        }
        for word in WORDS
    ]
    held_out = [
        {"messages": [{"role": "user", "content": "it"}, chat["messages"][-1]]} for chat in chats
    ]
    torch.manual_seed(0)
    return PrivateSFTTrainer(
        model=tiny_base("llama"),
        peft_config=LoraConfig(r=3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        processing_class=tokenizer,
        args=trl.SFTConfig(
            output_dir=str(folder / "run"),
            per_device_train_batch_size=5,
            num_train_epochs=2,
            learning_rate=1e-2,
            logging_steps=1,
            eval_strategy="epoch",
            save_strategy="epoch",
            assistant_only_loss=True,
            report_to=[],
            bf16=False,
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(chats),
        eval_dataset=Dataset.from_list(held_out[:3]),
        callbacks=list(callbacks),
        privacy=private(),
    )


def test_trls_chats_and_adapters_are_trained_measured_saved_and_resumed(tmp_path: Path) -> None:
    """`messages`, `peft_config=` and `eval_dataset` work as in TRL: the assistant's words alone are
    learned, each checkpoint carries its own statement, and a killed run ends as an unbroken one."""

    class Killed(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3:
                raise KeyboardInterrupt

    whole = chat_trainer(tmp_path / "whole")
    learned = [
        whole.processing_class.decode([i for i in labels if i != -100])
        for labels in whole.data_collator(list(whole.train_dataset))["labels"].tolist()
    ]
    assert learned == [f"very {word} </s>" for word in WORDS]
    start = trained(whole.model)
    whole.train()
    assert not torch.equal(trained(whole.model), start)
    for step in (2, 4):
        folder = tmp_path / f"whole/run/checkpoint-{step}"
        proof = json.loads((folder / "privacy.json").read_text())
        assert proof["guarantee"]["epsilon"] == "inf"
        assert "fixed seed" in proof["guarantee"]["void_because"][0]
        card = (folder / "README.md").read_text()
        assert card.count("# Privacy statement") == 1
        assert f"{step} of 4 planned" in card
    assert "# Privacy statement" in (tmp_path / "whole/run/README.md").read_text()
    logs = whole.state.log_history
    assert len([log["eval_loss"] for log in logs if "eval_loss" in log]) == 2
    told = {name for log in logs if "eval_loss" not in log for name in log}
    assert not {"loss", "grad_norm", "mean_token_accuracy", "entropy", "num_tokens"} & told
    assert {log.get("eval_num_tokens", 0) for log in logs} == {0}  # TRL's count of training tokens

    with pytest.raises(KeyboardInterrupt):
        chat_trainer(tmp_path / "broken", callbacks=[Killed()]).train()
    resumed = chat_trainer(tmp_path / "broken")
    assert resumed.train(resume_from_checkpoint=True).global_step == 4
    torch.testing.assert_close(trained(resumed.model), trained(whole.model), rtol=0, atol=0)


def test_trls_adapters_of_a_quantized_base_train(tmp_path: Path) -> None:
    """TRL makes them bf16, in which noise would be lost; they are held in float32 again."""
    trl = pytest.importorskip("trl")
    save_tiny_llama(tmp_path / "base", words=WORDS)
    base = load_base(model=str(tmp_path / "base"), quantization="nf4")

    class PrivateSFTTrainer(PrivateTrainer, trl.SFTTrainer):  # type: ignore[misc]
        pass

    run = PrivateSFTTrainer(
        model=base.model,
        peft_config=LoraConfig(r=3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        processing_class=base.tokenizer,
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "run"),
            per_device_train_batch_size=4,
            max_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([{"text": f"the film was {word}"} for word in WORDS]),
        privacy=private(max_grad_norm=1e-2),
    )
    adapters = [p for p in run.model.parameters() if p.requires_grad]
    assert {p.dtype for p in adapters} == {torch.float32}
    before = [p.detach().clone() for p in adapters]
    run.train()
    assert all(bool((p != old).any()) for p, old in zip(adapters, before, strict=True))


@pytest.mark.parametrize("name", ["DPO", "Reward"])
def test_trls_trainers_of_preferences_are_refused_for_what_they_are(
    tmp_path: Path, name: str
) -> None:
    """Not for the name of their loss, in a message that asks for the one they have."""
    trl = pytest.importorskip("trl")
    private_trainer = type("Private", (PrivateTrainer, getattr(trl, f"{name}Trainer")), {})
    options = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}
    with pytest.raises(ConfigurationError, match=f"{name}Trainer learns from preferences.*losses="):
        private_trainer(
            model=tiny_model("llama"),
            args=getattr(trl, f"{name}Config")(**options),
            train_dataset=Dataset.from_list([{"chosen": "a", "rejected": "b"}]),
            privacy=private(),
        )


def test_how_many_rows_the_patients_have_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TRL's bars count rows, which is private where a unit has several; they stay away then."""
    sft_trainer(tmp_path / "examples")
    assert "10/10" in capsys.readouterr().err
    run = sft_trainer(
        tmp_path / "patients", units=torch.arange(5).repeat(2), privacy=private(unit="patient")
    )
    shown = capsys.readouterr()
    assert run.plan.dataset_size == 5
    assert "10/10" not in shown.out + shown.err
    run.train()
    shown = capsys.readouterr()
    assert not re.search(r"\b10\b", shown.out + shown.err)
