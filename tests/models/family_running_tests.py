"""What every model family must do: train, compile, export."""

import pytest
import torch
from family_base import FamilyBase
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from torch import Tensor

import rga_timm  # noqa: F401 - registers the models


def assert_same_gradient(
    name: str, actual: Tensor, expected: Tensor, rounding: float = 1e-9
) -> None:
    """Up to rounding, which goes with the size of what was added up."""
    size = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual, expected, rtol=rounding, atol=rounding * size, msg=name)


class RunningTests(FamilyBase):
    """Optimisation, and ways to run a model."""

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
            names = [n for n in group_of if n.startswith(f"{stage}{self.inside}.")]
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
            ours = {v for n, v in by_name.items() if n.startswith(f"{stage}{self.inside}.rga.")}
            others = {v for n, v in by_name.items() if n.startswith(f"{stage}.")} - ours
            assert len(ours) == 1
            (rate,) = ours
            assert previous < rate < 1
            assert all(o <= rate for o in others)
            previous = rate

    def test_no_weight_decay_names_parameters(self):
        model = self.make()
        parameters = {n for n, _ in model.named_parameters()}
        for name in model.no_weight_decay():  # timm's ViTs name tokens that they may not have
            assert name in parameters or getattr(model, name, None) is None

    # Ways to run a model.

    @pytest.mark.compile
    def test_torchscript_equals_eager(self):
        model = self.make(num_classes=7)
        x = self.images()
        scripted = torch.jit.script(model)
        torch.testing.assert_close(scripted(x), model(x))
        with pytest.raises(Exception, match="img_size"):
            scripted(self.images(size=(self.size[0] * 2, self.size[1])))

    @pytest.mark.compile
    def test_torchscript_trains(self):
        model = self.make(num_classes=7).double().train()
        scripted = torch.jit.script(self.make(num_classes=7).double().train())
        x = self.images(4).double()
        for m in (model, scripted):
            m(x).square().sum().backward()
        for (name, p), q in zip(model.named_parameters(), scripted.parameters(), strict=True):
            # TorchScript rounds the constants of some activations to float32.
            assert_same_gradient(name, q.grad, p.grad, rounding=1e-6)

    @pytest.mark.compile
    def test_export_equals_eager(self):
        model = self.make(num_classes=7)
        x = self.images()
        program = torch.export.export(model, (x,))
        torch.testing.assert_close(program.module()(x), model(x))

    @pytest.mark.compile
    def test_compiled_in_one_graph_equals_eager(self):
        torch._dynamo.reset()
        model = self.make(num_classes=7)
        compiled = torch.compile(self.make(num_classes=7), fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(self.images()), model(self.images()))

    @pytest.mark.compile
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
            assert_same_gradient(name, q.grad, p.grad)
        for (name, p), q in zip(model.named_buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(q, p, rtol=1e-8, atol=1e-8, msg=name)
