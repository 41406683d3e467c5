"""Exact compute of a network: multiply-adds of convolutions and linear layers, forward and in training.

MACs are the multiply-adds of convolutions (transposed ones included) and linear layers, one image, eval mode, without
biases: what He et al. 2016, Xie et al. 2017, torchvision and pycls call FLOPs. FLOPs here are 2 x MACs. Activations
are the output elements of the same layers. They are read from fvcore's trace; its total, which adds normalisation,
pooling and upsampling, is not used.

Training adds, for every layer, the gradient with respect to its input and with respect to its weight. Each costs the
MACs of the forward, grouped and transposed convolutions included, so nothing has to be traced backward:
torch.utils.flop_counter counts the weight gradient of a grouped convolution `groups` times (pytorch#183405).

Its forward is right, 2 for each multiply-add, and is the second witness: each network is counted with it too, on the meta
device, and the two must agree. It also counts the networks that fvcore cannot trace.
"""

import copy
import sys
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity.cost import Complexity, LayerCost, Part

with warnings.catch_warnings():
    # fvcore scripts a loss at import: torch 2.13 warns of it as deprecated, torch from 2.14 on as of the future.
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.simplefilter("ignore", FutureWarning)
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit, generic_activation_jit, linear_flop_jit

LAYERS: dict[type[nn.Module], str] = {
    nn.Conv1d: "conv",
    nn.Conv2d: "conv",
    nn.Conv3d: "conv",
    nn.ConvTranspose1d: "conv_transpose",
    nn.ConvTranspose2d: "conv_transpose",
    nn.ConvTranspose3d: "conv_transpose",
    nn.Linear: "linear",
}

TRACED = 128  # pixels

# What the convention leaves out, beside the operators that fvcore knows to do no arithmetic (shapes, copies, ReLU).
FREE = {
    "batch_norm": "normalisation: folds into the convolution beside it at inference",
    "group_norm": "normalisation",
    "instance_norm": "normalisation",
    "layer_norm": "normalisation",
    "adaptive_avg_pool2d": "pooling: no weights, one addition per input element",
    "adaptive_max_pool2d": "pooling",
    "avg_pool2d": "pooling",
    "max_pool2d": "pooling",
    "mean": "pooling",
    "add": "elementwise: the addition of a shortcut",
    "add_": "elementwise: the addition of a shortcut",
    "feature_dropout": "elementwise, and the identity in eval mode",
    "upsample_nearest2d": "copy: the coarser map of a pyramid",
    "pad": "copy: zero-padded shortcuts",
}


def count_convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count aten::_convolution, transposed or not, as a handle of fvcore."""
    return Counter(macs=conv_flop_jit(inputs, outputs)["conv"], activations=generic_activation_jit()(inputs, outputs))


def count_linear(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Count aten::linear, as a handle of fvcore."""
    return Counter(macs=linear_flop_jit(inputs, outputs), activations=generic_activation_jit()(inputs, outputs))


def build(model: Mapping[str, Any], image: Sequence[int]) -> tuple[Any, Complexity]:
    """Return the network of a configuration node, and its cost for one image (C, H, W).

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    channels, height, width = image
    try:
        net = instantiate(model)
    except InstantiationException as error:
        raise ValueError(error.__cause__) from error
    net.check_image_size(height, width)
    return net, measure(net, (channels, height, width))


def measure(net: nn.Module, input_size: tuple[int, int, int]) -> Complexity:
    """Count a network for one image of input_size (C, H, W), on a copy of it in eval mode.

    A network that fvcore cannot trace is counted by torch's counter alone, with a line on stderr. One with ``parts(H, W)``, a
    detector, is counted part by part: each has the name of a method that takes a tensor of [1, *input_size], how often that is
    done for an image in test and in training, at most, and what a training step counts it by.

    Raises:
        ValueError: for an operator with arithmetic that is neither counted nor free; for a convolution or linear layer whose
            training cost is not known, as it is applied outside its module, or more than once with different gradients; and
            where the two counters differ.
    """
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(f"input_size is (channels, height, width), each at least 1, got {tuple(input_size)}")
    if hasattr(net, "_orig_mod"):  # what torch.compile returns
        raise ValueError("a compiled network cannot be traced: measure it before torch.compile")
    net = copy.deepcopy(net).cpu().eval()
    params = sum(parameter.numel() for parameter in net.parameters())
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        layers = _count_parts(net, input_size) if hasattr(net, "parts") else _count_twice(net, input_size, False)
    return Complexity(
        input_size=(input_size[0], input_size[1], input_size[2]),
        layers=tuple(layers),
        params=params,
        macs=sum(layer.macs for layer in layers),
        activations=sum(layer.activations for layer in layers),
    )


class ImageCost:
    """Training MACs of a detector's part that is done once for an image, for images of any height and width.

    By torch's counter on the meta device: shapes differ from batch to batch.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = copy.deepcopy(net).to("meta").eval()
        self._known: dict[tuple[int, int], int] = {}

    def __call__(self, height: int, width: int) -> int:
        if (height, width) not in self._known:
            part = next(part for part in self._net.parts(height, width) if part.counted_by == "images")  # type: ignore[operator]
            with torch.enable_grad():
                layers = _count_by_torch(_PartOfNet(self._net, part.method), part.input_size, False)
            self._known[height, width] = sum(layer.training_macs for layer in layers)
        return self._known[height, width]


class _PartOfNet(nn.Module):
    """A network whose forward is another of its methods."""

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__()
        self.net = net
        self.method = method

    def forward(self, x: Tensor) -> Any:
        return getattr(self.net, self.method)(x)


def _count_parts(net: Any, input_size: Sequence[int]) -> list[LayerCost]:
    """Return the cost of each layer of a network with parts, for one image in test.

    The counters are compared on an image of at most TRACED pixels a side, as the trace computes all of it; what they agree on
    there, torch's counts for the image asked for.
    """
    small = [min(side, TRACED) for side in input_size[1:]]
    on_meta = copy.deepcopy(net).to("meta")
    layers = []
    for traced, part in zip(net.parts(*small), net.parts(*input_size[1:]), strict=True):
        use = Part(part.method, part.test, part.train, part.counted_by)
        # What regions are cut from learns too, so that their features have a gradient.
        gradient = part.counted_by != "images"
        _count_twice(_PartOfNet(net, part.method), traced.input_size, gradient)
        for layer in _count_by_torch(_PartOfNet(on_meta, part.method), part.input_size, gradient):
            name = layer.name.removeprefix("net.")
            macs, activations = part.test * layer.macs, part.test * layer.activations
            layers.append(replace(layer, name=name, macs=macs, activations=activations, part=use))
    return layers


def _count_twice(net: nn.Module, input_size: Sequence[int], gradient: bool) -> list[LayerCost]:
    """Return the cost of each layer, by fvcore and again by torch's counter, which must agree."""
    try:
        layers = _count_by_fvcore(net, input_size, gradient)
    except _NotTracedError as error:
        layers = _count_untraced(net, input_size, gradient, error)
        print(
            f"fvcore cannot trace {type(net).__name__} ({error}): its compute is counted by torch's counter alone, "
            "which does not see what other operators compute",
            file=sys.stderr,
        )
        return layers
    macs = sum(layer.macs for layer in layers)
    second = sum(layer.macs for layer in _count_by_torch(copy.deepcopy(net).to("meta"), input_size, gradient))
    if macs != second:
        raise ValueError(
            f"two counters differ for {type(net).__name__}: {macs:,} MACs by fvcore, {second:,} by "
            "torch.utils.flop_counter"
        )
    return layers


class _NotTracedError(Exception):
    """fvcore's trace of a network failed."""


class _LayerCalls:
    """The calls of a network's layers in one forward pass: whether a layer's input has a gradient, and its output elements.

    Raises:
        ValueError: in the pass, for a layer that is applied more than once, and has a gradient to its input only sometimes.
    """

    def __init__(self, net: nn.Module) -> None:
        self.names: dict[Any, str] = {
            module: name for name, module in net.named_modules() if isinstance(module, tuple(LAYERS))
        }
        self.input_gradients: dict[str, bool] = {}
        self.activations: Counter[str] = Counter()

    def __enter__(self) -> "_LayerCalls":
        self._hooks = [module.register_forward_pre_hook(self._before) for module in self.names]
        self._hooks += [module.register_forward_hook(self._after) for module in self.names]
        return self

    def __exit__(self, *raised: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        name = self.names[module]
        if self.input_gradients.setdefault(name, inputs[0].requires_grad) != inputs[0].requires_grad:
            raise ValueError(
                f"layer {name!r} is applied more than once in one forward, to an input with a gradient and to one without, so "
                f"its gradients cannot be told apart: give each application a layer of its own"
            )

    def _after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self.activations[self.names[module]] += output.numel()


def _count_by_fvcore(net: nn.Module, input_size: Sequence[int], gradient: bool) -> list[LayerCost]:
    """Return the cost of each layer of a network on the CPU, in the order of its modules. gradient: of its input."""
    analysis = FlopCountAnalysis(net, torch.zeros(1, *input_size, requires_grad=gradient))
    analysis.set_op_handle("aten::_convolution", count_convolution, "aten::linear", count_linear)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with (
        _LayerCalls(net) as calls,
        warnings.catch_warnings(),
        # The graph is wanted for its requires_grad alone, so it keeps no tensor.
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", FutureWarning)
        try:
            totals = analysis.by_operator()
        except ValueError:  # of the network itself, or of its layers above
            raise
        except Exception as error:  # whatever the trace trips over
            raise _NotTracedError(f"{type(error).__name__}: {error}".splitlines()[0]) from error

    operators = {*totals, *(name.removeprefix("aten::") for name in analysis.unsupported_ops())}
    if unknown := sorted(operators - {"macs", "activations"} - set(FREE)):
        raise ValueError(
            f"operator {', '.join(unknown)} is neither counted nor free: build it of convolution and linear layers, "
            f"or name it in benchmarks.complexity.counting.FREE with the reason"
        )

    layers = []
    for name, module in net.named_modules():
        children = (analysis.by_operator(f"{name}.{child}".lstrip(".")) for child, _ in module.named_children())
        own = analysis.by_operator(name) - sum(children, Counter())
        if own["macs"] and name not in calls.input_gradients:
            raise ValueError(_outside_a_layer(name or type(net).__name__))
        if name in calls.input_gradients:
            layers.append(_layer(name, module, own["macs"], own["activations"], calls.input_gradients[name]))
    return layers


def _count_by_torch(net: nn.Module, input_size: Sequence[int], gradient: bool) -> list[LayerCost]:
    """Return the cost of each layer of a network on the meta device, in the order of its modules."""
    counter = FlopCounterMode(display=False)
    with _LayerCalls(net) as calls, counter:
        net(torch.empty(1, *input_size, device="meta", requires_grad=gradient))
    flops = {name: sum(counts.values()) for name, counts in counter.get_flop_counts().items()}
    root = type(net).__name__
    layers = [
        _layer(name, module, flops[f"{root}.{name}" if name else root] // 2, calls.activations[name], has_gradient)
        for name, module in net.named_modules()
        if (has_gradient := calls.input_gradients.get(name)) is not None
    ]
    if counter.get_total_flops() != 2 * sum(layer.macs for layer in layers):
        raise ValueError(_outside_a_layer(root))
    return layers


def _count_untraced(
    net: nn.Module, input_size: Sequence[int], gradient: bool, error: _NotTracedError
) -> list[LayerCost]:
    """Count by torch's counter; where that fails too, raise what has ended the trace: the network's own error."""
    try:
        return _count_by_torch(copy.deepcopy(net).to("meta"), input_size, gradient)
    except ValueError:
        raise
    except Exception:
        raise error.__cause__ or error from None


def _outside_a_layer(name: str) -> str:
    return (
        f"{name} applies a convolution or linear map that is no layer called as a module: use torch.nn.Conv*, "
        "ConvTranspose* or Linear"
    )


def _layer(name: str, module: Any, macs: int, activations: int, input_gradient: bool) -> LayerCost:
    return LayerCost(
        name=name,
        kind=next(kind for layer, kind in LAYERS.items() if isinstance(module, layer)),
        macs=macs,
        params=sum(parameter.numel() for parameter in module.parameters(recurse=False)),
        activations=activations,
        input_gradient=input_gradient,
        weight_gradient=bool(module.weight.requires_grad),
    )
