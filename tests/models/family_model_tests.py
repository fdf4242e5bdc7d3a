"""What every model family must do: head, features, image sizes."""

import json
import re

import pytest
import timm
import torch
from family_base import FamilyBase
from timm.models import create_feature_extractor
from torch import Tensor, nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained


class ModelTests(FamilyBase):
    """Head, features of the stages, sizes."""

    @pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
    def test_output_depends_on_the_image(self, training):
        out = self.make(num_classes=7).train(training)(self.images(4))
        assert out.std(dim=0).min() > 0.05  # or what follows would compare constants

    # Shapes of the head.

    @pytest.mark.parametrize("num_classes", [0, 7])
    def test_forward_gives_embedding_or_logits(self, num_classes):
        model = self.make(num_classes=num_classes)
        x = self.images()
        features = model.forward_features(x)
        assert features.shape[:2] == (2, model.num_features)
        assert model(x).shape == (2, num_classes or model.head_hidden_size)
        assert model.num_classes == num_classes
        embedding = model.forward_head(features, pre_logits=True)
        assert embedding.shape == (2, model.head_hidden_size)
        if num_classes == 0:
            assert torch.equal(model(x), embedding)
        else:
            assert torch.equal(model(x), model.get_classifier()(embedding))

    def test_neck_gives_feature_before_and_after_batch_norm(self):
        model = self.make(num_classes=7)
        features = model.forward_features(self.images())
        pooled, embedding = model.forward_neck(features)
        torch.testing.assert_close(pooled, self.pooled(model, features))
        assert torch.equal(embedding, model.neck(pooled))
        assert torch.equal(embedding, model.forward_head(features, pre_logits=True))
        assert not torch.allclose(pooled, embedding)
        assert model.neck.bias is None

    @pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
    def test_pooling_of_any_type(self, pool):
        model = self.make(num_classes=7, global_pool=pool)
        assert model(self.images()).shape == (2, 7)

    def test_pooling_side_by_side_widens_neck_and_classifier(self):
        model = self.make(num_classes=7, global_pool="catavgmax")
        width = self.widened * self.make().head_hidden_size
        assert model.head_hidden_size == width
        pooled, embedding = model.forward_neck(model.forward_features(self.images()))
        assert pooled.shape == embedding.shape == (2, width)
        assert model(self.images()).shape == (2, 7)
        if self.widened > 1:
            model = self.make(num_classes=7)
            model.reset_classifier(5, "catavgmax")
            assert model.neck.weight.shape == (width,)
            assert model(self.images()).shape == (2, 5)

    def test_reset_classifier_changes_identities_and_keeps_the_neck(self):
        model = self.make(num_classes=7)
        x = self.images()
        embedding = model.forward_head(model.forward_features(x), pre_logits=True)
        model.reset_classifier(5)
        assert model(x).shape == (2, 5)
        assert model.num_classes == 5
        model.reset_classifier(0)
        assert torch.equal(model(x), embedding)
        assert isinstance(model.get_classifier(), nn.Identity)
        model.reset_classifier(3)
        fc = model.get_classifier()
        assert (fc.out_features, fc.bias) == (3, None)

    def test_reset_classifier_without_pooling_gives_maps_and_back(self):
        model = self.make(num_classes=7)
        x = self.images()
        maps = self.unpooled(model, model.forward_features(x))
        model.reset_classifier(0, "")
        torch.testing.assert_close(model(x), maps)
        model.reset_classifier(4, "avg")
        assert model(x).shape == (2, 4)
        assert isinstance(model.neck, nn.BatchNorm1d)

    def test_created_without_pooling_gives_maps(self):
        model = self.make(num_classes=0, global_pool="")
        maps = self.unpooled(model, model.forward_features(self.images()))
        torch.testing.assert_close(model(self.images()), maps)

    def test_reset_classifier_keeps_data_type(self):
        model = self.make(num_classes=7).to(torch.float64)
        model.reset_classifier(3)
        assert model.get_classifier().weight.dtype == torch.float64

    def test_classifier_is_linear_without_bias_and_starts_small(self):
        model = timm.create_model(self.tiny, num_classes=2000)
        for _ in range(2):
            fc = model.get_classifier()
            assert isinstance(fc, nn.Linear)
            assert fc.bias is None
            assert fc.out_features == 2000
            assert fc.weight.std().item() == pytest.approx(0.001, rel=0.05)
            model.reset_classifier(10)
            model.reset_classifier(2000)

    def test_negative_number_of_classes_is_refused(self):
        with pytest.raises(ValueError, match="num_classes"):
            timm.create_model(self.tiny, num_classes=-1)

    def test_dropout_acts_on_the_embedding_in_training_alone(self):
        model = self.make(num_classes=7, drop_rate=0.9)
        features = model.forward_features(self.images())
        assert torch.equal(model.forward_head(features), model.forward_head(features))
        model.train()
        embedding = model.forward_head(features, pre_logits=True)
        assert (embedding == 0).any()

    # Features of the stages.

    def test_features_only_equals_intermediates(self):
        model = self.make()
        backbone = timm.create_model(self.tiny, features_only=True).eval()
        own = {f"model.{k}": v for k, v in model.state_dict().items()} | model.state_dict()
        # Flattened sequences, but for ViTs, whose extractor keeps the model within it.
        own |= {re.sub(r"^(blocks|stages|stem)\.(\d+)", r"\1_\2", k): v for k, v in own.items()}
        missing = backbone.load_state_dict(own, strict=False).missing_keys
        assert not missing
        x = self.images()
        maps = backbone(x)
        final, intermediates = model.forward_intermediates(x)
        by_name = dict(zip((i["module"] for i in model.feature_info), intermediates, strict=True))
        names = [info["module"] for info in backbone.feature_info.get_dicts()]
        assert len(maps) == len(names)
        assert set(self.stages) <= set(names)
        for a, name, info in zip(maps, names, backbone.feature_info.get_dicts(), strict=True):
            torch.testing.assert_close(a, by_name[name])
            assert a.shape[1] == info["num_chs"]
            assert tuple(a.shape[2:]) == self.grid(self.size, info["reduction"])
        assert torch.equal(final, model.forward_features(x))

    def test_features_include_the_attention(self):
        maps = timm.create_model(self.tiny, features_only=True)
        assert sum(name.endswith(".rga") for name, _ in maps.named_modules()) == len(self.stages)

    @pytest.mark.parametrize("index", [1, 2])
    def test_prune_intermediate_layers(self, index):
        model = self.make(num_classes=7)
        x = self.images()
        modules = [info["module"] for info in model.feature_info]
        expected = model.forward_intermediates(x, indices=[index], intermediates_only=True)
        model.prune_intermediate_layers([index], prune_head=True)
        actual = model.forward_intermediates(x, indices=[index], intermediates_only=True)
        assert torch.equal(actual[0], expected[0])
        assert isinstance(model.get_classifier(), nn.Identity)
        rgas = [n for n, _ in model.named_modules() if n.endswith(".rga")]
        assert len(rgas) == sum(modules.index(stage) <= index for stage in self.stages)

    def test_fx_feature_extractor_equals_stages(self):
        model = self.make()
        x = self.images()
        extractor = create_feature_extractor(model, {s: s for s in self.stages})
        modules = [info["module"] for info in model.feature_info]
        indices = [modules.index(stage) for stage in self.stages]
        expected = model.forward_intermediates(x, indices=indices, intermediates_only=True)
        for a, b in zip(extractor(x).values(), expected, strict=True):
            torch.testing.assert_close(self.traced_to_maps(a, b.shape), b)

    def traced_to_maps(self, feature: Tensor, shape: torch.Size) -> Tensor:
        """What fx finds after a stage, as maps."""
        return feature

    # Sizes, channels, data types, devices.

    @pytest.mark.parametrize("chans", [1, 4])
    def test_images_of_other_channels(self, chans):
        model = self.make(in_chans=chans)
        assert model(self.images(chans=chans)).shape == (2, model.head_hidden_size)

    @pytest.mark.parametrize("size", [(96, 40), (50, 70), (33, 17)])
    @pytest.mark.parametrize("relation", ["s", "c", "sc"])
    def test_image_size_of_any_proportion(self, size, relation):
        model = self.make(img_size=size, relation=relation)
        assert model(self.images(size=size)).shape == (2, model.head_hidden_size)
        native = self.make(relation=relation)
        assert [p.shape[0] for p in model.parameters()] == [p.shape[0] for p in native.parameters()]

    def test_one_number_is_a_square_image(self):
        model = self.make(img_size=48)
        assert model.img_size == (48, 48)
        assert model(self.images(size=(48, 48))).shape == (2, model.head_hidden_size)

    @pytest.mark.parametrize("size", [0, (64, -1), (64,), (64, 32, 3), (64.5, 32)])
    def test_what_is_no_size_is_refused(self, size):
        with pytest.raises(ValueError, match=r"img_size|image size"):
            timm.create_model(self.tiny, img_size=size)

    def test_reduction_below_one_is_refused(self):
        with pytest.raises(ValueError, match="reduction"):
            timm.create_model(self.tiny, reduction=0)

    def test_set_input_size_takes_images_of_that_size(self):
        model = self.make(num_classes=7)
        model.set_input_size((80, 48))
        assert model.img_size == (80, 48)
        assert model(self.images(size=(80, 48))).shape == (2, 7)
        with pytest.raises(Exception, match="img_size"):
            model(self.images())

    def test_set_input_size_to_the_same_size_changes_no_value(self):
        model = self.make()
        before = {k: v.clone() for k, v in model.state_dict().items()}
        model.set_input_size(self.size)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())

    def test_exported_config_follows_the_image_size(self, tmp_path):
        model = self.make(img_size=(80, 48))
        model.set_input_size((96, 40))
        save_pretrained(model, tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        assert config["pretrained_cfg"]["input_size"] == [3, 96, 40]
        assert config["model_args"]["img_size"] == [96, 40]

    def test_image_of_another_size_is_refused_with_a_hint(self):
        model = self.make()
        with pytest.raises(Exception, match=r"img_size.*set_input_size"):
            model(self.images(size=(self.size[0] * 2, self.size[1])))

    def test_bfloat16_model(self):
        model = timm.create_model(self.tiny, num_classes=7, dtype=torch.bfloat16).eval()
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
        out = model(self.images().bfloat16())
        assert out.dtype == torch.bfloat16
        assert out.isfinite().all()

    def test_channels_last_gives_the_same(self):
        model = self.make(num_classes=7).double().train()
        x = self.images(4).double()
        expected = model(x)
        model = self.make(num_classes=7).double().train().to(memory_format=torch.channels_last)
        actual = model(x.contiguous(memory_format=torch.channels_last))
        torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)

    def test_unknown_argument_is_refused(self):
        with pytest.raises(TypeError, match="no_such_argument"):
            timm.create_model(self.tiny, no_such_argument=1)

    def test_unknown_relation_is_refused_with_the_known_ones(self):
        with pytest.raises(ValueError, match="'none', 's', 'c', 'sc', 'cs', 'parallel'"):
            timm.create_model(self.tiny, relation="spatial")

    @pytest.mark.parametrize("relation", ["none", "s", "c", "sc", "cs", "parallel"])
    def test_relation_decides_what_stands_after_each_stage(self, relation):
        model = timm.create_model(self.tiny, relation=relation, device="meta")
        found = {n for n, m in model.named_modules() if n.endswith(".rga")}
        assert found == (set(self.rga_names) if relation != "none" else set())
        for name in found:
            parent = model.get_submodule(name.removesuffix(".rga"))
            assert list(dict(parent.named_children()))[-1] == "rga"
