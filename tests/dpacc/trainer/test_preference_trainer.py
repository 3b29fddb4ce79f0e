"""TRL's DPOTrainer is made private by mixing the preference trainer in before it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer

from dpacc import PrivatePreferenceTrainer, PrivateTrainer
from dpacc.errors import ConfigurationError
from dpacc.losses.preferences import preference_losses, simpo_losses
from dpacc.trainer.preference_trainer import as_pair, loss_of
from tests.dpacc.losses.test_preferences import SCORES, sigma
from tests.dpacc.step.test_averaging import trained
from tests.dpacc.trainer.test_private_trainer import private
from tests.tiny_models import save_tiny_llama, tiny_base, tiny_model
from tests.tiny_pairs import loop_over_pairs

WORDS = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
PAIRS = [
    {"prompt": "the film was", "chosen": f" {word} {word}", "rejected": f" not {word}"}
    for word in WORDS
]
HELD_OUT = [{"prompt": "it was", "chosen": " good", "rejected": " bad"}]

trl = pytest.importorskip("trl")


class PrivateDPOTrainer(PrivatePreferenceTrainer, trl.DPOTrainer):  # type: ignore[misc]
    """As a user writes it."""


def config(folder: Path, **changes: Any) -> Any:
    plain: dict[str, Any] = {
        "output_dir": str(folder / "run"),
        "per_device_train_batch_size": 10,
        "max_steps": 2,
        "beta": 0.3,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "bf16": False,
        "use_cpu": True,
        "disable_tqdm": True,
        "gradient_checkpointing": False,
    }
    return trl.DPOConfig(**plain | changes)


def dpo_trainer(folder: Path, *, data: Any = PAIRS, **changes: Any) -> Any:
    save_tiny_llama(folder / "base", words=WORDS)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    given = {name: changes.pop(name) for name in ("units", "privacy", "losses") if name in changes}
    torch.manual_seed(0)
    return PrivateDPOTrainer(
        model=tiny_base("llama"),
        peft_config=LoraConfig(r=3, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
        processing_class=tokenizer,
        args=config(folder, **changes),
        train_dataset=Dataset.from_list(data),
        eval_dataset=Dataset.from_list(HELD_OUT),
        **{"privacy": private(), **given},
    )


def test_trls_trainer_learns_pairs_by_the_loops_gradients(tmp_path: Path) -> None:
    """On TRL's own prepared pairs: what a loop over pairs clips, summed; saved with a statement."""
    run = dpo_trainer(
        tmp_path,
        privacy=private(noise_multiplier=1e-6, max_grad_norm=1e-2),
        learning_rate=1.0,
        optim="sgd",
        lr_scheduler_type="constant",
        max_steps=1,
        eval_strategy="steps",
    )
    data = [
        as_pair(each, max_length=run.args.max_length, truncation_mode="keep_start")
        for each in run.train_dataset
    ]

    def dpo(both: torch.Tensor, pair: dict[str, Any]) -> torch.Tensor:
        # Before training a model is its own reference.
        return -torch.nn.functional.logsigmoid(0.3 * torch.sub(*(both - both.detach())))

    rows = loop_over_pairs(run.model, data, dpo)
    norms = rows.norm(dim=1, keepdim=True)
    expected = (rows * (1e-2 / norms).clamp(max=1)).sum(dim=0) / 10
    start = trained(run.model)
    run.train()
    moved = start - trained(run.model)
    assert moved.norm() > 0
    torch.testing.assert_close(moved, expected, rtol=1e-3, atol=1e-6)
    logged = set().union(*run.state.log_history)
    assert {"epsilon", "eval_rewards/accuracies", "eval_rewards/margins"} <= logged
    assert not {"loss", "rewards/accuracies", "rewards/margins", "logps/chosen"} & logged
    run.save_model()
    proof = json.loads((tmp_path / "run/privacy.json").read_text())
    assert proof["guarantee"]["void_because"]


def test_authors_are_units_and_pairs_are_cut_as_trl_cuts_them(tmp_path: Path) -> None:
    """Five owners of two pairs each; either end may be kept, and a pair stays one."""
    run = dpo_trainer(
        tmp_path,
        units=torch.arange(5).repeat(2),
        privacy=private(unit="author"),
        per_device_train_batch_size=5,
        max_length=4,
        truncation_mode="keep_end",
    )
    assert run.plan.dataset_size == 5
    pair = as_pair(run.train_dataset[0], max_length=4, truncation_mode="keep_end")
    assert len(pair["input_ids"]) == 8
    assert pair["labels"][3] == pair["input_ids"][3]
    assert run.train().global_step == 2


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ({"precompute_ref_log_probs": True}, "precompute_ref_log_probs.*cache file"),
        ({"sync_ref_model": True}, "sync_ref_model.*asked once"),
        ({"loss_type": "aot"}, "loss_type='aot' sorts"),
        ({"loss_type": "aot_unpaired"}, "loss_type='aot_unpaired' sorts"),
        ({"loss_type": "sft"}, "loss_type='sft' divides"),
        ({"loss_type": "bco_pair"}, "loss_type='bco_pair' is no loss of one pair"),
        ({"loss_type": ["sigmoid", "ipo"]}, r"loss_type='sigmoid\+ipo'"),
        ({"loss_type": ["sigmoid", "ipo"], "loss_weights": [1.0, 0.5]}, "loss_weights"),
        ({"ld_alpha": 0.5}, "ld_alpha"),
        ({"f_divergence_type": "js_divergence"}, "f_divergence_type"),
        ({"use_weighting": True}, "use_weighting"),
        ({"label_smoothing": 0.1}, "label_smoothing=0.1.*robust"),
        ({"router_aux_loss_coef": 0.1}, "router_aux_loss_coef.*mixes"),
        ({"padding_free": True}, "padding_free"),
        ({"use_liger_kernel": True}, "use_liger_kernel"),
        ({"activation_offloading": True}, "activation_offloading"),
    ],
)
def test_options_that_couple_pairs_are_refused_by_name(
    option: dict[str, Any], named: str, tmp_path: Path
) -> None:
    """Before any data is read, each with what to do instead."""
    with pytest.raises(ConfigurationError, match=named):
        PrivateDPOTrainer(
            model=tiny_model("llama"),
            args=config(tmp_path, **option),
            train_dataset=Dataset.from_list(PAIRS),
            privacy=private(),
        )


def test_each_loss_type_is_its_loss(tmp_path: Path) -> None:
    """robust takes its smoothing; apo_zero is KTO's at 0; what is given replaces them all."""
    args = config(tmp_path, beta=0.1, loss_type="robust", label_smoothing=0.2)
    assert loss_of(args).keywords == {"beta": 0.1, "label_smoothing": 0.2, "robust": True}  # type: ignore[attr-defined]
    apo_zero = loss_of(config(tmp_path, loss_type="apo_zero"))
    # r_w = 0.5 and r_l = -1.5, at beta 0.3.
    assert apo_zero(SCORES).item() == pytest.approx(1 - sigma(0.15) + sigma(-0.45))
    own = partial(preference_losses, loss=simpo_losses)
    assert dpo_trainer(tmp_path, loss_type="aot", losses=own)._given_losses is own


def test_a_second_model_and_a_trained_start_are_no_reference(tmp_path: Path) -> None:
    """The reference is the base with its adapters switched off, and nothing else."""
    plain: dict[str, Any] = {
        "args": config(tmp_path),
        "train_dataset": Dataset.from_list(PAIRS),
        "privacy": private(),
    }
    with pytest.raises(ConfigurationError, match="ref_model is a second model"):
        PrivateDPOTrainer(model=tiny_model("llama"), ref_model=tiny_base("llama"), **plain)
    save_tiny_llama(tmp_path / "base", words=WORDS)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "base")
    with pytest.raises(ConfigurationError, match=r"trained adapter.*merge"):
        PrivateDPOTrainer(model=tiny_model("llama"), processing_class=tokenizer, **plain)


def test_a_private_answer_may_not_be_evaluated_in_another_pair(tmp_path: Path) -> None:
    """Beside another rejected answer it is the same text of the same person."""
    run = dpo_trainer(tmp_path, data=[*PAIRS, {**HELD_OUT[0], "rejected": " a film"}])
    with pytest.raises(ConfigurationError, match="1 of its examples stand in the private"):
        run.train()


@pytest.mark.parametrize("name", ["GRPO", "RLOO"])
def test_rollouts_on_private_prompts_are_refused(name: str, tmp_path: Path) -> None:
    """With losses= too: what is sampled follows other prompts' rewards, and is drawn again."""
    made = type("Private", (PrivateTrainer, getattr(trl, f"{name}Trainer")), {})
    options = {"output_dir": str(tmp_path), "report_to": [], "use_cpu": True, "bf16": False}
    with pytest.raises(
        ConfigurationError, match=rf"{name}Trainer samples answers.*another account"
    ):
        made(
            model=tiny_model("llama"),
            args=getattr(trl, f"{name}Config")(**options),
            train_dataset=Dataset.from_list([{"prompt": "a"}]),
            reward_funcs=lambda **_: [0.0],
            losses=lambda model, batch: batch,
            privacy=private(),
        )


def test_trls_kto_is_refused_for_its_reference_point(tmp_path: Path) -> None:
    """It is estimated from the batch; the loss with a public one is named."""
    made = type("Private", (PrivateTrainer, trl.KTOTrainer), {})
    with pytest.raises(ConfigurationError, match=r"KTOTrainer.*reference point.*apo_zero"):
        made(
            model=tiny_model("llama"),
            args=trl.KTOConfig(str(tmp_path), report_to=[], use_cpu=True, bf16=False),
            train_dataset=Dataset.from_list([{"prompt": "a", "completion": "b", "label": True}]),
            privacy=private(),
        )
