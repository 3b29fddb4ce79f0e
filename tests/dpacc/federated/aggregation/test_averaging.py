"""Each rule against a float64 reference: the model becomes the mean of the clients' models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.factors import CORRECTION, CorrectedBase, Factors, factors_of
from dpacc.federated.aggregation.rule_choice import aggregation_named
from dpacc.federated.settings import LoraSettings
from dpacc.federated.updates.layout import Arrays, load_arrays
from tests.dpacc.federated.federations import LORA, client, server
from tests.tiny_models import tiny_model

BOTH = LoraSettings(rank=2, method="lora", target_modules=LORA.target_modules)


def frozen_lower(model: torch.nn.Module) -> torch.nn.Module:
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            parameter.requires_grad_(False)
    return model


def drawn(like: Arrays, *, seed: int) -> Arrays:
    """Random adapters of the same layout."""
    generator = np.random.default_rng(seed)
    return {
        name: generator.normal(size=values.shape).astype(np.float32)
        for name, values in like.items()
        if not name.startswith(CORRECTION)
    }


def change_of_weight(layer: Factors, arrays: Arrays, model: torch.nn.Module) -> np.ndarray:
    """Correction + s·B·A in float64, with a frozen A taken from the model."""
    parameters = {n: p.detach().numpy() for n, p in model.named_parameters()}
    product = layer.product(parameters | arrays)
    return product + arrays.get(layer.correction, np.zeros_like(product))


@pytest.mark.parametrize("rule", ["ffa", "fedex", "stacking", "fedask"])
def test_exact_rules_give_the_mean_of_the_clients_weights(rule: str) -> None:
    """Over two rounds, every layer changes by the float64 mean of the clients' changes."""
    model = tiny_model("llama")
    model = frozen_lower(model) if rule == "ffa" else model
    aggregate, now = aggregation_named(rule, model=model)
    for round_number in range(2):
        updates = {str(n): drawn(now, seed=10 * round_number + n) for n in range(5)}
        found = aggregate(now, updates)
        for layer in factors_of(model):
            before = now.get(layer.correction, np.zeros((layer.outputs, layer.inputs)))
            changes = [change_of_weight(layer, each, model) for each in updates.values()]
            expected = before + np.mean(changes, axis=0)
            error = np.abs(change_of_weight(layer, found.arrays, model) - expected).max()
            assert error <= 1e-6 * np.abs(expected).max()
        assert found.error < 1e-5 if rule == "fedask" else found.error == 0.0
        now = found.arrays


def test_the_plain_average_tells_how_far_it_is_off() -> None:
    """Its stated error is that of an independent computation, and is not small."""
    model = tiny_model("llama")
    aggregate, first = aggregation_named("average", model=model)
    updates = {str(n): drawn(first, seed=n) for n in range(4)}
    found = aggregate(first, updates)
    off = size = 0.0
    for layer in factors_of(model):
        each = [torch.from_numpy(u[layer.upper]).double() for u in updates.values()]
        low = [torch.from_numpy(u[layer.lower]).double() for u in updates.values()]
        mean = torch.stack([b @ a for b, a in zip(each, low, strict=True)]).mean(0)
        plain = torch.stack(each).mean(0) @ torch.stack(low).mean(0)
        off += float((plain - mean).square().sum())
        size += float(mean.square().sum())
    assert found.error == pytest.approx((off / size) ** 0.5, rel=1e-5)
    assert found.error > 0.1


def test_equal_clients_make_the_plain_average_exact() -> None:
    """Where all factors agree, so do the mean of the products and the product of the means."""
    model = tiny_model("llama")
    aggregate, first = aggregation_named("average", model=model)
    same = drawn(first, seed=1)
    assert aggregate(first, {"a": same, "b": same}).error < 1e-6


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_corrected_base_computes_with_the_corrected_weight(family: str) -> None:
    """The model's own weight, however it is stored, becomes W₀ + correction, again and again."""
    model = tiny_model(family)
    layer = factors_of(model)[0]
    base = CorrectedBase(model)
    module = model.get_submodule(layer.name)
    point = torch.randn(1, 3, layer.inputs)
    before = module.base_layer(point)
    change = np.random.default_rng(0).normal(size=(layer.outputs, layer.inputs)).astype(np.float32)
    for _ in range(2):
        base.apply({layer.correction: change})
        expected = before + point @ torch.from_numpy(change).T
        assert torch.allclose(module.base_layer(point), expected, atol=1e-5)


def test_a_base_in_sixteen_bits_is_refused_for_rules_that_correct_it() -> None:
    """bfloat16 cannot hold the correction; the error names the rule that needs none."""
    model = tiny_model("llama").to(torch.bfloat16)
    with pytest.raises(ConfigurationError, match="aggregation='ffa'"):
        aggregation_named("fedex", model=model)


@pytest.mark.parametrize(
    ("rule", "method", "remedy"),
    [
        ("ffa", "lora", "fedex"),
        ("fedex", "ffa", "take aggregation='ffa'"),
        ("mean", "ffa", "counts alike"),
    ],
)
def test_a_rule_that_the_adapter_contradicts_is_refused(
    rule: str, method: str, remedy: str
) -> None:
    """Before anything runs, with the rule that fits."""
    model = tiny_model("llama")
    with pytest.raises(ConfigurationError, match=remedy):
        aggregation_named(rule, model=model if method == "lora" else frozen_lower(model))


@pytest.mark.parametrize("rule", ["fedex", "stacking", "fedask"])
def test_a_federation_of_both_factors_is_exact_on_every_client(folder: Path, rule: str) -> None:
    """After two private rounds the server's logits are those of the mean of the clients' models."""
    clients = [client(folder, n, lora_config=BOTH) for n in (1, 2)]
    federation = server(folder, lora_config=BOTH, rounds=2)
    history = federation.train(clients=clients, aggregation=rule)  # type: ignore[arg-type]
    assert [report.survivors for report in history.rounds] == [("site-1", "site-2")] * 2
    for layer in factors_of(federation.model):
        weights = [effective_weight(each.training._model, layer) for each in clients]
        server_weight = effective_weight(federation.model, layer)
        mean = torch.stack(weights).mean(0)
        assert torch.allclose(server_weight, mean, atol=1e-6)
        assert not torch.allclose(weights[0], weights[1], atol=1e-6)


def effective_weight(model: torch.nn.Module, layer: Factors) -> torch.Tensor:
    """W + s·B·A in float64."""
    parameters = {n: p.detach().double() for n, p in model.named_parameters()}
    product = layer.scale * parameters[layer.upper] @ parameters[layer.lower]
    return parameters[f"{layer.name}.base_layer.weight"] + product


def test_different_ranks_average_exactly(folder: Path) -> None:
    """Clients of ranks 1, 2 and 4 send padded B's; the mean model is that of their own models."""
    wide = LoraSettings(rank=4, target_modules=LORA.target_modules)
    clients = [
        client(folder, n, lora_config=wide, rank=rank) for n, rank in ((1, 1), (2, 2), (3, 4))
    ]
    federation = server(folder, lora_config=wide, num_clients=3, rounds=2)
    history = federation.train(clients=clients)
    assert history.rounds[1].survivors == ("site-1", "site-2", "site-3")
    layers = zip(*[factors_of(each.training._model) for each in clients], strict=True)
    for shared, own in zip(factors_of(federation.model), layers, strict=True):
        weights = [
            effective_weight(each.training._model, place)
            for each, place in zip(clients, own, strict=True)
        ]
        mean = torch.stack(weights).mean(0)
        assert torch.allclose(effective_weight(federation.model, shared), mean, atol=1e-6)
    sizes = [sum(p.numel() for p in c.training._engine._parameters) for c in clients]
    assert sizes[0] * 4 == sizes[1] * 2 == sizes[2]


def test_a_rank_of_ones_own_needs_a_shared_lower_factor(folder: Path) -> None:
    """With a trained A there is nothing nested: the client refuses, and charges nothing."""
    clients = [client(folder, 1, lora_config=BOTH, rank=1), client(folder, 2, lora_config=BOTH)]
    history = server(folder, lora_config=BOTH, rounds=1).train(clients=clients, aggregation="fedex")
    assert history.rounds[0].survivors == ("site-2",)
    assert not (folder / "site-1" / "ledger.jsonl").exists()


def test_loading_overwrites_adapters_in_place() -> None:
    """The engine's own parameters receive the shared numbers: none is replaced."""
    model = tiny_model("llama")
    before = {name: id(p) for name, p in model.named_parameters() if p.requires_grad}
    _, first = aggregation_named("average", model=model)
    other = drawn(first, seed=3)
    load_arrays(model, other)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert id(parameter) == before[name]
            assert np.array_equal(parameter.detach().numpy(), other[name])
