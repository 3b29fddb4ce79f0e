"""What a plain loop may not do is refused where it happens, with what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from dpacc_accounting import LedgerError, read_ledger
from torch.utils.data import DataLoader, WeightedRandomSampler

from dpacc import PrivacyEngine
from dpacc.errors import ConfigurationError, PrivacyError
from tests.dpacc.loops.test_drop_in import PlainRun, loader_of
from tests.dpacc.step.engine_runs import LENGTHS
from tests.tiny_models import collate, examples, tiny_model


def test_a_rate_that_moves_between_batches_is_refused(ledgers: Iterator[Path]) -> None:
    """A learning rate that counts batches would tell their number."""
    run = PlainRun(next(ledgers), lr=0.1)
    batches = iter(run.loader)
    run.train_on(next(batches))
    run.optimizer.zero_grad()
    run.model(**next(batches)).loss.backward()
    run.inner.param_groups[0]["lr"] = 0.05
    with pytest.raises(PrivacyError, match="scheduler="):
        run.optimizer.step()


def test_misuse_of_the_loop_is_refused_with_the_remedy(ledgers: Iterator[Path]) -> None:
    """Whatever would count an example twice, leave one out, or bypass clipping."""
    run = PlainRun(next(ledgers))
    batch = next(iter(run.loader))
    with pytest.raises(PrivacyError, match=r"loss\.backward"):
        run.optimizer.step()
    with pytest.raises(PrivacyError, match="handed out"):
        run.model(**collate(examples([4, 4], seed=8)))
    with pytest.raises(PrivacyError, match="by name"):
        run.model(batch["input_ids"])
    loss = run.model(**batch).loss
    with pytest.raises(PrivacyError, match="scaled"):
        (loss / 2).backward()
    with pytest.raises(PrivacyError, match="outside"):
        run.model(**batch).logits.sum().backward()
    loss = run.model(**batch).loss
    loss.backward(retain_graph=True)
    with pytest.raises(PrivacyError, match="second backward"):
        loss.backward()
    with pytest.raises(PrivacyError, match="leave"):
        run.optimizer.zero_grad()
    run.optimizer.step()
    with pytest.raises(PrivacyError, match="next batch"):
        run.optimizer.step()
    with pytest.raises(PrivacyError, match="next batch"):
        run.model(**batch)
    assert run.inner.received == []


def test_a_loss_of_an_earlier_batch_is_refused(ledgers: Iterator[Path]) -> None:
    """A forward that was kept for later would put examples into a step they did not join."""
    run = PlainRun(next(ledgers), max_physical_batch_size=1)
    batches = iter(run.loader)
    for _ in range(5):  # the probe's made-up ones
        run.train_on(next(batches))
    batch = next(batches)
    kept = run.model(**batch).loss
    run.train_on(batch)
    next(batches)
    run.optimizer.zero_grad()
    with pytest.raises(PrivacyError, match="earlier batch"):
        kept.backward()


def test_a_batch_may_not_be_passed_over(ledgers: Iterator[Path]) -> None:
    """`continue` before the backward, or after it without a step, stops the loader."""
    for backward in (False, True):
        batches = iter((run := PlainRun(next(ledgers))).loader)
        batch = next(batches)
        if backward:
            run.model(**batch).loss.backward()
        with pytest.raises(PrivacyError, match="out of turn"):
            next(batches)


def test_accumulating_over_batches_is_refused(ledgers: Iterator[Path]) -> None:
    """A loop that leaves out zero_grad means to accumulate, which the loader does already."""
    run = PlainRun(next(ledgers))
    batches = iter(run.loader)
    run.train_on(next(batches))
    loss = run.model(**next(batches)).loss
    with pytest.raises(PrivacyError, match="max_physical_batch_size"):
        loss.backward()


def test_a_gradient_from_elsewhere_is_refused(ledgers: Iterator[Path]) -> None:
    """A penalty on the weights, or a `.grad` set by hand, never reaches the optimizer."""
    run = PlainRun(next(ledgers))
    batch = next(iter(run.loader))
    weights = next(p for p in run.model.parameters() if p.requires_grad)
    with pytest.raises(PrivacyError, match="penalty"):
        (run.model(**batch).loss + weights.square().sum()).backward()
    run = PlainRun(next(ledgers))
    run.model(**next(iter(run.loader))).loss.backward()
    weights = next(p for p in run.model.parameters() if p.requires_grad)
    weights.grad = torch.ones_like(weights)
    with pytest.raises(PrivacyError, match="penalty"):
        run.optimizer.step()
    assert run.inner.received == []


def test_a_loop_that_is_left_in_the_middle_of_a_logical_batch_cannot_go_on(
    ledgers: Iterator[Path],
) -> None:
    """The examples that were drawn and not used would be left out by a choice of the loop."""
    run = PlainRun(next(ledgers), max_physical_batch_size=1)
    run.train_on(next(iter(run.loader)))
    with pytest.raises(PrivacyError, match=r"without step\.update"):
        next(iter(run.loader))


def test_evaluation_is_left_alone(ledgers: Iterator[Path]) -> None:
    """In evaluation mode the model's own loss comes back, on whatever data."""
    run = PlainRun(next(ledgers))
    run.model.eval()
    with torch.no_grad():
        outputs = run.model(**collate(examples([4, 4], seed=8)))
    assert not outputs.loss.requires_grad
    assert float(outputs.loss) > 0


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        ({"method": "qlora"}, "lora, ffa"),
        ({"max_physical_batch_size": 0}, "at least 1"),
        ({"average_iterates": 1.5}, "share of the steps"),
        ({"data_loader": DataLoader([1, 2], batch_size=None)}, "batch_size"),
        (
            {"data_loader": DataLoader([1, 2], sampler=WeightedRandomSampler([1.0, 1.0], 2))},
            "WeightedRandomSampler",
        ),
        ({"epochs": 1, "target_epsilon": -1.0}, "epsilon"),
    ],
)
def test_bad_arguments_fail_before_any_data_is_read(
    tmp_path: Path, change: dict[str, Any], remedy: str
) -> None:
    """The message has the remedy; the ledger was not begun and the data not touched."""

    class Untouched(list[Any]):
        def __getitem__(self, index: Any) -> Any:
            raise AssertionError("data was read")

    model = tiny_model("llama")
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        "data_loader": DataLoader(Untouched([0] * 10), batch_size=5, collate_fn=collate),
        "target_epsilon": 8.0,
        "target_delta": 1e-3,
        "max_grad_norm": 1.0,
        "epochs": 1,
    }
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    with pytest.raises(ValueError, match=remedy):
        engine.make_private_with_epsilon(**arguments | change)
    assert not (tmp_path / "ledger.jsonl").exists()


def test_an_engine_without_a_plan_says_what_to_call(tmp_path: Path) -> None:
    """Nothing works before make_private, and make_private works once."""
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="make_private"):
        engine.get_epsilon(1e-5)
    run = PlainRun(tmp_path / "other.jsonl")
    with pytest.raises(ConfigurationError, match="new PrivacyEngine"):
        run.engine.make_private_with_plan(
            model=run.model,
            optimizer=run.inner,
            data_loader=loader_of(examples(LENGTHS)),
            plan=run.plan,
        )


def stranger(folder: Path, called: str = "make_private_with_epsilon", **words: Any) -> str:
    """What the method `called` so says to words that it does not have, before it reads anything."""
    model = tiny_model("llama")
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        "data_loader": loader_of(examples(LENGTHS)),
        "target_delta": 1e-3,
        "max_grad_norm": 1.0,
        "epochs": 1,
    }
    ledger = folder / "ledger.jsonl"
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - its text is what is asked for
        getattr(PrivacyEngine(ledger=ledger), called)(**arguments | words)
    assert not ledger.exists()
    return str(refusal.value)


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({"unit_ids": [0] * 10}, "units="),
        ({"poisson_sampling": False}, "leave it out"),
        ({"module": None}, "model="),
        ({"criterion": None}, "losses="),
        ({"max_phisical_batch_size": 3}, "max_physical_batch_size="),
        ({"grad_sample_mode": "ghost"}, "per_example_gradients"),
        ({"noise_generator": None}, "leave it out"),
        ({"clipping": "per_layer"}, "'per-layer'"),
        ({"method": "FFA"}, "'ffa'"),
    ],
)
def test_no_keyword_is_swallowed(tmp_path: Path, words: dict[str, Any], remedy: str) -> None:
    """A word of another library, or a misspelt one, is refused by name with what was meant.

    Swallowed, `unit_ids` would give a guarantee for examples where one for patients was asked.
    """
    said = stranger(tmp_path, target_epsilon=8.0, **words)
    assert next(iter(words)) in said
    assert remedy in said
    said = stranger(tmp_path, "make_private", noise_multiplier=1.0, **words)
    assert remedy in said


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        ({}, "ledger='run/ledger.jsonl'"),
        ({"secure_mode": True}, "leave it out"),
        ({"accountant": "prv"}, "dpacc verify"),
        ({"ledger": "l.jsonl", "per_example_gradient": "ghost"}, "per_example_gradients="),
    ],
)
def test_an_engine_made_in_other_words_is_refused_in_one_line(
    words: dict[str, Any], remedy: str
) -> None:
    """What Opacus' engine takes, or none of what this one needs."""
    with pytest.raises(ConfigurationError, match=remedy):
        PrivacyEngine(**words)


def test_arguments_by_place_are_refused_with_their_names(tmp_path: Path) -> None:
    """Instead of a count of positional arguments."""
    engine: Any = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match=r"by name: model=, optimizer=, data_loader="):
        engine.make_private(tiny_model("llama"), None, None)


def test_a_prepared_loader_is_refused_by_what_it_is(tmp_path: Path) -> None:
    """Not by the batch size that accelerator.prepare took from it."""
    said = stranger(
        tmp_path,
        target_epsilon=8.0,
        data_loader=Accelerator(cpu=True).prepare(loader_of(examples(LENGTHS))),
    )
    assert "accelerator.prepare" in said
    assert "plain DataLoader" in said


def test_a_criterion_of_ones_own_is_pointed_to_losses(ledgers: Iterator[Path]) -> None:
    """Class weights or a focal loss, applied to logits, as is the habit elsewhere."""
    run = PlainRun(next(ledgers), family="bert", data=examples(LENGTHS, family="bert"))
    batch = dict(next(iter(run.loader)))
    labels = batch["labels"]
    with pytest.raises(PrivacyError, match="losses="):
        torch.nn.functional.cross_entropy(run.model(**batch).logits, labels).backward()
    del batch["labels"]
    with pytest.raises(PrivacyError, match="losses="):
        run.model(**batch)


@pytest.mark.parametrize("keeps", [False, True], ids=["without", "with checkpoints"])
def test_a_loop_that_is_started_again_does_not_begin_with_a_fresh_adapter(
    tmp_path: Path, keeps: bool
) -> None:
    """Its ledger would go on and its model begin anew: half of the budget, and nothing learned."""

    def started() -> PlainRun:
        torch.manual_seed(0)
        run = PlainRun(
            tmp_path / "ledger.jsonl",
            checkpoints=tmp_path / "checkpoints" if keeps else None,
            seed=None,
            lr=0.1,
        )
        for name, parameter in run.model.named_parameters():
            if "lora_B" in name:
                parameter.data.zero_()
        return run

    first = started()
    batches = iter(first.loader)
    while first.engine.steps_charged == 0:
        first.train_on(next(batches))
    first.engine.close()
    again = started()
    with pytest.raises(ConfigurationError, match="resume" if keeps else "is_trainable=True"):
        next(iter(again.loader))
    again.engine.close()
    assert len(read_ledger(path=tmp_path / "ledger.jsonl").releases) == 1


def test_a_cell_that_is_run_twice_is_told_of_itself(ledgers: Iterator[Path]) -> None:
    """The ledger is open in this process, so waiting for another one would never end."""
    ledger = next(ledgers)
    run = PlainRun(ledger)
    batch = next(iter(run.loader))
    again = PlainRun(ledger)
    with pytest.raises(LedgerError, match=r"this very process.*engine\.close\(\)"):
        next(iter(again.loader))
    run.engine.close()
    assert len(batch)
    next(iter(PlainRun(ledger).loader))
