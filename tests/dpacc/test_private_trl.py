"""TRL's SFTTrainer is made private by mixing the private trainer in before it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer

from dpacc import PrivateTrainer
from dpacc.errors import ConfigurationError
from tests.dpacc.test_engine import RecordingOptimizer, received
from tests.dpacc.test_private_trainer import private
from tests.tiny_models import save_tiny_llama, tiny_model


def sft_trainer(folder: Path, **changes: Any) -> Any:
    """TRL's trainer made private, on prompts and completions, with an optimizer that records."""
    trl = pytest.importorskip("trl")
    words = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
    save_tiny_llama(folder / "base", words=words)

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
            [{"prompt": "the film was", "completion": f" {word}"} for word in words]
        ),
        privacy=private(max_grad_norm=1e-2),
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
    "option", [{"packing": True}, {"padding_free": True}, {"loss_type": "dft"}]
)
def test_trls_options_that_join_examples_are_refused(
    tmp_path: Path, option: dict[str, Any]
) -> None:
    """Packing and padding-free rows hold several examples; dft is another loss."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        sft_trainer(tmp_path, **option)
