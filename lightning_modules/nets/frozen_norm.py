"""Batch normalisation whose statistics and affine parameters stay as they are, as detectors fine-tune it."""

import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.Module):
    """The affine map that a BatchNorm2d is in evaluation, with the same state_dict and no parameters.

    He et al. 2016, appendix A: "the BN layers become linear activations with constant offsets and scales", since a
    detector's batch of one or two images is too small for statistics.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(norm, name).detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


def freeze_norms(net: nn.Module) -> None:
    """Replace every BatchNorm2d within ``net`` by its frozen form."""
    for name, child in net.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(net, name, FrozenBatchNorm2d(child))
        else:
            freeze_norms(child)
