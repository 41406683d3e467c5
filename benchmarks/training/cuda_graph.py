"""A training pass of a network as CUDA graphs: the GPU is given all kernels at once, where Python gives them one by one."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def capture_training(net: nn.Module) -> None:
    """Make ``net`` replay its forward and backward pass in training from CUDA graphs, of one process and a whole batch.

    The first training batch of each shape is captured. The kernels are those that Python would start, in the same order;
    evaluation runs as before.
    """
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        # Captured on a stream of its own, gradients are added up on the usual one; torch orders the two.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    net.forward = _Captured(net)


def forget_captured(net: nn.Module) -> None:
    """Free the memory of the graphs that ``net`` has captured."""
    if isinstance(net.forward, _Captured):
        net.forward.passes.clear()


class _Captured:
    """The forward of a network; ``passes`` are what replays, by the shape of the images."""

    def __init__(self, net: nn.Module) -> None:
        self._net, self._forward = net, net.forward
        self.passes: dict[torch.Size, Callable[[Tensor], Tensor]] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if not (self._net.training and torch.is_grad_enabled()):
            return self._forward(images)
        if images.shape not in self.passes:
            self.passes[images.shape] = self._capture(images)
        return self.passes[images.shape](images)

    def _capture(self, images: Tensor) -> nn.Module:
        """Return what replays. Capturing tries the pass; buffers and random numbers are then put back."""
        buffers = [(buffer, buffer.clone()) for buffer in self._net.buffers()]
        mixed, dtype = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
        with torch.random.fork_rng([images.device]), torch.autocast("cuda", dtype, mixed, cache_enabled=False):
            # Later batches are copied into the images of the capture.
            replayed = torch.cuda.make_graphed_callables(_Body(self._net, self._forward), (images.clone(),))
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        return replayed  # type: ignore[return-value]


class _Body(nn.Module):
    """A network without the hooks of its call, with which torch captures none."""

    def __init__(self, net: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self._net, self._forward = net, forward

    def forward(self, images: Tensor) -> Tensor:
        return self._forward(images)
