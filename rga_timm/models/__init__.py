"""Models, one file a family. Importing this registers them with timm."""

from .rga_convnext import RGAConvNeXt
from .rga_efficientnet import RGAEfficientNet
from .rga_mobilenet import RGAMobileNetV3
from .rga_regnet import RGARegNet
from .rga_resnet import RGAResNet
from .rga_resnet_ibn import RGAResNetIBN
from .rga_vit import RGAVisionTransformer

__all__ = [
    "RGAConvNeXt",
    "RGAEfficientNet",
    "RGAMobileNetV3",
    "RGARegNet",
    "RGAResNet",
    "RGAResNetIBN",
    "RGAVisionTransformer",
]
