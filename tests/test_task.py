import copy

import pytest
import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import rga_timm  # noqa: F401 - registers the models
from rga_timm.losses import DistillationLoss, ReidLoss
from rga_timm.task import ReidTask

LABELS = torch.tensor([0, 0, 1, 1])
NEW = ("rga", "neck", "fc")


def make_task(relation: str = "sc", **kwargs) -> ReidTask:
    torch.manual_seed(0)
    model = timm.create_model("test_rga_resnet", num_classes=3, relation=relation)
    return ReidTask(model, verbose=False, **kwargs)


def images(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 64, 32, generator=torch.Generator().manual_seed(1))


def is_new(name: str) -> bool:
    return any(part in NEW for part in name.split("."))


def statistics(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: b.clone() for n, b in model.named_buffers()}


@pytest.mark.parametrize("name", ["test_rga_resnet", "test_resnet"])
def test_model_without_classifier_is_refused(name):
    with pytest.raises(ValueError, match=r"no classifier.*num_classes.*reset_classifier"):
        ReidTask(timm.create_model(name, num_classes=0))


def test_step_is_the_loss_of_model_outputs():
    task = make_task().eval()
    out = task(images(), LABELS)
    pooled, embedding = task.model.forward_neck(task.model.forward_features(images()))
    logits = task.model.fc(embedding)
    expected = ReidLoss()(logits, pooled, LABELS)
    torch.testing.assert_close(out["output"], logits)
    torch.testing.assert_close(out["loss"], expected.loss)
    torch.testing.assert_close(out["triplet"], expected.triplet)
    torch.testing.assert_close(out["cross_entropy"], expected.cross_entropy)
    assert out["accuracy"] == (logits.argmax(1) == LABELS).float().mean()
    assert not out["accuracy"].requires_grad


def test_criterion_is_the_one_given():
    task = make_task(criterion=ReidLoss(triplet_weight=0))
    assert task(images(), LABELS)["triplet"] == 0


def test_training_learns_the_batch():
    task = make_task().train()
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    losses = []
    for _ in range(12):
        out = task(images(), LABELS)
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("feature", ["embedding", "pooled"])
def test_training_learns_the_features_of_a_teacher(feature):
    taught = torch.randn(6, 7, generator=torch.Generator().manual_seed(2))
    distils = {"distillation": DistillationLoss(), "teacher_width": 7, "feature": feature}
    task = make_task(criterion=ReidLoss(triplet_weight=0), **distils).train()
    optimizer = torch.optim.Adam(task.parameters(), lr=3e-3)
    seen = []
    for _ in range(60):
        out = task(images(6), LABELS, taught)  # the last two have no label
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        seen.append((out["similarity"].item(), out["projection"].item()))
    assert len(out["output"]) == len(LABELS)
    for first, last in zip(seen[0], seen[-1], strict=True):
        assert last < 0.5 * first


def test_projection_is_saved_beside_the_model():
    distils = {"distillation": DistillationLoss(), "teacher_width": 7}
    task, other = make_task(**distils), make_task(**distils)
    torch.nn.init.ones_(task.trainable_module.projection.weight)
    state = task.get_checkpoint_state()
    assert not any("projection" in name for name in state["state_dict"])
    other.load_checkpoint_state(state["state_dict"], state["task_state"])
    assert torch.equal(
        other.trainable_module.projection.weight, task.trainable_module.projection.weight
    )
    assert "task_state" not in make_task().get_checkpoint_state()


def test_dropout_of_the_model_acts_on_the_classifiers_input():
    torch.manual_seed(0)
    model = timm.create_model("test_rga_resnet", num_classes=3, drop_rate=0.5)
    task = ReidTask(model, freeze_bn=True, verbose=False).train()
    first, second = task(images(), LABELS), task(images(), LABELS)
    assert not torch.equal(first["output"], second["output"])
    assert torch.equal(first["triplet"], second["triplet"])
    task.eval()
    assert torch.equal(task(images(), LABELS)["output"], model(images()))


def test_frozen_backbone_trains_the_new_parts_alone():
    task = make_task()
    task.freeze_backbone()
    trained = {n for n, p in task.model.named_parameters() if p.requires_grad}
    assert trained == {n for n, _ in task.model.named_parameters() if is_new(n)}
    task.train()
    before = {k: v.clone() for k, v in task.model.state_dict().items()}
    optimizer = torch.optim.SGD(task.parameters(), lr=0.1)
    task(images(), LABELS)["loss"].backward()
    optimizer.step()
    for name, value in task.model.state_dict().items():
        if not is_new(name):  # weights and batch norm statistics alike
            assert torch.equal(value, before[name]), name
    for name, p in task.model.named_parameters():
        if is_new(name):
            assert p.grad is not None, name
    for name in ("fc.weight", "neck.weight", "layer4.rga.channel.embed.weight"):
        assert not torch.equal(task.model.state_dict()[name], before[name]), name
    assert task.model.neck.num_batches_tracked == 1
    assert task.model.layer1.rga.spatial.weight_bn.num_batches_tracked == 1


def test_thawed_backbone_trains_again():
    task = make_task()
    task.freeze_backbone()
    task.train()
    task.freeze_backbone(False)
    task.train()
    task(images(), LABELS)["loss"].backward()
    assert all(p.grad is not None for p in task.model.parameters())
    norms = {n: m for n, m in task.model.named_modules() if isinstance(m, _BatchNorm)}
    assert all(m.training for m in norms.values())
    assert all(m.num_batches_tracked == 1 for m in norms.values())


def test_frozen_backbone_holds_its_statistics_whether_train_comes_before_or_after():
    task = make_task().train()
    task.freeze_backbone()
    before = statistics(task.model)
    task(images(), LABELS)
    changed = {n for n, b in task.model.named_buffers() if not torch.equal(b, before[n])}
    assert changed
    assert all(is_new(n) for n in changed)


def test_freezing_drops_old_gradients_of_the_backbone():
    task = make_task().train()
    task(images(), LABELS)["loss"].backward()
    task.freeze_backbone()
    for name, p in task.model.named_parameters():
        assert (p.grad is not None) == is_new(name), name


def test_frozen_batch_norm_keeps_statistics_and_trains_weights():
    task = make_task(freeze_bn=True).train()
    before = statistics(task.model)
    task(images(), LABELS)["loss"].backward()
    assert all(torch.equal(b, before[n]) for n, b in task.model.named_buffers())
    assert all(p.grad is not None for p in task.model.parameters())
    assert task.model.training
    assert not task.model.bn1.training


def test_batch_norm_without_parameters_trains_its_statistics():
    task = make_task()
    task.model.bn1 = nn.BatchNorm2d(64, affine=False)
    task.train()
    assert task.model.bn1.training


def test_ema_gives_a_timm_model_that_follows():
    task = make_task().train()
    task.setup_ema(decay=0.5)
    ema = task.get_eval_model(ema=True)
    assert type(ema) is type(task.model)
    assert ema is not task.model
    before = ema.fc.weight.clone()
    task.model.fc.weight.data += 1
    task.update_ema()
    torch.testing.assert_close(ema.fc.weight, before + 0.5)
    assert not ema.training
    assert ema(images()).shape == (4, 3)


def test_eval_model_is_the_timm_model_without_wrappers():
    task = make_task()
    assert task.get_eval_model() is task.model
    assert task.get_eval_model(ema=True) is None


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_checkpoint_has_the_models_own_keys(compiled):
    task = make_task()
    keys = set(task.model.state_dict())
    if compiled:
        task.compile(backend="eager")
    task.setup_ema()
    assert set(task.get_checkpoint_state()["state_dict"]) == keys
    assert set(task.get_checkpoint_state(ema=True)["state_dict_ema"]) == keys


def test_checkpoint_loads_into_another_task_and_a_plain_model():
    task = make_task()
    state = copy.deepcopy(task.get_checkpoint_state()["state_dict"])
    other = make_task()
    other.model.fc.weight.data += 1
    other.load_checkpoint_state(state)
    assert torch.equal(other.model.fc.weight, task.model.fc.weight)
    timm.create_model("test_rga_resnet", num_classes=3).load_state_dict(state)


def test_plain_timm_model_trains_with_its_feature_on_either_side():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    task = ReidTask(model, verbose=False).eval()
    x = torch.randn(4, 3, 64, 64)
    out = task(x, LABELS)
    feature = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(out["output"], model(x))
    torch.testing.assert_close(out["triplet"], ReidLoss()(model(x), feature, LABELS).triplet)
    task.train()
    task(x, LABELS)["loss"].backward()
    assert all(p.grad is not None for p in model.parameters())


def test_plain_timm_model_frozen_trains_its_classifier_alone():
    task = ReidTask(timm.create_model("test_resnet", num_classes=3), verbose=False)
    task.freeze_backbone()
    trained = {n for n, p in task.model.named_parameters() if p.requires_grad}
    assert trained == {"fc.weight", "fc.bias"}


@pytest.mark.compile
def test_compiled_step_equals_eager():
    torch._dynamo.reset()
    task, compiled = (make_task(relation="none").double().train() for _ in range(2))
    compiled.compile(backend="eager")
    expected = task(images().double(), LABELS)
    actual = compiled(images().double(), LABELS)
    torch.testing.assert_close(actual["loss"], expected["loss"])
    for out in (expected, actual):
        out["loss"].backward()
    for (name, p), q in zip(
        task.model.named_parameters(), compiled.model.named_parameters(), strict=True
    ):
        torch.testing.assert_close(q[1].grad, p.grad, rtol=1e-4, atol=1e-6, msg=name)
    assert compiled.get_eval_model() is compiled.model


def test_distributed_wrapping_leaves_the_model_reachable(tmp_path):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1
    )
    try:
        task = make_task()
        model = task.model
        keys = set(model.state_dict())
        assert task.prepare_distributed() is task
        assert task.model is model
        assert set(task.get_checkpoint_state()["state_dict"]) == keys
        for freeze in (True, False):
            task.freeze_backbone(freeze)
            task.train()
            task(images(), LABELS)["loss"].backward()
            assert all((p.grad is not None) == p.requires_grad for p in model.parameters())
            assert task.model is model
    finally:
        torch.distributed.destroy_process_group()
