"""What is counted is what running everything would count; only the work is less."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from dpacc.losses import token_losses
from dpacc.plan import PrivacyPlan
from dpacc.planning import weightless_step
from dpacc.planning.known_outcomes import KnownOutcomes
from dpacc.planning.live_memory import LiveMemory, equal_runs_once
from dpacc.planning.skeleton import Skeleton, build_skeleton
from dpacc.planning.weightless_step import MicroBatchCost, Strategy, cost_of_micro_batch
from dpacc.recipe.config import TrainingConfig
from tests.tiny_models import CONFIGURATIONS

META = torch.device("meta")
PLAN = PrivacyPlan(
    dataset_size=8,
    expected_batch_size=8,
    steps=2,
    noise_multiplier=1.0,
    max_grad_norm=1.0,
    target_delta=1e-5,
)


def skeleton_of(family: str, **settings: object) -> Skeleton:
    config = TrainingConfig(
        model="tiny",
        train_data="none.jsonl",
        epsilon=8.0,
        expected_batch_size=8,
        steps=2,
        **settings,  # type: ignore[arg-type]
    )
    architecture = copy.deepcopy(CONFIGURATIONS[family])
    architecture.vocab_size = 5000
    return build_skeleton(config=config, architecture=architecture)


def cost(skeleton: Skeleton, strategy: Strategy, examples: int) -> MicroBatchCost:
    return cost_of_micro_batch(
        skeleton=skeleton, plan=PLAN, strategy=strategy, examples=examples, tokens=96
    )


@contextmanager
def every_run(live: LiveMemory) -> Iterator[None]:
    yield


def run_anew(_: KnownOutcomes, function: object, arguments: object, named: object) -> object:
    return function(*arguments, **named)  # type: ignore[operator,misc,dict-item]


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama", {"dtype": "float32"}),
        ("llama", {"dtype": "bfloat16", "gradient_checkpointing": True}),
        ("gpt_neox", {"dtype": "float32", "quantization": "nf4", "lora_dropout": 0.1}),
    ],
)
def test_a_cost_is_that_of_every_run_and_every_operation(
    monkeypatch: pytest.MonkeyPatch, strategy: Strategy, family: str, settings: dict[str, object]
) -> None:
    """Peak, parts and operations equal those where nothing stands for anything else.

    Of 16 and 17 examples of 96 tokens: whole runs of 256 or 512 tokens, and one that is shorter.
    """
    counts = (16, 17)
    skeleton = skeleton_of(family, **settings)
    found = [cost(skeleton, strategy, count) for count in counts]
    monkeypatch.setattr(weightless_step, "equal_runs_once", every_run)
    monkeypatch.setattr(KnownOutcomes, "of", run_anew)
    assert [cost(skeleton, strategy, count) for count in counts] == found


def test_a_cost_takes_no_more_operations_for_more_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand examples are as many operations on shapes as a hundred."""
    asked = []
    of = KnownOutcomes.of

    def counted(self: KnownOutcomes, *given: object) -> object:
        asked.append(given[0])
        return of(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(KnownOutcomes, "of", counted)
    skeleton = skeleton_of("llama", dtype="float32")
    numbers = []
    for count in (160, 1600):
        asked.clear()
        cost(skeleton, "ghost", count)
        numbers.append(len(asked))
    assert numbers[0] == numbers[1] > 0


@pytest.mark.parametrize("total", [1, 255, 256, 257, 512, 1023, 1024, 1025])
def test_the_runs_that_stand_for_all_count_for_all(total: int) -> None:
    """Tokens in runs of 256, each once or as often as it stands for others, are all of them."""
    with LiveMemory() as live, equal_runs_once(live):
        for rows in token_losses.runs(total=total, most=256):
            live.multiply(rows.stop - rows.start)
    assert live.operations == total
    assert [*token_losses.runs(total=total, most=256)][-1].stop == total


def test_outcomes_are_repeated_only_where_nothing_but_their_shape_matters() -> None:
    """New tensors are made again; views, real numbers, and other shapes or dtypes are run."""
    outcomes = KnownOutcomes()
    x = torch.zeros(2, 3, device=META)
    add, view = torch.ops.aten.add.Tensor, torch.ops.aten.view.default
    first, second = (outcomes.of(add, (x, x), {}) for _ in range(2))
    assert (second.shape, second.stride(), second.dtype) == (x.shape, x.stride(), x.dtype)
    assert second.untyped_storage()._cdata != first.untyped_storage()._cdata
    assert outcomes.of(add, (x, x.double()), {}).dtype == torch.float64
    assert outcomes.of(add, (x.t(), x.t()), {}).stride() == x.t().stride()
    for _ in range(2):
        seen = outcomes.of(view, (x, [6]), {})
        assert seen.untyped_storage()._cdata == x.untyped_storage()._cdata
    in_place = torch.ops.aten.mul_.Tensor
    assert all(outcomes.of(in_place, (x, 2), {}) is x for _ in range(2))
    real = torch.ones(2)
    for _ in range(2):
        outcomes.of(in_place, (real, 2), {})
    assert real.tolist() == [4, 4]


@pytest.mark.parametrize("strategy", ["materialize", "ghost"])
def test_offloaded_inputs_of_blocks_are_not_on_the_device(strategy: Strategy) -> None:
    """At its worst moment a device holds less by what enters the blocks, or all of them but one."""
    settings = {"dtype": "float32", "gradient_checkpointing": True}
    kept = cost(skeleton_of("llama", **settings), strategy, 16)
    left = cost(skeleton_of("llama", **settings, offload_activations=True), strategy, 16)
    config = CONFIGURATIONS["llama"]
    blocks, of_one = config.num_hidden_layers, 4 * 16 * 96 * config.hidden_size
    assert 0.99 * (blocks - 1) * of_one < kept.peak - left.peak <= blocks * of_one
    assert left.operations == kept.operations
