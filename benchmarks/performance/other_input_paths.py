"""Other projects' ways from images in memory to training batches: torchvision's and timm's."""

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class Pictures(Dataset[Any]):
    """Images in memory as ``torchvision.datasets.CIFAR10`` has them.

    Args:
        images: uint8 (N, C, H, W).
        targets: (N,).
        mean, std: per channel, of values from 0 to 1.
    """

    def __init__(self, images: Tensor, targets: Tensor, mean: Sequence[float], std: Sequence[float]) -> None:
        self.images = np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        self.targets = targets.tolist()
        self.mean, self.std = mean, std
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), self.targets[index]


def pictures_of(datamodule: Any) -> Pictures:
    """The training images for other input paths."""
    train = datamodule.splits.train
    return Pictures(train.images, train.targets, datamodule.mean, datamodule.std)


def torchvision_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Every picture by itself, through PIL. transforms: torchvision's."""
    pictures.transform = transforms.Compose(
        [
            transforms.RandomCrop(pictures.images.shape[1], padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(pictures.mean, pictures.std),
        ]
    )
    return DataLoader(pictures, batch_size=batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")


def timm_batches(transforms: ModuleType, pictures: Pictures, batch: int, device: torch.device) -> Any:
    """Its loader, which normalises whole batches. transforms: torchvision's."""
    from timm.data import create_loader
    from timm.data.transforms import ToNumpy

    height, width, channels = pictures.images.shape[1:]
    loader = create_loader(
        pictures,
        input_size=(channels, height, width),
        batch_size=batch,
        is_training=True,
        mean=tuple(pictures.mean),
        std=tuple(pictures.std),
        num_workers=0,
        persistent_workers=False,
        pin_memory=device.type == "cuda",
        device=device,
    )
    pictures.transform = transforms.Compose(
        [transforms.RandomCrop(height, padding=4), transforms.RandomHorizontalFlip(), ToNumpy()]
    )
    return loader
