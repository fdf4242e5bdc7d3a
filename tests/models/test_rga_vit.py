import pytest
import timm
import torch
from family_tests import ModelFamilyTests
from random_weights import scramble, settle
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn


class TestRGAVisionTransformer(ModelFamilyTests):
    tiny = "test_rga_vit"
    stages = ("blocks.1", "blocks.2", "blocks.4", "blocks.5")
    variants = ("rga_vit_small_patch16",)
    golden_embedding = (0.491443, -1.264806, 0.257469, 0.200287, -0.019012, -0.883091)
    golden_logits = (0.181261, 0.748578, -0.495670, -1.386677, 0.370839)

    def grid(self, size: tuple[int, int], reduction: int) -> tuple[int, int]:
        return size[0] // reduction, size[1] // reduction

    def traced_to_maps(self, feature: Tensor, shape: torch.Size) -> Tensor:
        """Blocks give tokens, the class token first."""
        return feature[:, 1:].mT.reshape(shape)

    def plain(self, model: nn.Module, **kwargs) -> nn.Module:
        """For images of the same size: position embeddings stay as they are."""
        backbone = timm.create_model(
            model.backbone, num_classes=10, img_size=model.img_size, **kwargs
        )
        return settle(scramble(backbone, seed=1), self.images(8)).eval()

    def test_blocks_weigh_patches_and_leave_the_class_token_alone(self):
        model = self.make()
        block = model.blocks[1]
        x = torch.randn(2, 9, 64, generator=torch.Generator().manual_seed(0))
        plain = timm.create_model("test_vit", img_size=(64, 32)).blocks[1].eval()
        plain.load_state_dict({k: v for k, v in block.state_dict().items() if "rga." not in k})
        tokens, actual = plain(x), block(x)
        assert torch.equal(actual[:, 0], tokens[:, 0])
        maps = tokens[:, 1:].mT.reshape(2, 64, 4, 2)
        torch.testing.assert_close(actual[:, 1:], block.rga(maps).reshape(2, 64, 8).mT)
        assert not torch.allclose(actual[:, 1:], tokens[:, 1:])

    def test_attention_stands_at_the_quarters_of_the_depth(self):
        model = timm.create_model("rga_vit_small_patch16", device="meta")
        found = [i for i, block in enumerate(model.blocks) if hasattr(block, "rga")]
        assert found == [2, 5, 8, 11]
        maps = timm.create_model("rga_vit_small_patch16", device="meta", features_only=True)
        assert [i["module"] for i in maps.feature_info.get_dicts()] == [
            "blocks.2",
            "blocks.5",
            "blocks.8",
            "blocks.11",
        ]

    @pytest.mark.parametrize("size", [(64, 32), (96, 48), (80, 80)])
    def test_position_embeddings_of_square_images_are_resampled(self, tmp_path, size):
        plain = scramble(timm.create_model("test_vit", num_classes=10))  # 160x160: a 10x10 grid
        path = tmp_path / "plain.pth"
        model = self.load_plain(path, plain.state_dict(), img_size=size)
        grid = (size[0] // 16, size[1] // 16)
        expected = resample_abs_pos_embed(plain.pos_embed, grid, (10, 10))
        assert torch.equal(model.pos_embed, expected)
        assert torch.equal(model.norm.weight, plain.norm.weight)

    def test_position_embeddings_of_own_checkpoints_are_resampled_from_their_grid(self, tmp_path):
        # 8x2 and 4x4 are as many positions: the grid must come from the checkpoint's config.
        model = self.make(img_size=(128, 32), num_classes=5)
        torch.save(model.state_dict(), tmp_path / "own.pth")
        overlay = {"file": str(tmp_path / "own.pth"), "input_size": (3, 128, 32)}
        other = timm.create_model(
            self.tiny, pretrained=True, pretrained_cfg_overlay=overlay, img_size=(64, 64)
        )
        expected = resample_abs_pos_embed(model.pos_embed, (4, 4), (8, 2))
        assert torch.equal(other.pos_embed, expected)
        model.set_input_size((64, 64))
        assert torch.equal(model.pos_embed, expected)
