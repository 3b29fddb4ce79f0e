"""One micro-batch of a model without weights: the engine's own code, on shapes."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from dpacc.layers.gradient_buffer import GradientBuffer, KeptGradients, Slot
from dpacc.losses.per_example import states_before
from dpacc.losses.token_losses import projected_cross_entropy, token_cross_entropy
from dpacc.plan import PrivacyPlan
from dpacc.planning.live_memory import LiveMemory, equal_runs_once, fused_attention
from dpacc.planning.skeleton import Skeleton
from dpacc.step.accumulation import ClippedSum
from dpacc.step.strategies import Ghost, Materialize

Strategy = Literal["materialize", "ghost"]
_META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class MicroBatchCost:
    """What one micro-batch takes beside the model and its optimizer.

    Attributes:
        peak: the most bytes alive at once, the clipped sum and the gradients that are kept among
            them.
        activations: of that, what the forward left for the backward.
        losses: of that, logits and losses.
        gradients: of that, per-example gradients that are kept; none under ghost.
        working: of that, what the backward works with.
        clipped_sum: of that, the flat sum of a logical step.
        operations: floating-point operations of all matrix products.
    """

    peak: int
    activations: int
    losses: int
    gradients: int
    working: int
    clipped_sum: int
    operations: int


def cost_of_micro_batch(
    *,
    skeleton: Skeleton,
    plan: PrivacyPlan,
    strategy: Strategy | Literal["probe"],
    examples: int,
    tokens: int,
    sequences: int = 1,
) -> MicroBatchCost:
    """Run `examples` × `tokens` forward, and backward through the engine's strategy, on shapes.

    The model, its attention and its loss decide what is kept; nothing is assumed about them but
    that attention is fused where it calls torch's, and that every token is learned.

    Args:
        skeleton: the model.
        plan: how gradients are clipped and added.
        strategy: one pass or two; or the coupling probe, which keeps one example's gradient.
        examples: privacy units of one example each.
        tokens: padded tokens of each of their sequences.
        sequences: of each example; a preference pair has two.
    """
    live = LiveMemory()
    live.ignore(iter([*skeleton.model.parameters(), *skeleton.model.buffers()]))
    with live, fused_attention(live), equal_runs_once(live):
        with live.purpose("clipped sum"):
            total = ClippedSum(
                plan=plan, layout=skeleton.buffer.layout, max_grad_norm=1.0, device=_META
            )
            if strategy != "probe":
                total.total.zero_()  # all micro-batches but a step's first find it there
        skeleton.buffer.expect(examples, sequences=sequences)
        losses = _losses(skeleton.model, live, examples * sequences, tokens)
        losses = losses.view(examples, sequences).sum(dim=1)
        with live.purpose("working"):
            if strategy == "probe":
                Materialize(skeleton.buffer, _backward, _META).first(losses)
            else:
                _strategy(strategy, skeleton.buffer, live).add(losses, None, total)
    return MicroBatchCost(
        peak=live.peak,
        activations=live.at_peak["activations"],
        losses=live.at_peak["losses"],
        gradients=live.at_peak["gradients"],
        working=live.at_peak["working"],
        clipped_sum=live.at_peak["clipped sum"],
        operations=live.operations,
    )


def _strategy(asked: Strategy, buffer: GradientBuffer, live: LiveMemory) -> Ghost | Materialize:
    if asked == "ghost":
        return Ghost(buffer, _backward, _META)

    class Counted(KeptGradients):
        def take(self, slot: Slot, block: Tensor) -> None:
            super().take(slot, block)
            live.rename(self.blocks[slot], "gradients")

    return Materialize(buffer, _backward, _META, keep=Counted)


def _backward(loss: Tensor, keep_graph: bool) -> None:
    loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]


def _losses(model: nn.Module, live: LiveMemory, examples: int, tokens: int) -> Tensor:
    """Per-example losses as `causal_lm_losses` computes them where every token is learned.

    A classifier's logits are few, and so are its losses.
    """
    head: nn.Module | None = model.get_output_embeddings()  # type: ignore[operator]
    if head is None:
        with live.purpose("activations"):
            logits: Tensor = model(**_inputs(model, examples, tokens)).logits
        return logits.float().flatten(1).sum(dim=1)
    with live.purpose("activations"):
        inputs = _inputs(model, examples, tokens)
        states = states_before(head=head, model=model, inputs=inputs).flatten(0, 1).clone()
    targets = torch.zeros(examples * tokens, dtype=torch.long, device=_META)
    with live.purpose("losses"):
        if isinstance(head, nn.Linear) and not any(p.requires_grad for p in head.parameters()):
            losses = projected_cross_entropy(states, head.weight, head.bias, targets)
        else:
            losses = token_cross_entropy(head(states), targets)
        return losses.view(examples, tokens).sum(dim=1) / tokens


def _inputs(model: nn.Module, examples: int, tokens: int) -> dict[str, Tensor]:
    """A padded batch: transformers looks into no mask of this shape, for it has no contents."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator]
    known = inspect.signature(base.forward).parameters
    ids = torch.zeros(examples, tokens, dtype=torch.long, device=_META)
    mask = torch.ones(examples, 1, tokens, tokens, dtype=torch.bool, device=_META)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": torch.zeros_like(ids)}
    return {name: value for name, value in given.items() if name in known}
