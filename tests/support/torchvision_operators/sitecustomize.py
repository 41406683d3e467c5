"""Declares torchvision's compiled operators before torchvision is imported, for a torch of another build than torchvision's.

On PYTHONPATH; nothing of timm's networks calls one.
"""

import importlib.abc
import sys

OPERATORS = ("nms", "qnms")  # of which torchvision's import registers more


class Declare(importlib.abc.MetaPathFinder):
    """Finds nothing, and declares the operators when torchvision is looked for."""

    library = None

    def find_spec(self, name, path, target=None):
        if name == "torchvision" and self.library is None:
            import torch

            self.library = torch.library.Library("torchvision", "DEF")
            for operator in OPERATORS:
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, Declare())
