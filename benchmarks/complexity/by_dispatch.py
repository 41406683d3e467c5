"""Another counter: torch's own, whose operators are those that remain when others are taken apart.

It sees the tensors themselves, so it knows which gradients training computes.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.complexity.operator_cost import GRADIENT, Count
from benchmarks.complexity.operators import ADDING, is_free

aten = torch.ops.aten


def _vectors(shape: torch.Size, *others: Any, **options: Any) -> int:
    """FLOPs of a matrix or vector by a vector, of which torch's counter knows nothing."""
    return 2 * shape.numel()


def count_by_dispatch(net: nn.Module, image: Tensor) -> Count:
    """Count a network in eval mode, for one image of [1, C, H, W] on its device: the meta device, or the CPU.

    torch.utils.flop_counter is right in the forward, 2 for each multiply-add.
    """
    count = Count.of(net)
    products = {aten.mv: _vectors, aten.dot: _vectors, aten.addmv: lambda added, *shapes, **_: _vectors(*shapes)}
    counter = FlopCounterMode(display=False, custom_mapping=products)
    # Attention is taken apart into its two products.
    with _called(net) as names, sdpa_kernel(SDPBackend.MATH), counter, _Operators(count, counter, names):
        net(image)
    return count


@contextmanager
def _called(net: nn.Module) -> Iterator[list[str]]:
    """Yield the names of the modules of a network that are being called, the innermost last."""
    names = [""]

    def leave(*_: Any) -> None:
        names.pop()

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            enter = partial(lambda name, *_: names.append(name), name)
            hooks.enter_context(module.register_forward_pre_hook(enter))
            hooks.enter_context(module.register_forward_hook(leave, always_call=True))
        yield names


class _Operators(TorchDispatchMode):
    """Adds each operator to a count, with what torch's counter, which sees it next, says of it."""

    def __init__(self, count: Count, counter: FlopCounterMode, names: Sequence[str]) -> None:
        super().__init__()
        self._count, self._counter, self._names = count, counter, names

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is aten.native_batch_norm.default and args[0].is_meta:
            # As in eval mode. On the meta device torch takes it apart in Python, 2 ms for each layer.
            return torch.empty_like(args[0]), *(args[0].new_empty(0) for _ in range(2))
        before = self._counter.get_total_flops()
        output = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if flops := self._counter.get_total_flops() - before:
            tensors = [value for value in args if isinstance(value, Tensor)][name in ADDING :]
            kind = "matmul"
            if name == "convolution":
                kind = "conv_transpose" if args[6] else "conv"
            gradients = sum(tensor.requires_grad for tensor in tensors[:2])
            # In the forward of a torch.autograd.Function, unlike under no_grad, torch turns forward-mode gradients off, too.
            if gradients < 2 and not torch._C._is_fwd_grad_enabled():
                self._count.uncounted.add(f"{GRADIENT}{name}")
            self._count.add(self._names[-1], kind, flops // 2, output.numel(), gradients)
        elif not (func.is_view or is_free(name)):
            self._count.uncounted.add(name)
        return output
