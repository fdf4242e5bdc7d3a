import pytest
import timm
import torch
from family_tests import ModelFamilyTests
from random_weights import scramble, settle
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn


class HalfInstanceNorm(nn.Module):
    """IBN-a by plain formulas, with the parameter names of the published checkpoints."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.half = channels // 2
        self.IN = nn.Module()
        self.IN.weight = nn.Parameter(torch.empty(self.half))
        self.IN.bias = nn.Parameter(torch.empty(self.half))
        self.BN = nn.BatchNorm2d(channels - self.half)

    def forward(self, x: Tensor) -> Tensor:
        a, b = x[:, : self.half], x[:, self.half :]
        mean = a.mean((2, 3), keepdim=True)
        variance = (a - mean).square().mean((2, 3), keepdim=True)
        weight, bias = self.IN.weight[:, None, None], self.IN.bias[:, None, None]
        a = (a - mean) / (variance + 1e-5).sqrt() * weight + bias
        return torch.cat([a, self.BN(b)], dim=1)


class TestRGAResNetIBN(ModelFamilyTests):
    tiny = "test_rga_resnet_ibn"
    stages = ("layer1", "layer2", "layer3", "layer4")
    variants = ("rga_resnet50_ibn_a",)
    golden_embedding = (0.888835, -0.069240, 0.898863, -0.460167, -0.951613, -0.462833)
    golden_logits = (0.474437, -1.362497, -0.699245, 0.451154, 0.550132)

    def assert_same_maps(self, actual: Tensor, expected: Tensor) -> None:
        torch.testing.assert_close(actual, expected)

    def plain(self, model: nn.Module, **kwargs) -> nn.Module:
        """A ResNet-IBN, which timm does not have, as the paper's authors publish it."""
        resnet = ResNet(
            Bottleneck, (1, 1, 1, 1), channels=(8, 12, 16, 24), num_classes=10, **kwargs
        )
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3):
            for block in stage:
                block.bn1 = HalfInstanceNorm(block.bn1.num_features)
        return settle(scramble(resnet, seed=1), self.images(8)).eval()

    def plain_names(self, shapes: dict) -> dict:
        """IBN-a in the first three stages has one parameter more in name, none in size."""
        renamed = {}
        for key, shape in shapes.items():
            if ".bn1.IN." in key:
                assert key.startswith(("layer1.", "layer2.", "layer3."))
                partner = shapes[key.replace(".IN.", ".BN.")]
                renamed[key.replace(".IN.", ".")] = torch.Size([shape[0] + partner[0]])
            elif ".bn1.BN." in key:
                name = key.replace(".BN.", ".")
                running = name.rsplit(".", 1)[-1]
                if running in ("running_mean", "running_var"):
                    renamed[name] = torch.Size([2 * shape[0]])
                elif running == "num_batches_tracked":
                    renamed[name] = shape
            else:
                renamed[key] = shape
        return renamed

    def test_other_norms_are_refused(self):
        with pytest.raises(ValueError, match="GroupNorm"):
            timm.create_model(self.tiny, norm_layer="groupnorm1")
