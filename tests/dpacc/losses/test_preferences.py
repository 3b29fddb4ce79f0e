"""Losses of preference pairs: the papers' formulas, TRL's numbers, and nobody else's pair."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from dpacc.errors import ConfigurationError
from dpacc.losses.preferences import (
    USUAL_BETA,
    WITHOUT_REFERENCE,
    PairScores,
    dpo_losses,
    ipo_losses,
    kto_losses,
    orpo_losses,
    pair_loss,
    preference_losses,
    reward_margins,
    simpo_losses,
)
from tests.tiny_models import tiny_model
from tests.tiny_pairs import collate_pairs, log_probabilities, pairs

NUMBERS = {
    "chosen": -7.0,
    "rejected": -9.5,
    "chosen_tokens": 3.0,
    "rejected_tokens": 4.0,
    "reference_chosen": -7.5,
    "reference_rejected": -8.0,
}
SCORES = PairScores(**{name: torch.tensor([value]) for name, value in NUMBERS.items()})


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_each_loss_is_its_papers_formula() -> None:
    """With r_w = 0.5, r_l = −1.5 and h = 2, in Python's own arithmetic."""
    won, lost, h = 0.5, -1.5, 2.0
    per_w, per_l = -7.0 / 3, -9.5 / 4
    odds = [math.exp(p) / (1 - math.exp(p)) for p in (per_w, per_l)]
    clean, flipped = -math.log(sigma(0.3 * h)), -math.log(sigma(-0.3 * h))
    expected = {
        "dpo": (dpo_losses(SCORES, beta=0.3), clean),
        "cdpo": (
            dpo_losses(SCORES, beta=0.3, label_smoothing=0.2),
            0.8 * clean + 0.2 * flipped,
        ),
        "robust": (
            dpo_losses(SCORES, beta=0.3, label_smoothing=0.2, robust=True),
            (0.8 * clean - 0.2 * flipped) / 0.6,
        ),
        "ipo": (ipo_losses(SCORES, beta=0.3), (won / 3 - lost / 4 - 1 / 0.6) ** 2),
        "simpo": (
            simpo_losses(SCORES, beta=2.0, gamma=0.7),
            -math.log(sigma(2.0 * (per_w - per_l) - 0.7)),
        ),
        "kto": (
            kto_losses(
                SCORES,
                beta=0.3,
                reference_point=0.4,
                desirable_weight=1.2,
                undesirable_weight=0.9,
            ),
            0.5 * (1.2 - 1.2 * sigma(0.3 * (won - 0.4)) + 0.9 - 0.9 * sigma(0.3 * (0.4 - lost))),
        ),
        "orpo": (
            orpo_losses(SCORES, beta=0.3),
            -per_w - 0.3 * math.log(sigma(math.log(odds[0] / odds[1]))),
        ),
        "margin": (reward_margins(SCORES, beta=0.3), 0.3 * h),
    }
    for name, (found, wanted) in expected.items():
        assert found.item() == pytest.approx(wanted, rel=1e-5), name


def trls_dpo(folder: Path, pair: dict[str, Any], loss_type: str, **options: Any) -> float:
    """What TRL's own trainer says of a batch of one pair, its adapters as they are."""
    trl = pytest.importorskip("trl")
    model = tiny_model("llama").eval()
    args = trl.DPOConfig(
        output_dir=str(folder),
        loss_type=loss_type,
        report_to=[],
        bf16=False,
        use_cpu=True,
        **options,
    )
    batch = trls_batch([pair])
    numbers = {f"ref_{name}_logps": torch.tensor([pair[f"reference_{name}"]]) for name in NAMES}
    stub = SimpleNamespace(
        **{name: getattr(args, name) for name in ("ld_alpha", "f_divergence_type", "beta")},
        **{name: getattr(args, name) for name in ("label_smoothing", "use_weighting")},
        f_alpha_divergence_coef=args.f_alpha_divergence_coef,
        args=args,
        loss_types=args.loss_type,
        loss_weights=[1.0],
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        model=model,
        accelerator=SimpleNamespace(
            device="cpu", gather_for_metrics=lambda x: x, gather=lambda x: x
        ),
        _metrics={"eval": defaultdict(list)},
        _total_train_tokens=0,
    )
    trl.trainer.dpo_trainer.add_fused_lm_head(
        model.get_base_model(), outputs=("log_probs", "entropy", "mean_logits", "is_top1")
    )
    with torch.no_grad():
        return float(trl.DPOTrainer._compute_loss(stub, model, batch | numbers, False))


NAMES = ("chosen", "rejected")


def trls_batch(data: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pairs as TRL lays them out: all chosen answers, then all rejected ones."""
    batch = collate_pairs(data)
    labels = batch["labels"].transpose(0, 1).flatten(0, 1)
    return {
        "input_ids": batch["input_ids"].transpose(0, 1).flatten(0, 1),
        "attention_mask": batch["attention_mask"].transpose(0, 1).flatten(0, 1),
        "completion_mask": (labels != -100).long(),
    }


@pytest.mark.parametrize(
    ("loss_type", "ours", "options"),
    [
        ("sigmoid", pair_loss("dpo", beta=0.2), {"beta": 0.2}),
        (
            "robust",
            pair_loss("dpo", beta=0.2, label_smoothing=0.1, robust=True),
            {"beta": 0.2, "label_smoothing": 0.1},
        ),
        ("ipo", pair_loss("ipo", beta=0.2), {"beta": 0.2}),
        ("apo_zero", lambda scores: 2 * kto_losses(scores, beta=0.2), {"beta": 0.2}),
    ],
)
def test_trls_trainer_has_the_same_number_for_a_pair_alone(
    loss_type: str, ours: Any, options: dict[str, Any], tmp_path: Path
) -> None:
    """DPO, robust DPO, IPO, and KTO at z₀ = 0, which is half of APO-zero."""
    model = tiny_model("llama").eval()
    for pair in pairs([(4, 6), (7, 2)]):
        found = preference_losses(model, collate_pairs([pair]), loss=ours).item()
        assert found == pytest.approx(trls_dpo(tmp_path, pair, loss_type, **options), rel=1e-5)


def test_trls_losses_without_a_reference_are_the_same() -> None:
    """SimPO in its trainer of CPO, and ORPO's odds in its own."""
    pytest.importorskip("trl")
    from trl.experimental.cpo import CPOTrainer
    from trl.experimental.orpo import ORPOTrainer

    chosen, rejected = SCORES.averages
    stub = SimpleNamespace(
        alpha=0.0,
        beta=2.0,
        loss_type="simpo",
        simpo_gamma=0.7,
        label_smoothing=0.0,
        accelerator=SimpleNamespace(device="cpu"),
    )
    theirs = CPOTrainer.cpo_loss(stub, chosen, rejected)[0]
    torch.testing.assert_close(simpo_losses(SCORES, beta=2.0, gamma=0.7), theirs)
    odds = ORPOTrainer.odds_ratio_loss(stub, chosen, rejected)[0]
    torch.testing.assert_close(orpo_losses(SCORES, beta=2.0), -chosen - odds)


def test_scores_are_the_log_probabilities_of_each_answer_alone() -> None:
    """In a batch of pairs of all lengths, what each answer has by itself."""
    model, data = tiny_model("llama").eval(), pairs()
    seen: list[PairScores] = []

    def keep(scores: PairScores) -> Tensor:
        seen.append(scores)
        return scores.chosen

    preference_losses(model, collate_pairs(data), loss=keep)
    alone = torch.stack([log_probabilities(model, pair) for pair in data])
    torch.testing.assert_close(torch.stack([seen[0].chosen, seen[0].rejected], 1), alone)
    assert seen[0].chosen_tokens.tolist() == [4, 2, 9, 5, 1, 7]


@pytest.mark.parametrize("name", list(USUAL_BETA))
def test_a_pair_without_a_token_to_learn_takes_part_with_loss_zero(name: str) -> None:
    """An answer that was cut away has neither loss nor gradient, and no NaN; others keep theirs."""
    model, data = tiny_model("llama"), pairs([(4, 3), (5, 6)])
    data[0]["labels"] = [-100] * len(data[0]["labels"])
    losses = preference_losses(model, collate_pairs(data), loss=pair_loss(name))
    alone = preference_losses(model, collate_pairs(data[1:]), loss=pair_loss(name))
    torch.testing.assert_close(losses[1:], alone)
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(losses[0], parameters)
    assert losses[0] == 0
    assert not any(bool(g.any()) for g in gradients)


def test_what_is_no_pair_is_refused_with_the_remedy() -> None:
    """A batch of single texts, no reference, an unknown loss, numbers out of range."""
    model, data = tiny_model("llama"), pairs([(4, 3)])
    batch = collate_pairs(data)
    bare = {name: value for name, value in batch.items() if "reference" not in name}
    with pytest.raises(ConfigurationError, match=r"labels have shape \(1, 14\).*joined"):
        preference_losses(model, {n: v.flatten(1) for n, v in batch.items() if v.ndim > 1})
    for name in set(USUAL_BETA) - WITHOUT_REFERENCE:
        with pytest.raises(ConfigurationError, match="with_reference"):
            preference_losses(model, bare, loss=pair_loss(name))
    for name in WITHOUT_REFERENCE:
        assert preference_losses(model, bare, loss=pair_loss(name)).isfinite().all()
    with pytest.raises(ConfigurationError, match=r"aot.*one of dpo, ipo"):
        pair_loss("aot")
    with pytest.raises(ConfigurationError, match="beta=0"):
        pair_loss("dpo", beta=0)
    with pytest.raises(ConfigurationError, match=r"label_smoothing=0.5.*\[0, 0.5\)"):
        dpo_losses(SCORES, label_smoothing=0.5)
