"""The transformer blocks of a model, in order, the first that is trained, and compiling them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from dpacc.errors import ConfigurationError
from dpacc.layers.operators import layer_operator
from dpacc.ranks.backends import Replicated


def transformer_blocks(model: nn.Module) -> nn.ModuleList:
    """The model's blocks from the bottom up: its list of as many modules as it says it has layers.

    Args:
        model: a Hugging Face model, plain or wrapped by PEFT.

    Raises:
        ConfigurationError: it has no such list.
    """
    depth = getattr(getattr(model, "config", None), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ConfigurationError(
        f"{type(model).__name__} has no list of {depth} blocks (config.num_hidden_layers), so its "
        "top layers are not known; leave lora_top_layers and cache_frozen_activations out"
    )


def first_trained_block(model: nn.Module) -> int:
    """How many blocks lie beneath everything that is trained; a head may be trained beyond them.

    Raises:
        ConfigurationError: none, or something is trained in the body but outside the blocks.
    """
    blocks = transformer_blocks(model)
    trained = [_is_trained(block) for block in blocks]
    inside = {id(p) for p in blocks.parameters()}
    inside |= {id(p) for p in _heads(model)}
    outside = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in inside]
    if outside or True not in trained[1:] or trained[0]:
        raise ConfigurationError(
            f"{outside[0] if outside else 'the lowest block'} is trained, so no activation beneath "
            "stays as it is; set lora_top_layers below the number of layers"
        )
    return trained.index(True)


Compile = Literal["none", "blocks", "step"]
"""What of a model `torch.compile` makes faster code of: each trained block, or all in one piece."""

_VERSIONS = 32
"""The most of one piece of code, in training and evaluation together."""


def compile_as_asked(compile: Compile, *, model: nn.Module, placement: str) -> None:
    """Compile what is asked for, if anything.

    Names, parameters and what is saved stay as they are. Sizes of micro-batches are symbols in the
    code, so that there are a handful of versions: for micro-batches with and without padding, of
    one example and of more.

    Args:
        compile: what.
        model: whose layers write to a gradient buffer.
        placement: of the launch's backend.

    Raises:
        ConfigurationError: it cannot be compiled here.
    """
    if compile == "none":
        return
    if compile not in get_args(Compile):
        raise ConfigurationError(f"compile={compile!r}: choose 'blocks', 'step' or 'none'")
    if placement != Replicated.placement:
        raise ConfigurationError(
            f"compile={compile!r} with a model that is {placement}: set compile='none', or launch "
            "with launch_configs/ddp.yaml"
        )
    blocks = transformer_blocks(model)
    pieces = [_holder(blocks, model)] if compile == "step" else [*blocks]
    for where in chain.from_iterable(map(_dropping_out, pieces)):
        raise ConfigurationError(
            f"compile={compile!r} with dropout in {where}, whose masks, each example's own, no "
            "compiled code makes: set the rate to 0, or compile='none'"
        )
    # A second backward over one graph, which ghost clipping takes, needs what the first one read.
    torch._functorch.config.donated_buffer = False
    settings = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _VERSIONS)
    # A model's floats are constants; as symbols they fail where activations are computed again.
    settings.specialize_float = True
    if compile == "step":
        _compile_whole(pieces[0], blocks)
    else:
        _compile_blocks(blocks)


def _compile_blocks(blocks: nn.ModuleList) -> None:
    """Let each block that is trained be compiled at its first forward; those alike share code."""
    for block in blocks:
        if _is_trained(block):
            block._compiled_call_impl = _compiled(block)


def _compile_whole(body: nn.Module, blocks: nn.ModuleList) -> None:
    """Let everything from the words to the states before the head be compiled as one.

    Raises:
        ConfigurationError: nothing in its blocks is trained, or something outside of them, whose
            gradient a compiler might leave out.
    """
    trained = [block for block in blocks if _is_trained(block)]
    if not trained:
        raise ConfigurationError(
            "compile='step' and nothing in the blocks is trained: set compile='none'"
        )
    inside = {id(p) for p in blocks.parameters()}
    for name, parameter in body.named_parameters():
        if parameter.requires_grad and id(parameter) not in inside:
            raise ConfigurationError(
                f"compile='step' with {name}, which is trained outside the blocks: set "
                "compile='blocks'"
            )
    _let_words_ask_for_nothing(body)
    anchor = torch.zeros(0, requires_grad=True)

    def begin(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not arguments or not torch.is_grad_enabled():
            return None
        return _asking_for_a_gradient(anchor, arguments[0]), *arguments[1:]

    trained[0].register_forward_pre_hook(begin)
    body._compiled_call_impl = torch.compile(body._call_impl, dynamic=True)


def _let_words_ask_for_nothing(body: nn.Module) -> None:
    """Take out the hooks by which transformers and PEFT have words ask for a gradient.

    Only reentrant checkpointing needs them, and a compiler breaks the piece at them.
    """
    for module in body.modules():
        for key, hook in [*module._forward_hooks.items()]:
            if getattr(hook, "__name__", "").startswith("make_inputs_require_grad"):
                del module._forward_hooks[key]


def _is_trained(block: nn.Module) -> bool:
    return any(p.requires_grad for p in block.parameters())


def _holder(blocks: nn.ModuleList, model: nn.Module) -> nn.Module:
    """The module that runs the blocks, between the words and the head."""
    return next(each for each in model.modules() if blocks in each.children())


def _states(anchor: Tensor, states: Tensor) -> Tensor:
    return states.clone()


def _states_backward(gradient: Tensor, wanted: bool, anchor: Tensor, states: Tensor) -> Tensor:
    return anchor.new_empty(0)


_asking_for_a_gradient = layer_operator(
    name="asking_for_a_gradient",
    forward=_states,
    backward=_states_backward,
    shapes=lambda anchor, states: torch.empty_like(states),
)
"""Of an anchor without elements and of states that nothing beneath is trained for, the states.

A compiler leaves out a backward whose result nobody wants, and with it what that backward writes.
"""


def _dropping_out(part: nn.Module) -> Iterator[str]:
    """The modules of a part that have a rate of dropout, or attributes that are one."""
    for name, module in part.named_modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            yield name
        for key, value in vars(module).items():
            if "drop" in key and isinstance(value, float) and value > 0:
                yield f"{name}.{key}"


def _compiled(block: nn.Module) -> Callable[..., Any]:
    """What a call of the block does, compiled.

    Its input always asks for a gradient, also where nothing beneath is trained: a compiler leaves
    out a backward whose result nobody wants, and with it what that backward writes.
    """
    call = torch.compile(block._call_impl, dynamic=True)

    def compiled(*arguments: Any, **named: Any) -> Any:
        if arguments and torch.is_grad_enabled() and not arguments[0].requires_grad:
            arguments = (arguments[0].detach().requires_grad_(), *arguments[1:])
        return call(*arguments, **named)

    return compiled


def _heads(model: nn.Module) -> list[nn.Parameter]:
    """What a model has beyond its body, which sees nothing but the last block's output."""
    whole = next((m for m in model.modules() if hasattr(m, "base_model_prefix")), model)
    body = getattr(whole, getattr(whole, "base_model_prefix", ""), whole)
    within = {id(p) for p in body.parameters()}
    return [p for p in whole.parameters() if id(p) not in within]
