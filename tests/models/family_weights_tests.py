"""What every model family must do: take and give weights; what its variants are."""

import logging
import re

import huggingface_hub
import pytest
import timm
import torch
from family_base import FamilyBase
from hub_cache import put_into_hub_cache
from random_weights import scramble, settle
from torch import nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained
from rga_timm.weights import HUB_ORGANISATION


class WeightsTests(FamilyBase):
    """Weights of the backbone, own checkpoints, the registered variants."""

    # Weights.

    def plain(self, model: nn.Module, **kwargs) -> nn.Module:
        """timm's own model of the backbone, as small as the tiny model."""
        backbone = timm.create_model(model.backbone, num_classes=10, **self.small, **kwargs)
        return settle(scramble(backbone, seed=1), self.images(8)).eval()

    def load_plain(self, path, weights, **kwargs) -> nn.Module:
        torch.save(weights, path)
        overlay = {"file": str(path)}
        model = timm.create_model(
            self.tiny, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
        )
        return model.eval()

    @pytest.mark.parametrize("num_classes", [0, 7, 10])
    def test_weights_of_the_plain_backbone_load_and_give_its_features(
        self, tmp_path, caplog, num_classes
    ):
        plain = self.plain(self.make())
        with caplog.at_level(logging.WARNING):
            model = self.load_plain(
                tmp_path / "plain.pth",
                plain.state_dict(),
                num_classes=num_classes,
                relation="none",
            )
        assert "backbone alone" in caplog.text
        x = self.images()
        # All stages before the one that had the last stride are timm's own to the bit.
        ours, theirs = (m.feature_info[-1]["reduction"] for m in (model, plain))
        end = None if ours == theirs else -1
        actual = model.forward_intermediates(x, intermediates_only=True)
        expected = plain.forward_intermediates(x, intermediates_only=True)
        for a, b in zip(actual[:end], expected[:end], strict=True):
            self.assert_same_maps(a, b)
        assert torch.equal(model.neck.weight, torch.ones_like(model.neck.weight))
        if num_classes:
            assert model.get_classifier().weight.abs().max() < 0.01  # fresh, not ImageNet's

    def test_every_weight_of_the_plain_backbone_arrives(self, tmp_path):
        plain = self.plain(self.make()).state_dict()
        model = self.load_plain(tmp_path / "plain.pth", plain, num_classes=10)
        state = model.state_dict()
        classifier = timm.get_pretrained_cfg(model.backbone).classifier
        for key, value in plain.items():
            if not key.startswith(f"{classifier}."):
                assert torch.equal(state[key], value), key

    def test_plain_weights_with_a_gap_are_refused(self, tmp_path):
        plain = dict(self.plain(self.make()).state_dict())
        key = [k for k in plain if plain[k].ndim == 4][-1]
        del plain[key]
        with pytest.raises(ValueError, match=rf"missing: 1 \({re.escape(key)}\)"):
            self.load_plain(tmp_path / "plain.pth", plain, num_classes=3)

    @pytest.mark.parametrize("settings", [{}, {"img_size": (80, 48), "relation": "cs"}], ids=str)
    def test_saved_model_comes_back_bit_for_bit(self, tmp_path, settings):
        model = self.make(num_classes=7, **settings)
        folder = save_pretrained(model, tmp_path / "model")
        other = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        self.assert_same(model, other)

    def test_model_comes_back_through_the_hub_cache(self, tmp_path, monkeypatch):
        model = self.make(num_classes=7, img_size=(80, 48))
        folder = save_pretrained(model, tmp_path / "model")
        put_into_hub_cache(folder, tmp_path / "cache", "someone/rga")
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
        source, cache = "hf-hub:someone/rga", tmp_path / "cache"
        self.assert_same(model, timm.create_model(source, pretrained=True, cache_dir=cache).eval())

    def test_checkpoint_at_another_size_equals_the_model_resized(self, tmp_path, caplog):
        model = self.make(num_classes=7)
        folder = save_pretrained(model, tmp_path)
        with caplog.at_level(logging.INFO, logger="rga_timm"):
            other = timm.create_model(f"local-dir:{folder}", pretrained=True, img_size=(80, 48))
        said = [r for r in caplog.records if "64x32 to 80x48" in r.getMessage()]
        assert len(said) == 1
        model.set_input_size((80, 48))
        self.assert_same(model, other.eval())

    def assert_same(self, model: nn.Module, other: nn.Module) -> None:
        assert type(model) is type(other)
        state = other.state_dict()
        assert state.keys() == model.state_dict().keys()
        assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
        x = self.images(size=model.img_size)
        assert torch.equal(model(x), other(x))

    def test_output_of_a_fixed_model_stays_what_it_was(self):
        model = self.make(num_classes=5)
        x = torch.linspace(-2, 2, 3 * 64 * 32).reshape(1, 3, 64, 32)
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
        actual = embedding[0, :6].tolist() + model(x)[0].tolist()
        expected = [*self.golden_embedding, *self.golden_logits]
        assert actual == pytest.approx(expected, rel=1e-4, abs=1e-4)  # threads round differently

    # The real variants.

    def test_variants_are_registered_with_weights_and_documented_sizes(self):
        family = timm.models.model_entrypoint(self.tiny).__module__
        tagged = {
            name: timm.get_pretrained_cfg(name)
            for name in timm.list_models("*rga*", pretrained=True)
            if timm.models.model_entrypoint(name.split(".")[0]).__module__ == family
        }
        # Not the re-id checkpoints, which tests/test_shipped_weights.py looks at.
        imagenet = {
            name: cfg
            for name, cfg in tagged.items()
            if not (cfg.hf_hub_id or "").startswith(f"{HUB_ORGANISATION}/")
        }
        assert {name.split(".")[0] for name in imagenet} == set(self.variants)
        for name, cfg in imagenet.items():
            backbone = timm.create_model(name, device="meta").backbone
            assert cfg.fixed_input_size
            assert cfg.input_size == (3, 256, 128)
            if cfg.url:
                assert cfg.url.endswith(".pth")
            else:  # in full, and of this very backbone
                assert cfg.hf_hub_id == f"timm/{backbone}.{cfg.tag}"
                source = timm.get_pretrained_cfg(f"{backbone}.{cfg.tag}")
                assert (cfg.mean, cfg.std) == (source.mean, source.std)
                assert (cfg.interpolation, cfg.license) == (source.interpolation, source.license)
                assert cfg.first_conv == source.first_conv

    def test_variants_keep_16_by_8_maps_at_256_by_128(self):
        for name in self.variants:
            model = timm.create_model(name, num_classes=751, device="meta").eval()
            assert model.feature_info[-1]["reduction"] == 16
            maps = model.forward_features(torch.empty(1, 3, 256, 128, device="meta"))
            assert maps.shape == (1, model.num_features, 16, 8), name
            assert model.forward_head(maps).shape == (1, 751)
            assert all(p.is_meta for p in model.parameters())

    def test_variants_have_the_parameters_of_their_backbones(self):
        for name in self.variants:
            model = timm.create_model(name, device="meta")
            backbone = timm.create_model(model.backbone, num_classes=0, device="meta")
            new = (".rga.", "neck.", "pos_embed")  # the last for other images
            shapes, expected = (
                {k: v.shape for k, v in m.state_dict().items() if not any(n in k for n in new)}
                for m in (model, backbone)
            )
            assert self.plain_names(shapes) == expected, name

    def plain_names(self, shapes: dict) -> dict:
        """Shapes by name, as the plain backbone has them."""
        return shapes
