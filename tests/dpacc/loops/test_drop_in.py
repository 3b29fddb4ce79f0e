"""The plain loop trains with the engine's own private gradients, and nothing else may happen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from dpacc_accounting import epsilon, read_ledger
from torch.utils.data import DataLoader
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    default_data_collator,
)

from dpacc import PrivacyEngine
from dpacc.errors import BudgetExhausted, ConfigurationError, PrivacyError
from dpacc.losses.per_example import classification_losses
from tests.dpacc.step.engine_runs import LENGTHS, RecordingOptimizer, plan_for, received
from tests.tiny_models import collate, examples, save_tiny_llama, tiny_model


def loader_of(data: list[Any], *, batch_size: int = 5, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_size=batch_size, shuffle=True, collate_fn=collate, **options)


class PlainRun:
    """A model, an optimizer that keeps what it is given, and a loader, made private."""

    def __init__(
        self,
        ledger: Path,
        *,
        family: str = "llama",
        data: list[Any] | None = None,
        seed: int | None = 3,
        checkpoints: Path | None = None,
        steps: int = 3,
        lr: float = 0.0,
        **loop: Any,
    ) -> None:
        data = examples(LENGTHS, family=family) if data is None else data
        self.plan = plan_for(len(data), expected_batch_size=5, steps=steps)
        model = tiny_model(family)
        self.inner = RecordingOptimizer([p for p in model.parameters() if p.requires_grad], lr=lr)
        self.engine = PrivacyEngine(ledger=ledger, fixed_seed=seed, checkpoints=checkpoints)
        if "scheduler" in loop:
            loop["scheduler"] = loop["scheduler"](self.inner)
        self.model, self.optimizer, self.loader = self.engine.make_private_with_plan(
            model=model,
            optimizer=self.inner,
            data_loader=loader_of(data),
            plan=self.plan,
            **loop,
        )

    def train_on(self, batch: Any) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.model(**batch).loss
        loss.backward()
        self.optimizer.step()
        return loss

    def train(self, *, epochs: int = 2) -> torch.Tensor:
        for _ in range(epochs):
            for batch in self.loader:
                self.train_on(batch)
        self.engine.close()
        return torch.stack(self.inner.received) * self.plan.expected_batch_size


def one_pass(ledger: Path, *, model: Any, loader: DataLoader[Any]) -> PrivacyEngine:
    """The engine that trained the model in a plain loop, once over the loader, with σ = 1."""
    engine = PrivacyEngine(ledger=ledger)
    model, optimizer, batches = engine.make_private(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        data_loader=loader,
        noise_multiplier=1.0,
        target_delta=1e-3,
        max_grad_norm=1.0,
        epochs=1,
    )
    for batch in batches:
        optimizer.zero_grad()
        model(**batch).loss.backward()
        optimizer.step()
    return engine


@pytest.mark.parametrize("most", [None, 1, 3])
def test_a_plain_loop_gets_the_engines_noised_gradients(
    ledgers: Iterator[Path], most: int | None
) -> None:
    """For the same seed, in batches of any size: what the open loop hands to its optimizer."""
    data = examples(LENGTHS)
    plan = plan_for(len(data), expected_batch_size=5)
    expected = received(plan, data, next(ledgers))
    plain = PlainRun(next(ledgers), max_physical_batch_size=most).train()
    assert len(plain) == 3
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-6)


def test_a_classifier_learns_by_its_own_loss(ledgers: Iterator[Path]) -> None:
    """The head says which loss: a classifier's plain loop gets the engine's gradients too."""
    data = examples(LENGTHS, family="bert")
    run = PlainRun(next(ledgers), family="bert")
    expected = PlainRun(next(ledgers), family="bert", losses=None)
    open_engine = PrivacyEngine(
        expected.engine.accelerator, run.plan, ledger=next(ledgers), fixed_seed=3
    )
    model = tiny_model("bert")
    optimizer = RecordingOptimizer([p for p in model.parameters() if p.requires_grad])
    open_engine.prepare(model, optimizer)
    for step in open_engine.steps(data, collate):
        for batch in step:
            step.backward(classification_losses(model, batch))
        step.update()
    torch.testing.assert_close(
        run.train(), torch.stack(optimizer.received) * 5, rtol=1e-4, atol=1e-6
    )


def test_the_loss_that_is_shown_is_the_mean_of_the_examples(ledgers: Iterator[Path]) -> None:
    """`outputs.loss` and `outputs[0]` are the mean of one loss an example, not of all tokens."""
    from dpacc.losses.per_example import causal_lm_losses

    run = PlainRun(next(ledgers))
    batch = next(iter(run.loader))
    outputs = run.model(**batch)
    with torch.no_grad():
        expected = causal_lm_losses(run.model, batch).mean()
    torch.testing.assert_close(outputs.loss.detach(), expected)
    assert outputs[0] is outputs.loss


def test_the_ledger_is_on_disk_before_the_optimizer_steps(ledgers: Iterator[Path]) -> None:
    """At each update its charge can be read from the file, and after the run ε is the ledger's."""
    ledger = next(ledgers)
    run = PlainRun(ledger, seed=None)
    seen: list[int] = []
    step = run.inner.step

    def look(closure: Any = None) -> None:
        seen.append(len(read_ledger(path=ledger).releases))
        step(closure)

    run.inner.step = look  # type: ignore[method-assign]
    assert run.engine.get_epsilon(1e-3) == 0
    run.train()
    assert seen == [1, 2, 3]
    spent = epsilon(event=read_ledger(path=ledger).event, delta=1e-5)
    assert run.engine.get_epsilon(1e-5) == pytest.approx(spent.epsilon)
    whole = epsilon(event=run.plan.event(steps=3), delta=1e-5)
    assert spent.epsilon == pytest.approx(whole.epsilon)


def test_a_budget_is_met_and_then_refused(tmp_path: Path) -> None:
    """make_private_with_epsilon plans for its epochs; a further pass is refused with the remedy."""
    data = examples(LENGTHS)
    model = tiny_model("llama")
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    model, optimizer, loader = engine.make_private_with_epsilon(
        model=model,
        optimizer=torch.optim.AdamW([p for p in model.parameters() if p.requires_grad]),
        data_loader=loader_of(data, batch_size=4),
        target_epsilon=8.0,
        target_delta=1e-3,
        max_grad_norm=1.0,
        epochs=2,
        method="ffa",
    )
    assert len(loader) == 3
    for _ in range(2):
        for batch in loader:
            optimizer.zero_grad()
            model(**batch).loss.backward()
            optimizer.step()
    assert engine.steps_charged == 5
    assert 7.9 < engine.get_epsilon(1e-3) <= 8.0
    assert not any(p.requires_grad for n, p in model.named_parameters() if "lora_A" in n)
    with pytest.raises(BudgetExhausted, match="more epochs"):
        next(iter(loader))
    engine.close()


def test_a_noise_of_ones_own_is_what_is_charged(tmp_path: Path) -> None:
    """make_private takes σ and charges it; the loader gives the rest of the plan."""
    model = tiny_model("llama")
    engine = PrivacyEngine(ledger=tmp_path / "ledger.jsonl")
    engine.make_private(
        model=model,
        optimizer=torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1),
        data_loader=loader_of(examples(LENGTHS), batch_size=4),
        noise_multiplier=1.5,
        target_delta=1e-4,
        max_grad_norm=0.5,
        epochs=2,
    )
    plan = engine.plan
    assert (plan.noise_multiplier, plan.max_grad_norm, plan.target_delta) == (1.5, 0.5, 1e-4)
    assert (plan.dataset_size, plan.expected_batch_size, plan.steps) == (10, 4, 5)


def test_a_stacking_collator_is_enough(tmp_path: Path) -> None:
    """Examples of one length need no padding: the probe's made-up ones are as long as they."""
    data = [{**each, "attention_mask": [1] * 6} for each in examples([6] * 8)]
    loader = DataLoader(data, batch_size=4, collate_fn=default_data_collator)
    engine = one_pass(tmp_path / "ledger.jsonl", model=tiny_model("llama"), loader=loader)
    assert engine.steps_charged == 2


@pytest.mark.parametrize("as_tensors", [False, True])
def test_hugging_faces_own_datasets_and_collators_fit(tmp_path: Path, as_tensors: bool) -> None:
    """Tokenizer, Dataset and DataCollatorForLanguageModeling as in any tutorial."""
    words = ["the", "film", "was", "good", "bad", "very", "a", "not", "and", "it"]
    save_tiny_llama(tmp_path, words=words)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    texts = [" ".join(words[:length]) for length in (3, 5, 2, 9, 4, 7)]
    data = Dataset.from_dict(dict(tokenizer(texts)))
    loader = DataLoader(
        data.with_format("torch") if as_tensors else data,  # type: ignore[arg-type]
        batch_size=3,
        shuffle=True,
        collate_fn=DataCollatorForLanguageModeling(tokenizer, mlm=False),
    )
    engine = one_pass(tmp_path / "ledger.jsonl", model=tiny_model("llama"), loader=loader)
    assert engine.steps_charged == 2


def test_units_are_the_patients_not_the_rows(ledgers: Iterator[Path], tmp_path: Path) -> None:
    """With `units` and their name, the plan counts units, and states the guarantee for them."""
    data = examples(LENGTHS)
    units = ["ann", "bob"] * 5
    model = tiny_model("llama")
    parameters = [p for p in model.parameters() if p.requires_grad]
    arguments: dict[str, Any] = {
        "model": model,
        "optimizer": torch.optim.SGD(parameters, lr=0.1),
        "data_loader": loader_of(data, batch_size=1),
        "noise_multiplier": 1.0,
        "target_delta": 1e-3,
        "max_grad_norm": 1.0,
        "epochs": 1,
        "units": units,
    }
    with pytest.raises(ConfigurationError, match="unit="):
        PrivacyEngine(ledger=next(ledgers)).make_private(**arguments)
    engine = PrivacyEngine(ledger=next(ledgers))
    engine.make_private(**arguments, unit="patient")
    assert (engine.plan.dataset_size, engine.plan.unit) == (2, "patient")


# --- schedules and resumption -------------------------------------------------------------


def test_a_schedule_follows_updates_whatever_the_loop_calls(ledgers: Iterator[Path]) -> None:
    """Stepped once an update: a call after each batch, whose number is private, does nothing."""
    run = PlainRun(
        next(ledgers),
        max_physical_batch_size=1,
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5),
        lr=0.8,
    )
    schedule = run.optimizer._schedule
    assert schedule is not None
    rates = []
    for _ in range(2):
        for batch in run.loader:
            run.train_on(batch)
            schedule.scheduler.step()
            rates.append(run.inner.param_groups[0]["lr"])
    assert sorted(set(rates), reverse=True) == [0.8, 0.4, 0.2, 0.1]
    assert len(rates) > 6


def test_a_resumed_plain_loop_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    """Killed after a checkpoint and one more update: same steps, rates, ledger as unbroken."""
    half = torch.optim.lr_scheduler.ExponentialLR
    settings: dict[str, Any] = {
        "checkpoints": tmp_path / "kept",
        "steps": 4,
        "lr": 0.8,
        "seed": None,
        "scheduler": lambda optimizer: half(optimizer, 0.5),
    }
    ledger = tmp_path / "ledger.jsonl"
    killed = PlainRun(ledger, **settings)
    for batch in killed.loader:
        killed.train_on(batch)
        if killed.engine.steps_charged == 1 and len(killed.inner.received) == 1:
            killed.engine.checkpoint()
    before = [p.detach().clone() for p in killed.model.parameters() if p.requires_grad]
    killed.engine.close()

    resumed = PlainRun(ledger, **settings)
    assert resumed.engine.resume() == 2
    after = [p.detach() for p in resumed.model.parameters() if p.requires_grad]
    torch.testing.assert_close(after, before, rtol=0, atol=0)
    resumed.train()
    assert len(resumed.inner.received) == 1 + 2  # one replayed, two new
    assert [r.step for r in read_ledger(path=ledger).releases] == [0, 1, 2, 3]
    assert resumed.inner.param_groups[0]["lr"] == pytest.approx(0.8 * 0.5**4)


def test_the_loader_says_what_is_public_of_it(ledgers: Iterator[Path]) -> None:
    """Its dataset, and the size that a logical batch has on average."""
    data = examples(LENGTHS)
    run = PlainRun(next(ledgers), data=data)
    assert len(run.loader.dataset) == len(data)
    assert run.loader.batch_size == run.plan.expected_batch_size


class Perceptron(torch.nn.Module):
    """Two layers that return bare logits."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def weighted(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """A criterion of one's own: class weights, one loss per example."""
    weights = torch.tensor([1.0, 2.0, 3.0])
    return torch.nn.functional.cross_entropy(logits, labels, weight=weights, reduction="none")


def test_a_plain_module_trains_on_tuples_by_a_loss_of_ones_own(ledgers: Iterator[Path]) -> None:
    """`model(*batch).loss` of (inputs, labels), clipped one by one, with what was noised once."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(12, 4, generator=generator)
    data = torch.utils.data.TensorDataset(inputs, torch.arange(12) % 3)
    model = Perceptron()
    plan = plan_for(12, steps=1, noise_multiplier=0.0, allow_no_privacy=True)
    optimizer = RecordingOptimizer(model.parameters())
    private, private_optimizer, loader = PrivacyEngine(
        ledger=next(ledgers), fixed_seed=0
    ).make_private_with_plan(
        model=model,
        optimizer=optimizer,
        data_loader=DataLoader(data, batch_size=12, shuffle=True),
        plan=plan,
        losses=weighted,
        probe_examples=[data[0], data[1], data[2]],
    )
    for batch in loader:
        private_optimizer.zero_grad()
        with pytest.raises(PrivacyError, match=r"model\(\*batch\)"):
            private(batch[0])
        outputs = private(*batch)
        assert outputs.logits.shape == (len(batch[0]), 3)
        outputs.loss.backward()
        private_optimizer.step()
    expected = torch.zeros(0)
    for x, y in data:
        alone = Perceptron()
        weighted(alone(x[None]), y[None]).sum().backward()
        row = torch.cat([p.grad.flatten() for p in alone.parameters()])
        scaled = row * min(1.0, plan.max_grad_norm / float(row.norm()))
        expected = scaled if not len(expected) else expected + scaled
    torch.testing.assert_close(optimizer.received[0] * 12, expected, rtol=1e-4, atol=1e-7)
