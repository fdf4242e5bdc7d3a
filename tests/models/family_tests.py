"""What every model family must do, once: a subclass a family gives the names (TestRGAResNet)."""

import json

import pytest
import timm
import torch
from random_weights import scramble, settle
from timm.models import create_feature_extractor, group_parameters
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

import rga_timm  # noqa: F401 - registers the models
from rga_timm.hub import save_pretrained


class ModelFamilyTests:
    """Subclass as ``Test<Family>``; override what is below."""

    tiny: str  # the family's small model, which is built and run
    size: tuple[int, int]  # its image size, (height, width)
    variants: tuple[str, ...]  # the real ones, built without memory
    stages: tuple[str, ...]  # modules that end in an RGA

    def make(self, **kwargs) -> nn.Module:
        model = scramble(timm.create_model(self.tiny, **kwargs))
        return settle(model, self.images(8, model.in_chans, model.img_size))

    def images(self, batch: int = 2, chans: int = 3, size: tuple[int, int] | None = None) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(batch, chans, *(size or self.size), generator=generator)

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
        assert model(x).shape == (2, num_classes or model.num_features)
        assert model.num_classes == num_classes
        embedding = model.forward_head(features, pre_logits=True)
        assert embedding.shape == (2, model.num_features) == (2, model.head_hidden_size)
        if num_classes == 0:
            assert torch.equal(model(x), embedding)
        else:
            assert torch.equal(model(x), model.get_classifier()(embedding))

    def test_neck_gives_feature_before_and_after_batch_norm(self):
        model = self.make(num_classes=7)
        features = model.forward_features(self.images())
        pooled, embedding = model.forward_neck(features)
        torch.testing.assert_close(pooled, features.mean((2, 3)))
        assert torch.equal(embedding, model.neck(pooled))
        assert torch.equal(embedding, model.forward_head(features, pre_logits=True))
        assert not torch.allclose(pooled, embedding)
        assert model.neck.bias is None

    @pytest.mark.parametrize("pool", ["avg", "max", "avgmax"])
    def test_pooling_of_any_type(self, pool):
        model = self.make(num_classes=7, global_pool=pool)
        assert model(self.images()).shape == (2, 7)

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
        maps = model.forward_features(x)
        model.reset_classifier(0, "")
        assert torch.equal(model(x), maps)
        model.reset_classifier(4, "avg")
        assert model(x).shape == (2, 4)
        assert isinstance(model.neck, nn.BatchNorm1d)

    def test_created_without_pooling_gives_maps(self):
        model = self.make(num_classes=0, global_pool="")
        assert torch.equal(model(self.images()), model.forward_features(self.images()))

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
        missing = backbone.load_state_dict(model.state_dict(), strict=False).missing_keys
        assert not missing
        x = self.images()
        maps = backbone(x)
        final, intermediates = model.forward_intermediates(x)
        assert len(maps) == len(intermediates) == 1 + len(self.stages)
        for a, b, info in zip(maps, intermediates, model.feature_info, strict=True):
            torch.testing.assert_close(a, b)
            assert a.shape[1] == info["num_chs"]
            assert a.shape[2] == -(-self.size[0] // info["reduction"])
            assert a.shape[3] == -(-self.size[1] // info["reduction"])
        assert torch.equal(final, model.forward_features(x))
        assert torch.equal(final, intermediates[-1])

    def test_features_include_the_attention(self):
        maps = timm.create_model(self.tiny, features_only=True)
        assert sum(name.endswith(".rga") for name, _ in maps.named_modules()) == len(self.stages)

    @pytest.mark.parametrize("index", [1, 2])
    def test_prune_intermediate_layers(self, index):
        model = self.make(num_classes=7)
        x = self.images()
        expected = model.forward_intermediates(x, indices=[index], intermediates_only=True)
        model.prune_intermediate_layers([index], prune_head=True)
        actual = model.forward_intermediates(x, indices=[index], intermediates_only=True)
        assert torch.equal(actual[0], expected[0])
        assert isinstance(model.get_classifier(), nn.Identity)
        rgas = [n for n, _ in model.named_modules() if n.endswith(".rga")]
        assert len(rgas) == index

    def test_fx_feature_extractor_equals_stages(self):
        model = self.make()
        x = self.images()
        extractor = create_feature_extractor(model, {s: s for s in self.stages})
        expected = model.forward_intermediates(x, intermediates_only=True)[1:]
        for a, b in zip(extractor(x).values(), expected, strict=True):
            torch.testing.assert_close(a, b)

    # Optimisation.

    @pytest.mark.parametrize("training", [True, False], ids=["training", "eval"])
    @pytest.mark.parametrize("relation", ["none", "s", "c", "sc", "cs", "parallel"])
    def test_every_parameter_gets_a_gradient(self, relation, training):
        model = self.make(num_classes=7, relation=relation).train(training)
        model(self.images(4)).square().sum().backward()
        for name, p in model.named_parameters():
            assert p.grad is not None, name
            assert p.grad.isfinite().all(), name

    def test_grad_checkpointing_changes_neither_output_nor_gradients(self):
        results = []
        for enable in (False, True):
            model = self.make(num_classes=7).double().train()
            model.set_grad_checkpointing(enable)
            out = model(self.images(4).double())
            out.square().sum().backward()
            results.append([out, *(p.grad for p in model.parameters())])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)

    @pytest.mark.parametrize("coarse", [False, True])
    def test_groups_put_attention_with_the_end_of_its_stage(self, coarse):
        model = self.make(num_classes=7)
        groups = group_parameters(model, model.group_matcher(coarse=coarse))
        group_of = {name: i for i, names in groups.items() for name in names}
        assert set(group_of) == {n for n, _ in model.named_parameters()}
        head = group_of["fc.weight"]
        assert head == group_of["neck.weight"] == max(groups)
        for stage in self.stages:
            names = [n for n in group_of if n.startswith(f"{stage}.")]
            ours = {group_of[n] for n in names if ".rga." in n}
            others = {group_of[n] for n in names if ".rga." not in n}
            assert ours == {max(others)}
            assert max(others) < head

    def test_layer_decay_gives_attention_the_rate_of_its_stage(self):
        model = self.make(num_classes=7)
        optimizer = create_optimizer_v2(model, "sgd", lr=1.0, weight_decay=0.01, layer_decay=0.5)
        scale = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
        by_name = {n: scale[id(p)] for n, p in model.named_parameters()}
        assert by_name["fc.weight"] == 1
        previous = 0.0
        for stage in self.stages:
            ours = {v for n, v in by_name.items() if n.startswith(f"{stage}.rga.")}
            others = {v for n, v in by_name.items() if n.startswith(f"{stage}.")} - ours
            assert len(ours) == 1
            (rate,) = ours
            assert previous < rate < 1
            assert all(o <= rate for o in others)
            previous = rate

    def test_no_weight_decay_names_parameters(self):
        model = self.make()
        assert set(model.no_weight_decay()) <= {n for n, _ in model.named_parameters()}

    # Sizes, channels, data types, devices.

    @pytest.mark.parametrize("chans", [1, 4])
    def test_images_of_other_channels(self, chans):
        model = self.make(in_chans=chans)
        assert model(self.images(chans=chans)).shape == (2, model.num_features)

    @pytest.mark.parametrize("size", [(96, 40), (50, 70), (33, 17)])
    @pytest.mark.parametrize("relation", ["s", "c", "sc"])
    def test_image_size_of_any_proportion(self, size, relation):
        model = self.make(img_size=size, relation=relation)
        assert model(self.images(size=size)).shape == (2, model.num_features)
        native = self.make(relation=relation)
        assert [p.shape[0] for p in model.parameters()] == [p.shape[0] for p in native.parameters()]

    def test_one_number_is_a_square_image(self):
        model = self.make(img_size=48)
        assert model.img_size == (48, 48)
        assert model(self.images(size=(48, 48))).shape == (2, model.num_features)

    @pytest.mark.parametrize("size", [0, (64, -1), (64,), (64, 32, 3), (64.5, 32)])
    def test_what_is_no_size_is_refused(self, size):
        with pytest.raises(ValueError, match=r"img_size|image size"):
            timm.create_model(self.tiny, img_size=size)

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
        assert found == ({f"{s}.rga" for s in self.stages} if relation != "none" else set())
        for stage in self.stages:
            if found:
                assert list(dict(model.get_submodule(stage).named_children()))[-1] == "rga"

    # Ways to run a model.

    def test_torchscript_equals_eager(self):
        model = self.make(num_classes=7)
        x = self.images()
        scripted = torch.jit.script(model)
        torch.testing.assert_close(scripted(x), model(x))
        with pytest.raises(Exception, match="img_size"):
            scripted(self.images(size=(self.size[0] * 2, self.size[1])))

    def test_torchscript_trains(self):
        model = self.make(num_classes=7).double().train()
        scripted = torch.jit.script(self.make(num_classes=7).double().train())
        x = self.images(4).double()
        for m in (model, scripted):
            m(x).square().sum().backward()
        for (name, p), q in zip(model.named_parameters(), scripted.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-9, atol=1e-9, msg=name)

    def test_export_equals_eager(self):
        model = self.make(num_classes=7)
        x = self.images()
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), model(x))

    def test_compiled_in_one_graph_equals_eager(self):
        torch._dynamo.reset()
        model = self.make(num_classes=7)
        compiled = torch.compile(self.make(num_classes=7), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(self.images()), model(self.images()))

    def test_compiled_training_step_equals_eager(self):
        # aot_eager traces forward and backward, as inductor does before it generates code.
        torch._dynamo.reset()
        model = self.make(num_classes=7).double().train()
        twin = self.make(num_classes=7).double().train()
        compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
        x = self.images(4).double()
        for m in (model, compiled):
            m(x).square().sum().backward()
        for (name, p), q in zip(model.named_parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad, rtol=1e-8, atol=1e-8, msg=name)
        for (name, p), q in zip(model.named_buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-8, atol=1e-8, msg=name)

    # The real variants.

    def test_variants_are_registered_with_weights_and_documented_sizes(self):
        assert set(self.variants) <= set(timm.list_models("*rga*"))
        tagged = timm.list_models("*rga*", pretrained=True)
        assert {name.split(".")[0] for name in tagged} == set(self.variants)
        for name in self.variants:
            cfg = timm.get_pretrained_cfg(name)
            assert cfg.fixed_input_size
            assert cfg.input_size == (3, 256, 128)
            assert cfg.hf_hub_id.startswith("timm/")

    def test_variants_keep_16_by_8_maps_at_256_by_128(self):
        for name in self.variants:
            model = timm.create_model(name, num_classes=751, device="meta").eval()
            assert [i["reduction"] for i in model.feature_info] == [2, 4, 8, 16, 16]
            maps = model.forward_features(torch.empty(1, 3, 256, 128, device="meta"))
            assert maps.shape == (1, model.num_features, 16, 8), name
            assert model.forward_head(maps).shape == (1, 751)
            assert all(p.is_meta for p in model.parameters())
