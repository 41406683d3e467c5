"""Exact compute of a network: multiply-adds of convolutions, linear maps and products of tensors, forward and in training.

MACs are the multiply-adds of convolutions (transposed ones included), linear layers, matrix products and attention, one image,
eval mode, without biases: what He et al. 2016, Xie et al. 2017, torchvision and pycls call FLOPs. FLOPs here are 2 x MACs.
Activations are the output elements of the same operators. Element-wise operators, normalisation, pooling and resampling are
free. An operator that is neither is named beside the counts, `uncounted`.

Training adds, for every product of two tensors, the gradient with respect to each that learns: the input and the weight of a
layer. Each costs the MACs of the forward, grouped and transposed convolutions included, so nothing has to be traced backward:
torch.utils.flop_counter counts the weight gradient of a grouped convolution `groups` times (pytorch#183405).

Two counters that share no formula must agree: torch's, whose forward is right, on the CPU or, for a large image, on the meta
device, and fvcore's trace. The first also counts the networks that the second cannot trace.
"""

import copy
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from benchmarks.complexity.by_dispatch import count_by_dispatch
from benchmarks.complexity.by_trace import NotTracedError, count_by_trace
from benchmarks.complexity.cost import Complexity, LayerCost, Part
from benchmarks.complexity.operator_cost import GRADIENT, Count
from benchmarks.units import grouped, one_line

# Pixels a side: a network computes such an image as fast as the meta device does, of which the first count imports for 0.3 s.
SMALL = 128


class Uninitialised(TorchFunctionMode):
    """Leaves weights as they are: drawing them takes long, and is of no use to a count that depends on none."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        # torch.nn.init passes some of its functions here, with their arguments by name; what these call inside is not passed.
        if func in (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build(model: Mapping[str, Any], image: Sequence[int], initialised: bool = True) -> tuple[Any, Complexity]:
    """Return the network of a configuration node, in eval mode, and its cost for one image (C, H, W).

    initialised: whether its weights are drawn; without, they hold what lies in memory, for a count alone.

    Raises:
        ValueError: there is no such network, or it does not take such images.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    from benchmarks.config.hydra_errors import unwrapped

    channels, height, width = image
    try:
        with nullcontext() if initialised else Uninitialised():
            net = instantiate(model)
    except InstantiationException as error:
        raise ValueError(one_line(str(unwrapped(error)))) from error
    check_image_size(net, height, width)
    _check_shapes(net)
    return net, _measured(net.eval(), (channels, height, width))


def check_image_size(net: Any, height: int, width: int) -> None:
    """Raise ValueError where a network's ``check_image_size`` does not take such images; one without it says so itself."""
    if callable(getattr(net, "check_image_size", None)):
        net.check_image_size(height, width)


def measure(net: nn.Module, input_size: tuple[int, int, int]) -> Complexity:
    """Count a network for one image of input_size (C, H, W), on a copy of it in eval mode.

    A network that fvcore cannot trace is counted by torch's counter alone, with a line on stderr. One with ``parts(H, W)``, a
    detector, is counted part by part: each has the name of a method that takes a tensor of [1, *input_size], how often that is
    done for an image in test and in training, at most, and what a training step counts it by.

    Raises:
        ValueError: the two counters differ, and not for an operator that is neither counted nor free; or a layer is lazy.
    """
    if hasattr(net, "_orig_mod"):  # what torch.compile returns
        raise ValueError("a compiled network cannot be traced: measure it before torch.compile")
    _check_shapes(net)
    return _measured(copy.deepcopy(net, _computed(net)).cpu().eval(), input_size)


def _check_shapes(net: nn.Module) -> None:
    """Raise ValueError for a network with a lazy layer, whose weights have no shape yet."""
    for name, parameter in net.named_parameters():
        if is_lazy(parameter):
            raise ValueError(
                f"{type(net).__name__} must know the shapes of its weights when it is built: {name} is of a lazy layer"
            )


def _measured(net: nn.Module, input_size: tuple[int, int, int]) -> Complexity:
    """As `measure`, of a network in eval mode on the CPU that is not used otherwise."""
    if len(input_size) != 3 or min(input_size) < 1:
        raise ValueError(f"input_size is (channels, height, width), each at least 1, got {tuple(input_size)}")
    params = sum(parameter.numel() for parameter in net.parameters())
    in_parts = callable(getattr(type(net), "parts", None))  # a submodule of that name can be called, too
    with torch.random.fork_rng(devices=[]), torch.enable_grad(), _attention_taken_apart():
        layers, uncounted = _count_parts(net, input_size) if in_parts else _count_twice(net, input_size, False)
    return Complexity(
        input_size=input_size,
        layers=tuple(layers),
        params=params,
        macs=sum(layer.macs for layer in layers),
        activations=sum(layer.activations for layer in layers),
        uncounted=tuple(sorted(uncounted)),
    )


@contextmanager
def _attention_taken_apart() -> Iterator[None]:
    """torch.nn's attention by its products, not by the one operator that stands for them where nothing learns."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _copied(net: nn.Module, device: str) -> Any:
    """Return a copy on a device whose modules share the parameters that these share: ``to`` gives each its own."""
    shared = {id(one): nn.Parameter(one.detach().to(device), one.requires_grad) for one in net.parameters()}
    return copy.deepcopy(net, shared | _computed(net)).to(device)


def _computed(net: nn.Module) -> dict[int, Tensor]:
    """Return by identity what a copy has for the tensors that modules keep of a forward pass, as those of weight_norm do: torch
    copies none that has a gradient's history."""
    kept = (value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor))
    return {id(value): value.detach() for value in kept if not value.is_leaf}


def image_cost(net: nn.Module) -> Callable[[int, int], int]:
    """Return what counts the training MACs of a detector's part that is done once for an image, by height and width.

    By torch's counter on the meta device: shapes differ from batch to batch.
    """
    on_meta: Any = _copied(net, "meta").eval()

    @cache
    def training_macs(height: int, width: int) -> int:
        part = next(part for part in on_meta.parts(height, width) if part.counted_by == "images")
        with torch.enable_grad():
            layers, _ = _count_on("meta", _PartOfNet(on_meta, part.method), part.input_size, False)
        return sum(layer.training_macs for layer in layers)

    return training_macs


class _PartOfNet(nn.Module):
    """A network whose forward is another of its methods."""

    def __init__(self, net: nn.Module, method: str) -> None:
        super().__init__()
        self.net = net
        self.method = method

    def forward(self, x: Tensor) -> Any:
        return getattr(self.net, self.method)(x)


def _count_parts(net: Any, input_size: Sequence[int]) -> tuple[list[LayerCost], set[str]]:
    """Return the cost of each layer of a network with parts, for one image in test, and what is not counted.

    The counters are compared on an image of at most SMALL pixels a side, as the trace computes all of it; what they agree on
    there, torch's counts for the image asked for.
    """
    small = [min(side, SMALL) for side in input_size[1:]]
    on_meta = _copied(net, "meta")
    layers, uncounted = [], set()
    for traced, part in zip(net.parts(*small), net.parts(*input_size[1:]), strict=True):
        use = Part(part.method, part.test, part.train, part.counted_by)
        # What regions are cut from learns too, so that their features have a gradient.
        gradient = part.counted_by != "images"
        uncounted |= _count_twice(_PartOfNet(net, part.method), traced.input_size, gradient)[1]
        for layer in _count_on("meta", _PartOfNet(on_meta, part.method), part.input_size, gradient)[0]:
            name = layer.name.removeprefix("net.")
            costs = {key: part.test * getattr(layer, key) for key in ("macs", "gradient_macs", "activations")}
            layers.append(replace(layer, name=name, part=use, **costs))
    return layers, uncounted


def _count_twice(net: nn.Module, input_size: Sequence[int], gradient: bool) -> tuple[list[LayerCost], set[str]]:
    """Return the cost of each layer, by torch's counter and again by fvcore's trace, which must agree, and what is not counted.

    Where they differ and the trace has an operator that is not known, as a recurrent layer, which torch's counter sees taken
    apart, that one's count holds. gradient: of the image.
    """
    device = "meta" if max(input_size[1:]) > SMALL else "cpu"
    copied = _copied(net, device)
    try:
        traced = count_by_trace(net, torch.zeros(1, *input_size))
    except NotTracedError as error:
        try:
            counted = _count_by_torch(net, copied, device, input_size, gradient)
        except ValueError:
            raise
        except Exception:  # what has ended the trace is the network's own error
            raise error.__cause__ or error from None
        print(
            f"fvcore cannot trace {type(net).__name__} ({error}): its compute is counted by torch's counter alone",
            file=sys.stderr,
        )
        return counted
    layers, uncounted = _count_by_torch(net, copied, device, input_size, gradient)
    first, second = traced.totals().macs, sum(layer.macs for layer in layers)
    if first == second:
        gradients = {name for name in uncounted if name.startswith(GRADIENT)}  # of which a trace has none
        return layers, traced.uncounted | gradients
    if traced.uncounted:
        return layers, uncounted
    raise ValueError(
        f"two counters differ for {type(net).__name__}: {first:,} MACs by fvcore, {second:,} by torch.utils.flop_counter"
    )


def _count_by_torch(
    net: nn.Module, copied: nn.Module, device: str, input_size: Sequence[int], gradient: bool
) -> tuple[list[LayerCost], set[str]]:
    """Return the same by torch's counter alone, of the copy on its device, or on the CPU for a network that needs values.

    Such are a tensor made in the forward pass without a device, and a branch on a tensor's value.
    """
    try:
        return _count_on(device, copied, input_size, gradient)
    except ValueError:
        raise
    except Exception:  # one of the network's own comes again
        return _count_on("cpu", net, input_size, gradient)


def _count_on(
    device: str, net: nn.Module, input_size: Sequence[int], gradient: bool
) -> tuple[list[LayerCost], set[str]]:
    """Return the cost of each layer of a network on a device by torch's counter, and what is not counted."""
    count = count_by_dispatch(net, torch.zeros(1, *input_size, device=device, requires_grad=gradient))
    return _layers(net, count), count.uncounted


def _layers(net: nn.Module, count: Count) -> list[LayerCost]:
    """Return a row for each module and kind that was counted, in the order of the network's modules.

    The parameters of a module stand in its first row, those that modules share in the first of these.
    """
    rows = []
    shown: set[nn.Parameter] = set()
    kinds = grouped(sorted(count.costs), itemgetter(0))
    for name, module in net.named_modules():
        own = {*module.parameters(recurse=False)} - shown
        shown |= own
        params = sum(parameter.numel() for parameter in own)
        for _, kind in kinds.get(name, ()):
            cost = count.costs[name, kind]
            rows.append(LayerCost(name=name, kind=kind, params=params, **cost._asdict()))
            params = 0
    return rows
