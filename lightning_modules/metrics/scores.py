"""The scores of U-Net's two tables as torchmetrics: slices are gathered from all processes, then scored as a stack."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from lightning_modules.metrics.overlap import pixel_error, seg
from lightning_modules.metrics.rand_and_info import rand_error, v_rand_and_v_info
from lightning_modules.metrics.stacks import segments
from lightning_modules.metrics.warping import warping_error


class EMScores(Metric):
    """ISBI-2012 EM segmentation: V_Rand and V_Info (thinned), Rand, pixel and warping error (Ronneberger et al. 2015, Table 1).

    Beside the network's proposal the grey image itself is scored as one: what a threshold alone reaches.
    """

    definitions = {
        "v_rand": "foreground-restricted Rand score after thinning, mean over slices, maximum over thresholds",
        "v_info": "foreground-restricted information score after thinning, likewise",
        "rand_error": "1 - F of the foreground-restricted Rand index, pairs summed over slices, minimum over thresholds",
        "pixel_error": "1 - F of cell pixels, counted over slices, minimum over thresholds",
        "warping_error": "split and merge pixels / pixels after a topology-preserving warp, minimum over thresholds",
        "threshold_v_rand": "v_rand of the grey image as the proposal",
    }
    truths: list[Tensor]
    proposals: list[Tensor]
    greys: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("truths", "proposals", "greys"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, logits: Tensor, targets: Tensor, instances: Tensor | None) -> None:
        """Add slices: images (N, 1, H, W), logits (N, 2, H, W), masks (N, H, W) with cells 1."""
        grey = images[:, 0]
        low, high = grey.amin(dim=(1, 2), keepdim=True), grey.amax(dim=(1, 2), keepdim=True)
        self.truths.append(targets.to(torch.uint8))
        self.proposals.append(logits.softmax(dim=1)[:, 1])
        # A slice of one grey value, as a blank one, is 0 and not 0 / 0.
        self.greys.append((grey - low) / (high - low).clamp_min(torch.finfo(grey.dtype).tiny))

    def compute(self) -> dict[str, Tensor]:
        """Return the scores by name."""
        truths, proposals, greys = (
            dim_zero_cat(state).cpu().numpy() for state in (self.truths, self.proposals, self.greys)
        )
        rand, info = v_rand_and_v_info(truths, proposals)
        values = {
            "v_rand": rand.max(),
            "v_info": info.max(),
            "rand_error": rand_error(truths, proposals).min(),
            "pixel_error": pixel_error(truths, proposals).min(),
            "warping_error": warping_error(truths, proposals).min(),
            "threshold_v_rand": v_rand_and_v_info(truths, greys)[0].max(),
        }
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


class CellScores(Metric):
    """SEG of the Cell Tracking Challenge over the components of the predicted foreground (Ronneberger et al. 2015, Table 2)."""

    definitions = {"seg": "mean Jaccard index of each true object with the result object that holds over half of it"}
    truths: list[Tensor]
    results: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        for state in ("truths", "results"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, logits: Tensor, targets: Tensor, instances: Tensor | None) -> None:
        """Add frames: logits (N, K, H, W) with background 0, instances (N, H, W). Raises ValueError without instances."""
        if instances is None:
            raise ValueError("SEG needs instance labels, and this data set has none")
        labels = [torch.from_numpy(segments(mask.cpu().numpy())) for mask in logits.argmax(dim=1)]
        self.truths.append(instances)
        self.results.append(torch.stack(labels).to(instances))

    def compute(self) -> dict[str, Any]:
        """Return SEG by name."""
        truths, results = (dim_zero_cat(state).cpu().numpy() for state in (self.truths, self.results))
        return {"seg": torch.tensor(seg(truths, results), dtype=torch.float64)}
