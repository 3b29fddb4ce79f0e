"""A pair of answers is one example of two rows: clipped whole, and owing nothing to other pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from dpacc import PrivacyEngine
from dpacc.errors import PrivacyError
from dpacc.layers.adapters import attach_gradient_buffer
from dpacc.layers.frozen_activations import FrozenActivations
from dpacc.losses.preferences import PairScores, kto_losses, pair_loss, preference_losses
from dpacc.recipe.models import add_lora
from dpacc.step.strategies import Ghost, Materialize, Strategy
from tests.dpacc.layers.test_adapters import backward
from tests.dpacc.step.engine_runs import RecordingOptimizer, noiseless
from tests.dpacc.step.test_strategies import CPU, empty_sum
from tests.tiny_models import set_upper_factors, tiny_base, tiny_model, with_lora
from tests.tiny_pairs import LENGTHS, collate_pairs, loop_over_pairs, pairs

BETA = 0.3


def ratios(both: Tensor, pair: dict[str, Any]) -> tuple[Tensor, Tensor]:
    return both[0] - pair["reference_chosen"], both[1] - pair["reference_rejected"]


def tokens(pair: dict[str, Any]) -> list[int]:
    split = pair["sequence_ids"].index(1)
    return [sum(x >= 0 for x in part) for part in (pair["labels"][:split], pair["labels"][split:])]


def averages(both: Tensor, pair: dict[str, Any]) -> Tensor:
    return both / torch.tensor(tokens(pair))


def odds(average: Tensor) -> Tensor:
    return torch.exp(average) / (1 - torch.exp(average))


def ipo(both: Tensor, pair: dict[str, Any]) -> Tensor:
    (won, lost), (n, m) = ratios(both, pair), tokens(pair)
    return (won / n - lost / m - 1 / (2 * BETA)) ** 2


def kto(both: Tensor, pair: dict[str, Any]) -> Tensor:
    won, lost = ratios(both, pair)
    return 0.5 * (1 - torch.sigmoid(BETA * won)) + 0.5 * (1 - torch.sigmoid(-BETA * lost))


def orpo(both: Tensor, pair: dict[str, Any]) -> Tensor:
    won, lost = averages(both, pair)
    return -won - BETA * torch.log(torch.sigmoid(torch.log(odds(won) / odds(lost))))


BY_HAND: dict[str, Callable[[Tensor, dict[str, Any]], Tensor]] = {
    "dpo": lambda both, pair: -F.logsigmoid(BETA * torch.sub(*ratios(both, pair))),
    "ipo": ipo,
    "simpo": lambda both, pair: -F.logsigmoid(BETA * torch.sub(*averages(both, pair)) - 1.0),
    "kto": kto,
    "orpo": orpo,
}


def rows_of(model: nn.Module, name: str, data: list[Any]) -> Tensor:
    """Every pair's gradient in one backward of one micro-batch."""
    buffer = attach_gradient_buffer(model)
    buffer.expect(len(data), sequences=2)
    losses = preference_losses(model, collate_pairs(data), loss=pair_loss(name, beta=BETA))
    return Materialize(buffer, backward, CPU).rows(losses)


def sum_of_pairs(model: nn.Module, kind: type[Strategy], plan: Any, owners: Any = None) -> Tensor:
    buffer = attach_gradient_buffer(model)
    total = empty_sum(buffer, plan)
    buffer.expect(len(pairs()), sequences=2)
    losses = preference_losses(model, collate_pairs(pairs()))
    kind(buffer, backward, CPU).add(losses, owners, total)
    return total.total


@pytest.mark.parametrize(
    ("family", "name"), [("llama", name) for name in BY_HAND] + [("gpt2", "dpo"), ("opt", "dpo")]
)
def test_a_pairs_gradient_is_that_of_a_loop_over_pairs(family: str, name: str) -> None:
    """Of pairs of all lengths in one micro-batch, as torch.autograd has it of each alone."""
    expected = loop_over_pairs(tiny_model(family), pairs(), BY_HAND[name])
    assert (expected.norm(dim=1) > 0).all()
    found = rows_of(tiny_model(family), name, pairs())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_trained_embeddings_and_norms_sum_over_both_answers(tmp_path: Path) -> None:
    """Word and position embeddings, LayerNorms and a bias beside adapters: as the loop has it."""

    def trained() -> nn.Module:
        model = tiny_model("gpt2").eval()
        for part in ("wte", "wpe", "ln_1"):
            for name, parameter in model.named_parameters():
                if f".{part}." in name and "lora" not in name:
                    parameter.requires_grad_(True)
        return model

    expected = loop_over_pairs(trained(), pairs(), BY_HAND["dpo"])
    found = rows_of(trained(), "dpo", pairs())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", [Materialize, Ghost])
def test_a_pair_is_clipped_whole(kind: type[Strategy]) -> None:
    """One norm for both of its rows together, by either strategy; and an author's pairs as one."""
    rows = loop_over_pairs(tiny_model("llama"), pairs(), partial(dpo_at, beta=0.1))
    plan = noiseless(len(rows), max_grad_norm=float(rows.norm(dim=1).median()))

    def clipped(units: Tensor) -> Tensor:
        return (units * (plan.max_grad_norm / units.norm(dim=1, keepdim=True)).clamp(max=1)).sum(0)

    found = sum_of_pairs(tiny_model("llama"), kind, plan)
    torch.testing.assert_close(found, clipped(rows), rtol=1e-4, atol=1e-6)
    owners = torch.tensor([0, 1, 0, 2, 2, 0])
    means = torch.stack([rows[owners == unit].mean(dim=0) for unit in range(3)])
    found = sum_of_pairs(tiny_model("llama"), kind, plan, owners)
    torch.testing.assert_close(found, clipped(means), rtol=1e-4, atol=1e-6)


def dpo_at(both: Tensor, pair: dict[str, Any], *, beta: float) -> Tensor:
    return -F.logsigmoid(beta * torch.sub(*ratios(both, pair)))


def released(
    folder: Path,
    *,
    losses: Callable[[nn.Module, Any], Tensor] = preference_losses,
    model: nn.Module | None = None,
    tokens: int = 4096,
    data: list[Any] | None = None,
    cached: bool = False,
) -> Tensor:
    """The noiseless sums of two steps that take every pair, through the engine and its probe."""
    data = pairs() if data is None else data
    plan = noiseless(len(data), steps=2)
    model = model or tiny_model("llama")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan,
        ledger=folder / f"{tokens}-{cached}.jsonl",
        micro_batch_tokens=tokens,
        fixed_seed=3,
    )
    model, _ = engine.prepare(model, optimizer)
    collate: Any = collate_pairs
    frozen = None
    if cached:
        frozen = FrozenActivations(
            model=model,
            examples=data,
            collate=collate,
            accelerator=engine.accelerator,
            folder=folder,
        )
        data, collate = frozen.examples, frozen.collate
    for step in engine.steps(data, collate):
        for batch in step:
            assert not cached or step.made_up or "frozen_states" in batch
            step.backward(losses(model, batch))
        step.update()
    engine.close()
    if frozen is not None:
        frozen.close()
    return torch.stack(optimizer.received) * plan.expected_batch_size


def test_the_probe_passes_and_the_sum_is_the_loops_whatever_the_cut(tmp_path: Path) -> None:
    """Invented pairs are made up from the fields; one pair a micro-batch, or all of them."""
    rows = loop_over_pairs(tiny_model("llama"), pairs(), partial(dpo_at, beta=0.1))
    bound = noiseless(1).max_grad_norm
    expected = (rows * (bound / rows.norm(dim=1, keepdim=True)).clamp(max=1)).sum(dim=0)
    for tokens in (4096, 60, 1):
        found = released(tmp_path, tokens=tokens)
        torch.testing.assert_close(found, expected.expand(2, -1), rtol=1e-4, atol=1e-6)


def test_what_drops_out_of_a_pair_is_the_pairs_own(tmp_path: Path) -> None:
    """With dropout before adapters, alone or among others, it adds the same to the sum."""
    dropping = partial(with_lora, family="llama", lora_dropout=0.3)
    together, alone = (
        released(tmp_path, tokens=tokens, model=dropping(tiny_base("llama")))
        for tokens in (4096, 1)
    )
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together, released(tmp_path, tokens=50), rtol=1e-2)


def test_frozen_layers_run_once_for_both_answers(tmp_path: Path) -> None:
    """Cached activations of the layers beneath the adapters give the same sums."""

    def top() -> nn.Module:
        model = add_lora(model=tiny_base("llama"), rank=2, alpha=4, top_layers=1).train()
        set_upper_factors(model)
        return model

    plain = released(tmp_path, model=top())
    assert plain.norm() > 0
    torch.testing.assert_close(released(tmp_path, model=top(), cached=True), plain)


def ktos_usual_reference_point(scores: PairScores) -> Tensor:
    """KTO as its paper has it: z₀ from the log-ratios of the batch, without a gradient."""
    both = torch.cat(scores.log_ratios)
    return kto_losses(scores, reference_point=both.mean().clamp(min=0).detach())  # type: ignore[arg-type]


def anothers_rejected(scores: PairScores) -> Tensor:
    """DPO against the answer that the next pair rejected."""
    won, lost = scores.log_ratios
    return -F.logsigmoid(0.1 * (won - lost.roll(1)))


def sorted_ratios(scores: PairScores) -> Tensor:
    """AOT: both answers' log-ratios sorted over the batch before they are compared."""
    won, lost = (each.sort().values for each in scores.log_ratios)
    return -F.logsigmoid(0.1 * (won - lost))


def relative_margin(scores: PairScores) -> Tensor:
    """A pair's margin beside the batch's mean margin."""
    won, lost = scores.log_ratios
    return -F.logsigmoid(0.1 * (won - lost - (won - lost).mean().detach()))


def rows_in_trls_order(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """All chosen answers before all rejected ones, so that rows 2i and 2i + 1 are of two pairs."""
    turned = {n: v.transpose(0, 1).flatten(0, 1) for n, v in batch.items() if v.ndim == 3}
    labels = turned.pop("labels")
    scores = F.log_softmax(model(**turned).logits[:, :-1], dim=-1)
    targets = labels[:, 1:]
    found = scores.gather(2, targets.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (targets >= 0)
    chosen, rejected = found.sum(dim=1).chunk(2)
    return -F.logsigmoid(0.1 * (chosen - rejected))


COUPLED: dict[str, Any] = {
    "KTO's z₀ of the batch": partial(preference_losses, loss=ktos_usual_reference_point),
    "another's rejected": partial(preference_losses, loss=anothers_rejected),
    "sorted": partial(preference_losses, loss=sorted_ratios),
    "mean margin": partial(preference_losses, loss=relative_margin),
    "rows in TRL's order": rows_in_trls_order,
}


@pytest.mark.parametrize("name", list(COUPLED))
def test_losses_that_read_another_pair_are_refused_by_the_probe(name: str, tmp_path: Path) -> None:
    """A batch's reference point, mean or order, and rows of two pairs taken for one."""
    with pytest.raises(PrivacyError, match="example"):
        released(tmp_path, losses=COUPLED[name])
    assert len(LENGTHS) == 6
