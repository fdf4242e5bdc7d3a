import pytest
import timm
import torch
from family_tests import PatchFamilyTests
from random_weights import scramble, settle
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import ResPostBlock
from timm.optim import create_optimizer_v2
from torch import Tensor, nn


class TestRGAVisionTransformer(PatchFamilyTests):
    tiny = "test_rga_vit"
    stages = ("blocks.1", "blocks.2", "blocks.4", "blocks.5")
    variants = ("rga_vit_small_patch16",)
    golden_embedding = (0.491443, -1.264806, 0.257469, 0.200287, -0.019012, -0.883091)
    golden_logits = (0.181261, 0.748578, -0.495670, -1.386677, 0.370839)

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

    @pytest.mark.parametrize(
        "settings",
        [
            {"dynamic_img_size": True},
            {"patch_drop_rate": 0.5},
            {"fc_norm": True},
            {"pool_include_prefix": True},
        ],
        ids=str,
    )
    def test_what_would_change_the_grid_or_the_feature_is_refused(self, settings):
        with pytest.raises(ValueError, match=next(iter(settings))):
            timm.create_model(self.tiny, **settings)

    def test_blocks_of_another_kind_are_refused(self):
        with pytest.raises(ValueError, match="ResPostBlock"):
            timm.create_model(self.tiny, block_fn=ResPostBlock)

    @pytest.mark.parametrize("patch_size", [(16, 8), (8, 16), 32])
    def test_attention_sees_the_grid_of_other_patches(self, patch_size):
        model = timm.create_model(self.tiny, patch_size=patch_size).eval()
        maps = model.forward_features(self.images())
        height, width = patch_size if isinstance(patch_size, tuple) else (patch_size, patch_size)
        assert tuple(maps.shape[2:]) == (64 // height, 32 // width)
        assert (model.blocks[1].rga.height, model.blocks[1].rga.width) == tuple(maps.shape[2:])

    def test_position_embeddings_without_class_token_are_resampled(self):
        model = self.make(no_embed_class=True, img_size=(128, 32))
        overlay = {"state_dict": model.state_dict(), "input_size": (3, 128, 32)}
        other = timm.create_model(
            self.tiny,
            no_embed_class=True,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            img_size=(64, 64),
        )
        expected = resample_abs_pos_embed(model.pos_embed, (4, 4), (8, 2), num_prefix_tokens=0)
        assert torch.equal(other.pos_embed, expected)

    def test_weight_decay_leaves_embeddings_alone(self):
        model = self.make(num_classes=7)
        assert {"pos_embed", "cls_token"} <= set(model.no_weight_decay())
        optimizer = create_optimizer_v2(model, "sgd", lr=1.0, weight_decay=0.1)
        decay = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
        assert decay[id(model.pos_embed)] == decay[id(model.cls_token)] == 0
        assert decay[id(model.fc.weight)] == 0.1

    @pytest.mark.parametrize("depth", [1, 2, 4, 7])
    def test_other_depths_have_their_own_quarters(self, depth):
        model = timm.create_model(self.tiny, depth=depth)
        found = [i for i, block in enumerate(model.blocks) if hasattr(block, "rga")]
        assert found == {1: [0], 2: [0, 1], 4: [0, 1, 2, 3], 7: [1, 3, 5, 6]}[depth]
        maps = timm.create_model(self.tiny, depth=depth, features_only=True)
        assert maps.feature_info.module_name() == [f"blocks.{i}" for i in found]
