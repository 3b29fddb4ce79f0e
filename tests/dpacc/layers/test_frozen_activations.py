"""Frozen layers run once an example: the same gradients, and no file left behind."""

import errno
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator

from dpacc import PrivacyEngine, PrivacyPlan, causal_lm_losses
from dpacc.errors import ConfigurationError
from dpacc.layers.blocks import first_trained_block
from dpacc.layers.frozen_activations import FrozenActivations, _reserved
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import add_lora
from tests.tiny_models import tiny_base, with_lora

COLLATE = partial(pad_examples, pad_token_id=0)


def _examples(count=12):
    generator = torch.Generator().manual_seed(3)
    lengths = torch.randint(3, 12, (count,), generator=generator).tolist()
    ids = [torch.randint(1, 60, (n,), generator=generator).tolist() for n in lengths]
    return [{"input_ids": each, "labels": each} for each in ids]


def _frozen(folder, *, model=None, accelerator=None, public=None):
    """Of a tiny model's lower layer, or of another model's."""
    return FrozenActivations(
        model=model or add_lora(model=tiny_base("llama"), rank=2, alpha=4, top_layers=1).train(),
        examples=_examples(),
        collate=COLLATE,
        accelerator=accelerator or Accelerator(cpu=True),
        folder=folder,
        **({} if public is None else {"public": public}),
    )


def _mapped_from(folder):
    """What this process has mapped of the files of a folder, with or without a name."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line for line in lines if str(folder) in line]


def trained(folder, *, cached, family="llama", steps=3):
    """Seeded adapters after a few steps, and how many batches came with activations."""
    torch.manual_seed(0)
    model = add_lora(model=tiny_base(family), rank=2, alpha=4, top_layers=1).train()
    adapters = [p for p in model.parameters() if p.requires_grad]
    accelerator = Accelerator(cpu=True)
    plan = PrivacyPlan(
        dataset_size=12,
        expected_batch_size=6,
        steps=steps,
        noise_multiplier=0.5,
        max_grad_norm=1.0,
        target_delta=1e-3,
    )
    engine = PrivacyEngine(accelerator, plan, ledger=folder / "ledger.jsonl", fixed_seed=7)
    model, _ = engine.prepare(model, torch.optim.SGD(adapters, lr=0.1))
    examples, collate, frozen = _examples(), COLLATE, None
    if cached:
        frozen = FrozenActivations(
            model=model,
            examples=examples,
            collate=COLLATE,
            accelerator=accelerator,
            folder=folder,
        )
        examples, collate = frozen.examples, frozen.collate
    states = 0
    for step in engine.steps(examples, collate):
        for batch in step:
            states += "frozen_states" in batch
            step.backward(causal_lm_losses(model, batch))
        step.update()
    engine.close()
    if frozen is not None:
        frozen.close()
    return torch.cat([p.detach().flatten() for p in adapters]), states


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_adapters_come_out_the_same(tmp_path, family):
    """Sampling, clipping and noise alike, cached activations give the adapters of a full run."""
    whole, _ = trained(tmp_path, cached=False, family=family)
    (tmp_path / "cached").mkdir()
    cached, batches_with_states = trained(tmp_path / "cached", cached=True, family=family)
    assert batches_with_states >= 3
    assert torch.allclose(whole, cached, atol=1e-6)


def test_no_file_stays(tmp_path):
    """Private activations leave nothing in the folder, not even while they are in use."""
    frozen = _frozen(tmp_path)
    assert frozen.collate(frozen.examples[:3])["frozen_states"].abs().sum() > 0
    assert list(tmp_path.iterdir()) == []
    (mapped,) = _mapped_from(tmp_path)
    assert mapped.endswith("(deleted)")
    frozen.close()
    assert _mapped_from(tmp_path) == []


def test_a_run_that_dies_leaves_no_file(tmp_path, monkeypatch):
    """Whatever fails after the file was made, it is gone, with all that was written to it."""

    def fails(*_, **__):
        assert list(tmp_path.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "from_file", fails)
    with pytest.raises(KeyboardInterrupt):
        _frozen(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert _mapped_from(tmp_path) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, monkeypatch):
    """Space is taken before anything is computed; where there is none, the remedy is named."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(ConfigurationError, match=r"no room for .* leave cache_frozen_activations"):
        _frozen(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_space_is_taken_where_the_system_cannot_reserve_it(tmp_path, monkeypatch):
    """macOS and Windows have no such call: the file is written in full."""
    monkeypatch.delattr("os.posix_fallocate")
    taken = _reserved(tmp_path, (1 << 20) + 5)
    assert taken.stat().st_size == (1 << 20) + 5
    assert taken.stat().st_blocks * 512 >= 1 << 20


def test_where_a_file_keeps_its_name_nothing_is_written(tmp_path, monkeypatch):
    """Windows removes no file that is mapped, so a killed run would leave private activations."""
    accelerator = Accelerator(cpu=True)
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=4, top_layers=1).train()
    monkeypatch.setattr("sys.platform", "win32")
    with pytest.raises(ConfigurationError, match=r"Windows removes no file .*; leave it out"):
        _frozen(tmp_path, model=model, accelerator=accelerator)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("plugin", ["fsdp_plugin", "deepspeed_plugin"])
def test_a_base_that_is_cut_is_refused(tmp_path, plugin):
    """Where ranks hold shards, no rank could run the lower layers alone; nothing is written."""
    cut = SimpleNamespace(state=SimpleNamespace(**{plugin: object()}), num_processes=2)
    with pytest.raises(ConfigurationError, match=r"the whole model on every rank.*ddp\.yaml"):
        _frozen(tmp_path, accelerator=cut)
    assert list(tmp_path.iterdir()) == []


def test_ranks_on_several_machines_are_refused(tmp_path, monkeypatch):
    """They share no file."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    apart = SimpleNamespace(state=SimpleNamespace(), num_processes=4)
    with pytest.raises(ConfigurationError, match="all ranks must be on one machine"):
        _frozen(tmp_path, accelerator=apart)


def test_examples_that_are_not_known_run_through_all_layers(tmp_path):
    """A made-up example, even with the number of a real one, never gets that one's activations."""
    frozen = _frozen(tmp_path)
    stranger = {"input_ids": [1, 2, 3], "labels": [1, 2, 3], "frozen_row": 1}
    assert "frozen_states" not in frozen.collate([stranger])
    assert "frozen_states" not in frozen.collate([frozen.examples[0], stranger])


def test_what_changes_cannot_be_cached(tmp_path):
    """Adapters in the lowest layer are refused, with what to set instead."""
    model = add_lora(model=tiny_base("llama"), rank=2, alpha=4).train()
    with pytest.raises(ConfigurationError, match="lora_top_layers"):
        _frozen(tmp_path, model=model)


def test_dropout_beneath_is_refused(tmp_path):
    """Layers that drop out at random never give the same activations twice."""
    model = add_lora(model=tiny_base("gpt2"), rank=2, alpha=4, top_layers=1).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1
    with pytest.raises(ConfigurationError, match="as dropout does"):
        _frozen(tmp_path, model=model)


def test_activations_serve_the_next_model_on_the_same_base(tmp_path):
    """Another adapter of as many layers sees what it would have seen; another base is refused."""
    base = tiny_base("llama")
    first = add_lora(model=base, rank=2, alpha=4, top_layers=1)
    frozen = FrozenActivations(
        model=first,
        examples=_examples(),
        collate=COLLATE,
        accelerator=Accelerator(cpu=True),
        folder=tmp_path,
    )
    second = add_lora(model=first.unload(), rank=3, alpha=4, top_layers=1, seed=5).eval()
    frozen.move_to(second)
    given = frozen.collate(frozen.examples[:4])
    plain = {name: value for name, value in given.items() if name != "frozen_states"}
    with torch.no_grad():
        real = plain["attention_mask"].bool()
        skipped, whole = second(**given).logits[real], second(**plain).logits[real]
    torch.testing.assert_close(skipped, whole)
    third = add_lora(model=tiny_base("llama"), rank=2, alpha=4, top_layers=1)
    with pytest.raises(ConfigurationError, match="as many top layers"):
        frozen.move_to(third)
    frozen.close()


def test_a_trained_head_lies_beyond_every_block():
    """A classifier's head may learn; what is trained in the body outside the blocks is refused."""
    model = with_lora(tiny_base("bert"), "bert", layers_to_transform=[1])
    assert any("classifier" in n and p.requires_grad for n, p in model.named_parameters())
    assert first_trained_block(model) == 1
    model.base_model.model.bert.pooler.dense.weight.requires_grad_(True)
    with pytest.raises(ConfigurationError, match=r"pooler\.dense\.weight is trained"):
        first_trained_block(model)


def test_nothing_of_private_examples_outlives_them(tmp_path, monkeypatch):
    """A second run computes every row anew; only where examples are said to be public is it told
    what the first one found, and gets the same."""
    asked = []
    run = FrozenActivations._run

    def watched(self, rows, accelerator):
        asked.extend(rows)
        return run(self, rows, accelerator)

    monkeypatch.setattr(FrozenActivations, "_run", watched)
    computed = []
    public = {}
    for given in ({}, {}, {"public": public}, {"public": public}):
        asked.clear()
        frozen = _frozen(tmp_path, **given)
        computed.append(({*asked}, frozen._states.clone()))
        frozen.close()
    assert [len(rows) for rows, _ in computed] == [12, 12, 12, 1]
    assert all(torch.equal(states, computed[0][1]) for _, states in computed)
