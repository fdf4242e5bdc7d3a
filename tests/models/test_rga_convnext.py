import pytest
import timm
import torch
from family_tests import PatchFamilyTests
from torch import Tensor, nn
from torch.nn import functional as F


class TestRGAConvNeXt(PatchFamilyTests):
    tiny = "test_rga_convnext"
    stages = ("stages.0", "stages.1", "stages.2", "stages.3")
    inside = ".blocks"
    variants = ("rga_convnext_tiny", "rga_convnext_small")
    golden_embedding = (0.060243, -0.145598, -0.176013, 0.600121, 0.173898, 0.176359)
    golden_logits = (0.333183, 0.534678, 1.016138, 3.065103, 0.542262)

    def pooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        """A layer norm follows the pooling."""
        norm = model.head.norm
        return F.layer_norm(maps.mean((2, 3)), maps.shape[1:2], norm.weight, norm.bias, norm.eps)

    def unpooled(self, model: nn.Module, maps: Tensor) -> Tensor:
        norm, x = model.head.norm, maps.permute(0, 2, 3, 1)
        x = F.layer_norm(x, maps.shape[1:2], norm.weight, norm.bias, norm.eps)
        return x.permute(0, 3, 1, 2)

    def test_pooling_side_by_side_widens_neck_and_classifier(self):
        """It cannot: timm refuses it, or in older versions fails in the layer norm."""
        with pytest.raises((AssertionError, RuntimeError)):
            self.make(global_pool="catavgmax")

    def test_last_downsampling_takes_every_position_of_the_map(self):
        model = self.make()
        x = torch.randn(2, 48, 4, 2, generator=torch.Generator().manual_seed(0))
        weight, bias = model.stages[3].downsample[-1].weight, model.stages[3].downsample[-1].bias
        normed = model.stages[3].downsample[0](x)
        actual = model.stages[3].downsample(x)
        assert actual.shape == (2, 64, 4, 2)
        # Every second position is what the plain model's stride 2 would give there.
        strided = F.conv2d(normed, weight, bias, stride=2)
        torch.testing.assert_close(actual[:, :, ::2, ::2], strided)
        # The last row and column look over the edge, at zeros.
        corner = torch.einsum("oc,bc->bo", weight[:, :, 0, 0], normed[:, :, -1, -1]) + bias
        torch.testing.assert_close(actual[:, :, -1, -1], corner)

    def test_names_of_the_downsampling_are_those_of_timm(self):
        names = set(timm.create_model("convnext_tiny", device="meta").state_dict())
        ours = set(timm.create_model("rga_convnext_tiny", device="meta").state_dict())
        assert {n for n in names if "downsample" in n} == {n for n in ours if "downsample" in n}
