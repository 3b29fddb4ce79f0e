"""What training starts from is public, or refused; where data shaped it, the ledger says so."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from dpacc_accounting import read_ledger, statement
from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.config import CordaConfig
from peft.tuners.lora.corda import preprocess_corda
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from dpacc import PrivacyArguments, PrivateTrainer
from dpacc.errors import ConfigurationError, PrivacyError
from dpacc.layers.whitening import whiten
from dpacc.loops import drop_in
from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.models import add_lora
from dpacc.step.admission.starting_point import declare_public_start, starting_notes
from dpacc.step.admission.trainable import admit_model
from dpacc.step.engine import PrivacyEngine
from tests.dpacc.step.engine_runs import plan_for
from tests.tiny_models import collate, examples, tiny_base, tiny_model

PRIVATE = examples([7, 5, 12, 6, 9])
OTHERS = examples([8, 6, 11], seed=9)
TARGETS = ["q_proj", "v_proj"]


def eva_model() -> Any:
    """A in the main directions of what the layers read of `PRIVATE`."""
    settings = LoraConfig(
        r=2, target_modules=TARGETS, init_lora_weights="eva", eva_config=EvaConfig(rho=1.0)
    )
    model = get_peft_model(tiny_base("llama"), settings)
    batches = DataLoader(PRIVATE, batch_size=5, collate_fn=collate)  # type: ignore[arg-type]
    initialize_lora_eva_weights(model, batches)
    return model


def corda_model() -> Any:
    base = tiny_base("llama")
    settings = LoraConfig(
        r=2, target_modules=TARGETS, init_lora_weights="corda", corda_config=CordaConfig()
    )

    def read() -> None:
        for example in PRIVATE:
            base(**collate([example]))

    with torch.no_grad():
        preprocess_corda(base, settings, run_model=read)
    return get_peft_model(base, settings)


def adapters(model: Any) -> list[torch.nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


@pytest.mark.parametrize("make", [eva_model, corda_model])
def test_a_start_from_data_is_refused_until_it_is_declared_public(make: Any) -> None:
    """PEFT's EVA and CorDA put what layers read of the data into the adapters, without noise."""
    model = make()
    with pytest.raises(PrivacyError, match=r"start from data.*declare_public_start"):
        admit_model(model)
    declare_public_start(model, source="wikitext2")
    admit_model(model)
    assert "computed from wikitext2, which was declared public" in starting_notes(model)[0][1]


@pytest.mark.parametrize("start", [True, False, "gaussian", "orthogonal", "pissa", "olora"])
def test_a_start_from_weights_alone_is_no_matter(start: Any) -> None:
    """Random starts, and such as look at the base only, are released with nobody's data."""
    settings = LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=start)
    model = get_peft_model(tiny_base("llama"), settings)
    admit_model(model)
    assert starting_notes(model) == []


def test_no_way_in_takes_a_start_from_data(tmp_path: Path) -> None:
    """The open loop, the plain one and the Trainer, before a ledger is opened."""
    model = eva_model()
    optimizer = torch.optim.SGD(adapters(model), lr=0.1)
    ledger = tmp_path / "ledger.jsonl"
    open_engine = PrivacyEngine(Accelerator(cpu=True), plan_for(len(PRIVATE)), ledger=ledger)
    with pytest.raises(PrivacyError, match="start from data"):
        open_engine.prepare(model, optimizer)
    with pytest.raises(PrivacyError, match="start from data"):
        drop_in.PrivacyEngine(ledger=ledger).make_private(
            model=model,
            optimizer=optimizer,
            data_loader=DataLoader(PRIVATE, batch_size=2, collate_fn=collate),  # type: ignore
            noise_multiplier=1.0,
            target_delta=1e-3,
            max_grad_norm=1.0,
            epochs=1,
        )
    trainer = PrivateTrainer(
        model=model,
        args=TrainingArguments(str(tmp_path), report_to=[], use_cpu=True, max_steps=1),
        privacy=PrivacyArguments(noise_multiplier=1.0, target_delta=1e-3),
        train_dataset=Dataset.from_list(PRIVATE * 2),
        data_collator=collate,
    )
    with pytest.raises(PrivacyError, match="start from data"):
        trainer.train()
    assert not ledger.exists()


def test_a_base_rounded_by_unnamed_examples_is_refused() -> None:
    """GPTQ looks at data; its own texts are private until declared, a public set's name is not."""
    model = tiny_model("llama")
    for calibration, refused in ((["my notes"], True), ("my-notes", True), ("c4", False)):
        settings = {"quant_method": "gptq", "dataset": calibration}
        model.config.quantization_config = settings
        if refused:
            with pytest.raises(PrivacyError, match="quantized"):
                admit_model(model)
        else:
            admit_model(model)
    model.config.quantization_config = SimpleNamespace(quant_method="gptq", dataset=["my notes"])
    with pytest.raises(PrivacyError, match="quantized"):
        admit_model(model)


def test_a_declaration_names_its_data() -> None:
    """An empty name says nothing to whoever reads the statement."""
    with pytest.raises(ConfigurationError, match="names no data"):
        declare_public_start(tiny_model("llama"), source=" ")


def whitened(by: list[Any]) -> Any:
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=4, method="whitened", seed=2)
    whiten(model=model, public_examples=by, collate=collate, directions=4, source="news of 2019")
    return model


def trained(model: Any, folder: Path, *, resumes: bool = False) -> PrivacyEngine:
    """A run of two steps, or what is left of it."""
    engine = PrivacyEngine(
        Accelerator(cpu=True),
        plan_for(len(PRIVATE), expected_batch_size=2, steps=2),
        ledger=folder / "ledger.jsonl",
        checkpoints=folder / "checkpoints",
    )
    prepared, _ = engine.prepare(model, torch.optim.SGD(adapters(model), lr=0.1))
    if resumes:
        engine.resume()
    for step in engine.steps(PRIVATE, collate):
        for batch in step:
            step.backward(causal_lm_losses(prepared, batch))
        step.update()
        if not resumes:
            break
    engine.close()
    return engine


def test_the_ledger_and_the_statement_say_by_whom_adapters_were_whitened(tmp_path: Path) -> None:
    """Even with a proper split, whoever was shown is in the weights; a resume says it once."""
    trained(whitened(OTHERS), tmp_path)
    trained(whitened(OTHERS), tmp_path, resumes=True)
    record = read_ledger(path=tmp_path / "ledger.jsonl")
    notes = [note for note in record.notes if note.subject == "whitening"]
    assert len(notes) == 1
    assert "whitened by news of 2019" in statement(plan=record.plan, record=record)
    assert "is in the released weights" in notes[0].text


@pytest.mark.parametrize("by", [PRIVATE, [*OTHERS, PRIVATE[3]]])
def test_adapters_are_not_whitened_by_private_examples(by: list[Any], tmp_path: Path) -> None:
    """One private example among those that were shown is enough; nothing is written."""
    with pytest.raises(PrivacyError, match="whitened the adapters"):
        trained(whitened(by), tmp_path)
    assert not (tmp_path / "ledger.jsonl").exists()


def plain() -> Any:
    """LoRA as PEFT begins it: B is zero."""
    return get_peft_model(tiny_base("llama"), LoraConfig(r=2, target_modules=TARGETS))


def notes_of(folder: Path) -> list[str]:
    return [note.subject for note in read_ledger(path=folder / "ledger.jsonl").notes]


def test_an_adapter_that_was_trained_before_is_said_to_be(tmp_path: Path) -> None:
    """What a second ledger's run goes on from is in what it releases, and not in its ε."""
    first = plain()
    trained(first, tmp_path / "first")
    assert notes_of(tmp_path / "first") == []
    engine = trained(first, tmp_path / "second")
    assert notes_of(tmp_path / "second") == ["trained-before"]
    (said,) = engine.guarantee().qualified_by
    assert "what it was trained on is outside this guarantee" in said
    record = read_ledger(path=tmp_path / "second/ledger.jsonl")
    assert said in statement(plan=record.plan, record=record)


@pytest.mark.parametrize("resumes", [True, False], ids=["resumed", "restarted"])
def test_a_run_that_goes_on_was_not_trained_before(resumes: bool, tmp_path: Path) -> None:
    """What its own ledger counts is inside the guarantee, however the adapter came back."""
    model = plain()
    trained(model, tmp_path)
    trained(plain() if resumes else model, tmp_path, resumes=resumes)
    assert notes_of(tmp_path) == []


@pytest.mark.parametrize("start", [False, "pissa", "gaussian", "orthogonal"])
def test_a_start_that_is_not_zero_by_design_was_not_trained(start: Any, tmp_path: Path) -> None:
    """Random factors, and such as are made of the base's weights."""
    settings = LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=start)
    trained(get_peft_model(tiny_base("llama"), settings), tmp_path)
    assert notes_of(tmp_path) == []


def test_a_declaration_says_more_than_that_it_was_trained(tmp_path: Path) -> None:
    """An adapter of public data is called by its name."""
    model = tiny_model("llama")
    model.peft_config["default"].init_lora_weights = True
    declare_public_start(model, source="news of 2019")
    trained(model, tmp_path)
    assert notes_of(tmp_path) == ["public-start"]
