"""What would break a Trainer's guarantee is refused by name, before any example is read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import ParallelismConfig
from transformers import EarlyStoppingCallback

from dpacc import PrivateTrainer
from dpacc.errors import ConfigurationError
from tests.dpacc.trainer.test_private_trainer import HELD_OUT, PRIVATE, arguments, private, trainer
from tests.tiny_models import tiny_model


class Untouched(list[Any]):
    """A data set that may be counted and not read."""

    def __getitem__(self, index: Any) -> Any:
        raise AssertionError("data was read")

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("data was read")


UNTOUCHED = Untouched(range(10))


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"max_grad_norm": 0.5}, r"PrivacyArguments\(max_grad_norm"),
        ({"auto_find_batch_size": True}, "per_device_train_batch_size"),
        ({"train_sampling_strategy": "group_by_length"}, "train_sampling_strategy"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor"),
        ({"neftune_noise_alpha": 5.0}, "neftune_noise_alpha"),
        ({"use_liger_kernel": True}, "use_liger_kernel"),
        ({"torch_compile": True}, "torch_compile"),
        ({"include_num_input_tokens_seen": "all"}, "include_num_input_tokens_seen"),
        ({"skip_memory_metrics": False}, "skip_memory_metrics"),
        ({"debug": "underflow_overflow"}, "debug"),
        ({"trackio_space_id": "me/runs"}, "trackio sync"),
        ({"optim": "adalomo"}, "adamw_torch"),
        ({"optim": "galore_adamw_layerwise", "optim_target_modules": ["q_proj"]}, "adamw_torch"),
        ({"parallelism_config": ParallelismConfig(tp_size=1)}, "data parallel ranks"),
        (
            {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
            "follows steps",
        ),
        ({"lr_scheduler_type": "greedy", "eval_strategy": "epoch"}, "follows steps"),
        (
            {"load_best_model_at_end": True, "save_strategy": "epoch", "eval_strategy": "epoch"},
            "eval_data_is_public",
        ),
        (
            {
                "save_strategy": "best",
                "eval_strategy": "epoch",
                "metric_for_best_model": "eval_loss",
            },
            "save_strategy='best'.*eval_data_is_public",
        ),
        ({"callbacks": [EarlyStoppingCallback()]}, "eval_data_is_public"),
        ({"eval_dataset": UNTOUCHED}, "private train_dataset"),
        ({"eval_dataset": {"a": HELD_OUT, "b": UNTOUCHED}}, "private train_dataset"),
        ({"train_dataset": iter([1])}, "length"),
        ({"train_dataset": None}, "length"),
        ({"units": [0] * 10}, r"PrivacyArguments\(unit"),
        ({"privacy": private(unit="patient")}, "units="),
        ({"units": [0, 1, 2], "privacy": private(unit="patient")}, "fewer units than examples"),
        ({"privacy": private(average_iterates=-0.5)}, "share of the steps"),
        ({"privacy": private(noise_multiplier=None)}, "exactly one"),
        ({"privacy": private(target_epsilon=8.0)}, "exactly one"),
        ({"privacy": private(noise_multiplier=0.0)}, "no privacy"),
        ({"per_device_train_batch_size": 100}, "lower the batch size"),
    ],
)
def test_what_would_break_the_guarantee_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any], remedy: str
) -> None:
    """Before any example is read, with what to do instead; no ledger is begun."""
    with pytest.raises(ValueError, match=remedy):
        trainer(tmp_path / "run", **{"train_dataset": UNTOUCHED} | change)
    assert not (tmp_path / "run/ledger.jsonl").exists()


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("deepspeed", {"zero_optimization": {"stage": 2}}, "recipes/train.py"),
        ("fsdp", ["full_shard"], "recipes/train.py"),
        ("_n_gpu", 2, "one process drives 2 GPUs.*accelerate launch"),
    ],
)
def test_a_launch_that_cuts_models_or_shares_a_process_is_refused(
    tmp_path: Path, name: str, value: Any, remedy: str
) -> None:
    """DeepSpeed, FSDP, and several GPUs in a process; set late, so that this one stays as is."""
    args = arguments(tmp_path / "run")
    assert args.n_gpu <= 1
    setattr(args, name, value)
    with pytest.raises(ConfigurationError, match=remedy):
        PrivateTrainer(
            model=tiny_model("llama"), args=args, train_dataset=UNTOUCHED, privacy=private()
        )


def test_steering_that_comes_later_is_refused_too(tmp_path: Path) -> None:
    """A callback added after the trainer was made, or a scheduler of one's own that listens."""
    run = trainer(tmp_path / "run")
    run.add_callback(EarlyStoppingCallback())
    with pytest.raises(ConfigurationError, match="eval_data_is_public"):
        run.train()
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(ConfigurationError, match="follows a metric"):
        trainer(tmp_path / "run", optimizers=(optimizer, plateau))
    assert not (tmp_path / "run/ledger.jsonl").exists()


def test_what_does_no_harm_is_not_refused(tmp_path: Path) -> None:
    """Averaging of tokens over devices, and the default max_grad_norm, have nothing to act on."""
    run = trainer(tmp_path / "run", average_tokens_across_devices=True, max_steps=1)
    assert run.args.max_grad_norm == 1.0
    assert run.train().global_step == 1


def test_a_loss_of_ones_own_is_refused(tmp_path: Path) -> None:
    """compute_loss and compute_loss_func would be ignored, or mix examples."""

    class Own(PrivateTrainer):
        def compute_loss(self, *arguments: Any, **options: Any) -> Any:
            raise AssertionError

    given: dict[str, Any] = {
        "model": tiny_model("llama"),
        "args": arguments(tmp_path / "run"),
        "train_dataset": PRIVATE,
        "privacy": private(),
    }
    with pytest.raises(ConfigurationError, match="losses="):
        Own(**given)
    with pytest.raises(ConfigurationError, match="losses="):
        PrivateTrainer(**given, compute_loss_func=lambda *_: None)
    with pytest.raises(ConfigurationError, match="model="):
        PrivateTrainer(**given | {"model": None}, model_init=lambda: tiny_model("llama"))


def test_a_budget_is_spent_once(tmp_path: Path) -> None:
    """A second train(), a rerun in the same folder, and a search are refused with the remedy."""
    run = trainer(tmp_path / "run", max_steps=1)
    with pytest.raises(ConfigurationError, match="merge ledgers"):
        run.hyperparameter_search()
    run.train()
    with pytest.raises(ConfigurationError, match="new one"):
        run.train()
    with pytest.raises(ConfigurationError, match="resume_from_checkpoint=True"):
        trainer(tmp_path / "run", max_steps=1).train()


def test_only_the_end_of_the_ledger_can_be_resumed(tmp_path: Path) -> None:
    """An older checkpoint, or none, is refused: what was released cannot be taken back."""
    run = trainer(tmp_path / "run", save_strategy="steps", save_steps=2)
    run.train()
    again = trainer(tmp_path / "run", save_strategy="steps", save_steps=2)
    with pytest.raises(ConfigurationError, match="taken back"):
        again.train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    with pytest.raises(ConfigurationError, match="not the last"):
        trainer(tmp_path / "new").train(resume_from_checkpoint=True)
    assert again.train(resume_from_checkpoint=True).global_step == 6
