"""The shape of an adapter on a named model, from its architecture alone: no weights are read."""

from __future__ import annotations

from collections import Counter

from dpacc.federated.aggregation.factors import factors_of
from dpacc.federated.ranks.tuning import AdapterShape
from dpacc.federated.settings import DPSettings, LoraSettings, Task, training_config
from dpacc.planning.architectures import read_architecture
from dpacc.planning.skeleton import build_skeleton


def shape_of(*, model: str, lora: LoraSettings, task: Task | None = None) -> AdapterShape:
    """What `lora` adapts of `model`.

    Args:
        model: a folder with a config.json, an id on the hub, or a known model.
        lora: method, target modules and top layers; the rank does not matter.
        task: decides whether there is a head, which is trained as well.

    Raises:
        ConfigurationError: the model or the layers are not to be found.
    """
    config = training_config(
        model=model,
        data_path="",
        lora=lora,
        # A configuration asks for a budget; none is spent on a shape.
        dp=DPSettings(epsilon=1.0, delta=1e-5, expected_batch_size=1),
        task=task or Task(),
    )
    skeleton = build_skeleton(config=config, architecture=read_architecture(model=model))
    factors = factors_of(skeleton.model)
    counted = Counter((each.outputs, each.inputs) for each in factors)
    layers = tuple((*sizes, count) for sizes, count in counted.items())
    bare = AdapterShape(layers=layers, both=lora.method != "ffa")
    return AdapterShape(
        layers=layers, both=bare.both, others=skeleton.trainable - bare.trained(lora.rank)
    )
