"""Models, one file a family. Importing this registers them with timm."""

from .rga_resnet import RGAResNet

__all__ = ["RGAResNet"]
