import timm
import torch
from family_tests import ModelFamilyTests
from torch import Tensor, nn
from torch.nn import functional as F


class TestRGAMobileNet(ModelFamilyTests):
    tiny = "test_rga_mobilenet"
    stages = ("blocks.0", "blocks.1", "blocks.3", "blocks.5")
    variants = (
        "rga_mobilenetv2_100",
        "rga_mobilenetv3_large_100",
        "rga_mobilenetv4_conv_medium",
    )
    widened = 1  # the convolution behind pooling gives its own width
    golden_embedding = (0.494051, -1.879421, 0.361942, 0.792204, -1.145049, 1.872013)
    golden_logits = (-0.787980, -1.854236, 2.119245, -1.789654, 1.118682)

    def pooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        """V3 has a linear layer and hard swish after pooling."""
        weight = model.conv_head.weight.flatten(1)
        return F.hardswish(F.linear(maps.mean((2, 3)), weight, model.conv_head.bias))

    def unpooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        weight = model.conv_head.weight.flatten(1)
        x = F.linear(maps.permute(0, 2, 3, 1), weight, model.conv_head.bias)
        return F.hardswish(x).permute(0, 3, 1, 2)

    def test_v4_normalises_after_the_convolution_behind_pooling(self):
        model = timm.create_model("rga_mobilenetv4_conv_medium", img_size=(64, 32)).eval()
        maps = torch.randn(2, 960, 4, 2, generator=torch.Generator().manual_seed(0))
        model.norm_head.running_mean.normal_(0, 0.1)
        x = F.linear(maps.mean((2, 3)), model.conv_head.weight.flatten(1))
        norm = model.norm_head
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        torch.testing.assert_close(model.forward_neck(maps)[0], x.relu(), rtol=1e-4, atol=1e-5)
