"""Exact compute of a network: multiply-adds of convolutions and linear layers, forward and in training.

MACs are the multiply-adds of convolutions (transposed ones included) and linear layers, one image, eval mode, without
biases: what He et al. 2016, Xie et al. 2017, torchvision and pycls call FLOPs. FLOPs here are 2 x MACs. Activations
are the output elements of the same layers. They are read from fvcore's trace; its total, which adds normalisation,
pooling and upsampling, is not used.

Training adds, for every layer, the gradient with respect to its input and with respect to its weight. Each costs the
MACs of the forward, grouped and transposed convolutions included, so nothing has to be traced backward:
torch.utils.flop_counter counts the weight gradient of a grouped convolution `groups` times (pytorch#183405).
"""

import copy
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.complexity.cost import Complexity, LayerCost

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # fvcore scripts a loss at import; torch 2.13 warns of it
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
    "pad": "copy: zero-padded shortcuts",
}


def count_convolution(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Handle of fvcore for aten::_convolution, transposed or not."""
    return Counter(macs=conv_flop_jit(inputs, outputs)["conv"], activations=generic_activation_jit()(inputs, outputs))


def count_linear(inputs: list[Any], outputs: list[Any]) -> Counter[str]:
    """Handle of fvcore for aten::linear."""
    return Counter(macs=linear_flop_jit(inputs, outputs), activations=generic_activation_jit()(inputs, outputs))


def build(model: Mapping[str, Any], image: Sequence[int]) -> tuple[Any, Complexity]:
    """The network of a configuration node, and its cost for one image (C, H, W).

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
    """Counts a network for one image of input_size (C, H, W), on a copy of it on the CPU in eval mode.

    Raises:
        ValueError: for an operator with arithmetic that is neither counted nor free, and for a convolution or linear
            layer whose training cost cannot be told: applied outside its module, or more than once.
    """
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(f"input_size is (channels, height, width), each at least 1, got {tuple(input_size)}")
    if hasattr(net, "_orig_mod"):  # what torch.compile returns
        raise ValueError("a compiled network cannot be traced: measure it before torch.compile")
    net = copy.deepcopy(net).cpu().eval()
    modules: dict[str, nn.Module] = dict(net.named_modules())
    names: dict[nn.Module, str] = {m: name for name, m in modules.items() if isinstance(m, tuple(LAYERS))}
    input_gradient: dict[str, bool] = {}

    def note_input(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if names[module] in input_gradient:
            raise ValueError(
                f"layer {names[module]!r} is applied more than once in one forward, so its gradients cannot be told "
                f"apart: give each application a layer of its own"
            )
        input_gradient[names[module]] = inputs[0].requires_grad

    for module in names:
        module.register_forward_pre_hook(note_input)

    analysis = FlopCountAnalysis(net, torch.zeros(1, *input_size))
    analysis.set_op_handle("aten::_convolution", count_convolution, "aten::linear", count_linear)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        # The graph is wanted for its requires_grad alone, so it keeps no tensor.
        torch.autograd.graph.saved_tensors_hooks(lambda tensor: None, lambda nothing: nothing),
    ):
        totals = analysis.by_operator()

    operators = {*totals, *(name.removeprefix("aten::") for name in analysis.unsupported_ops())}
    if unknown := sorted(operators - {"macs", "activations"} - set(FREE)):
        raise ValueError(
            f"operator {', '.join(unknown)} is neither counted nor free: build it of convolution and linear layers, "
            f"or name it in benchmarks.complexity.counting.FREE with the reason"
        )

    layers = []
    for name, module in modules.items():
        children = (analysis.by_operator(f"{name}.{child}".lstrip(".")) for child, _ in module.named_children())
        own = analysis.by_operator(name) - sum(children, Counter())
        if own["macs"] and name not in input_gradient:
            raise ValueError(
                f"{name or type(net).__name__} applies a convolution or linear map that is no layer called as a "
                f"module: use torch.nn.Conv*, ConvTranspose* or Linear"
            )
        if name in input_gradient:
            layers.append(
                LayerCost(
                    name=name,
                    kind=next(kind for layer, kind in LAYERS.items() if isinstance(module, layer)),
                    macs=own["macs"],
                    params=sum(parameter.numel() for parameter in module.parameters(recurse=False)),
                    activations=own["activations"],
                    input_gradient=input_gradient[name],
                    weight_gradient=bool(module.weight.requires_grad),
                )
            )
    return Complexity(
        input_size=(input_size[0], input_size[1], input_size[2]),
        layers=tuple(layers),
        params=sum(parameter.numel() for parameter in net.parameters()),
        macs=totals["macs"],
        activations=totals["activations"],
    )
