"""What every model family must do, once: a subclass a family gives the names (TestRGAResNet)."""

import pytest
import timm
import torch
from family_model_tests import ModelTests
from family_running_tests import RunningTests
from family_weights_tests import WeightsTests


class ModelFamilyTests(ModelTests, RunningTests, WeightsTests):
    """Subclass as ``Test<Family>``; override what :class:`FamilyBase` names."""


class PatchFamilyTests(ModelFamilyTests):
    """For families of patches that do not overlap: what is left over of an image is cut off."""

    def grid(self, size: tuple[int, int], reduction: int) -> tuple[int, int]:
        return size[0] // reduction, size[1] // reduction

    def test_image_too_small_for_a_map_is_refused_and_changes_nothing(self):
        with pytest.raises(ValueError, match="8x40 is too small"):
            timm.create_model(self.tiny, img_size=(8, 40))
        model = self.make(num_classes=7)
        expected = model(self.images())
        with pytest.raises(ValueError, match="24x8 is too small"):
            model.set_input_size((24, 8))
        assert torch.equal(model(self.images()), expected)
