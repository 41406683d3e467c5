"""The networks of the papers: plain torch, plain arguments."""

from lightning_modules.nets.densenet import DenseNet
from lightning_modules.nets.faster_rcnn import FasterRCNN
from lightning_modules.nets.mask_rcnn import MaskRCNN
from lightning_modules.nets.resnet import ResNet
from lightning_modules.nets.unet import UNet

__all__ = ["DenseNet", "FasterRCNN", "MaskRCNN", "ResNet", "UNet"]
