import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rga_timm.losses import DistillationLoss, ReidLoss, gather_batch, world_size


def slow_triplet(features: torch.Tensor, labels: torch.Tensor, margin: float) -> torch.Tensor:
    total = torch.zeros((), dtype=features.dtype)
    for a in range(len(labels)):
        positive, negative = [], []
        for b in range(len(labels)):
            if a != b:
                distance = ((features[a] - features[b]) ** 2).sum().sqrt()
                (positive if labels[a] == labels[b] else negative).append(distance)
        loss = max(positive) - min(negative) + margin
        if loss > 0:
            total = total + loss
    return total / len(labels)


def slow_cross_entropy(logits: torch.Tensor, labels: torch.Tensor, smoothing: float):
    total = torch.zeros((), dtype=logits.dtype)
    classes = logits.shape[1]
    for row, label in zip(logits, labels.tolist(), strict=True):
        log_z = row.exp().sum().log()
        for c in range(classes):
            target = smoothing / classes + (1 - smoothing) * (c == label)
            total = total - target * (row[c] - log_z)
    return total / len(labels)


def batch(identities=4, instances=3, dim=5, spread=1.0):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(identities).repeat_interleave(instances)
    features = spread * torch.randn(len(labels), dim, generator=generator)
    logits = 2 * torch.randn(len(labels), identities + 2, generator=generator)
    return logits.requires_grad_(), features.requires_grad_(), labels


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_loss_and_gradients_equal_slow_loops(smoothing, margin, weight):
    logits, pooled, labels = batch()
    parts = ReidLoss(smoothing, margin, weight)(logits, pooled, labels)
    cross_entropy = slow_cross_entropy(logits, labels, smoothing)
    triplet = slow_triplet(pooled, labels, margin)
    torch.testing.assert_close(parts.cross_entropy, cross_entropy.detach())
    torch.testing.assert_close(parts.triplet, triplet.detach())
    torch.testing.assert_close(parts.loss, cross_entropy + weight * triplet)
    expected = torch.autograd.grad(cross_entropy + weight * triplet, (logits, pooled))
    actual = torch.autograd.grad(parts.loss, (logits, pooled))
    for a, b in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, b)


def test_defaults_are_the_papers():
    logits, pooled, labels = batch()
    parts = ReidLoss()(logits, pooled, labels)
    expected = slow_cross_entropy(logits, labels, 0.1) + slow_triplet(pooled, labels, 0.3)
    torch.testing.assert_close(parts.loss, expected)


def test_mean_is_over_all_anchors_those_without_loss_included():
    # One pair overlaps, the other two identities lie far away: most anchors are without loss.
    features = torch.tensor([[0.0], [1.0], [0.5], [0.6], [100.0], [100.1]], requires_grad=True)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    triplet = ReidLoss(margin=0.3)(torch.zeros(6, 3), features, labels).triplet
    expected = slow_triplet(features, labels, 0.3)
    torch.testing.assert_close(triplet, expected.detach())
    assert 0 < triplet < (1 - 0.4 + 0.3)


def test_features_are_not_normalised():
    logits, pooled, labels = batch()
    loss = ReidLoss(margin=0.0)
    near = loss(logits, pooled, labels).triplet
    torch.testing.assert_close(loss(logits, 10 * pooled, labels).triplet, 10 * near)


def test_separated_identities_have_no_triplet_loss():
    logits, _, labels = batch()
    features = torch.nn.functional.one_hot(labels).float() * 10
    features = (features + 1e-3 * torch.randn(features.shape)).requires_grad_()
    parts = ReidLoss()(logits, features, labels)
    assert parts.triplet == 0
    parts.loss.backward()
    assert features.grad is None or features.grad.abs().max() == 0


def test_equal_features_have_finite_gradients():
    logits, _, labels = batch()
    features = torch.ones(len(labels), 4, requires_grad=True)
    parts = ReidLoss()(logits, features, labels)
    assert parts.triplet.item() == pytest.approx(0.3, abs=1e-3)
    parts.loss.backward()
    assert features.grad.isfinite().all()


def test_weight_0_leaves_the_triplet_loss_out():
    logits, pooled, labels = batch()
    parts = ReidLoss(triplet_weight=0)(logits, pooled, labels)
    assert parts.triplet == 0
    assert torch.equal(parts.loss, parts.cross_entropy)
    parts.loss.backward()
    assert pooled.grad is None


@pytest.mark.parametrize("labels", [[0, 1, 2, 3], [1, 1, 1, 1]])
def test_batch_without_any_triplet_has_none(labels):
    pooled = torch.randn(4, 5, requires_grad=True)
    parts = ReidLoss()(torch.randn(4, 5), pooled, torch.tensor(labels))
    assert parts.triplet == 0
    assert parts.loss.isfinite()
    parts.loss.backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_inputs_are_computed_in_float32(dtype):
    logits, pooled, labels = batch(spread=30)
    low = ReidLoss()(logits.to(dtype), pooled.to(dtype), labels)
    exact = ReidLoss()(logits.to(dtype).float(), pooled.to(dtype).float(), labels)
    assert low.loss.dtype == torch.float32
    assert torch.equal(low.loss, exact.loss)


def test_autocast_does_not_lower_the_precision_of_distances():
    logits, pooled, labels = batch(spread=30)
    expected = ReidLoss()(logits, pooled, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = ReidLoss()(logits, pooled, labels)
    torch.testing.assert_close(actual.triplet, expected.triplet)
    torch.testing.assert_close(actual.loss, expected.loss)


def test_close_features_far_from_the_origin_keep_their_distances():
    labels = torch.tensor([0, 0, 1, 1])
    features = 1000 + torch.tensor([[0.0, 0.0], [0.5, 0.0], [0.0, 0.25], [0.25, 0.25]])
    triplet = ReidLoss()(torch.zeros(4, 2), features, labels).triplet
    torch.testing.assert_close(triplet, slow_triplet(features, labels, 0.3), atol=1e-3, rtol=0)


def slow_distillation(features, projected, teacher):
    def cosine(a, b):
        return (a * b).sum() / (a.norm() * b.norm())

    n = len(features)
    pairs = [(a, b) for a in range(n) for b in range(n) if a != b]
    differences = [
        cosine(features[a], features[b]) - cosine(teacher[a], teacher[b]) for a, b in pairs
    ]
    similarity = sum(difference**2 for difference in differences) / len(pairs)
    projection = sum(1 - cosine(p, t) for p, t in zip(projected, teacher, strict=True)) / n
    return similarity, projection


def distillation_batch():
    generator = torch.Generator().manual_seed(2)
    features, projected, teacher = (
        torch.randn(6, width, generator=generator) for width in (5, 3, 3)
    )
    return features.requires_grad_(), projected.requires_grad_(), teacher


@pytest.mark.parametrize("weights", [(20.0, 5.0), (2.0, 0.0), (0.0, 3.0)])
def test_distillation_and_its_gradients_equal_slow_loops(weights):
    features, projected, teacher = distillation_batch()
    parts = DistillationLoss(*weights)(features, projected, teacher)
    similarity, projection = slow_distillation(features, projected, teacher)
    expected = weights[0] * similarity + weights[1] * projection
    torch.testing.assert_close(parts.loss, expected)
    torch.testing.assert_close(parts.projection, projection.detach())
    torch.testing.assert_close(parts.similarity, similarity.detach() * bool(weights[0]))
    inputs = [t for t, weight in zip((features, projected), weights, strict=True) if weight]
    actual = torch.autograd.grad(parts.loss, inputs)
    for a, b in zip(actual, torch.autograd.grad(expected, inputs), strict=True):
        torch.testing.assert_close(a, b)


def test_distillation_has_no_loss_if_the_network_is_its_own_teacher():
    features, _, _ = distillation_batch()
    parts = DistillationLoss()(features, features, 3 * features.detach())
    assert parts.loss.item() == pytest.approx(0, abs=1e-5)


def test_distillation_is_computed_in_float32_under_autocast():
    expected = DistillationLoss()(*distillation_batch())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = DistillationLoss()(*distillation_batch())
    assert torch.equal(actual.loss, expected.loss)


def test_single_process_gathers_nothing():
    features, labels = torch.randn(3, 2), torch.arange(3)
    assert world_size() == 1
    gathered = gather_batch(features, labels)
    assert gathered[0] is features
    assert gathered[1] is labels


class TinyNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 4, bias=False)
        for p in self.parameters():
            p.data.copy_(torch.randn(p.shape, generator=generator))

    def forward(self, x):
        pooled = self.body(x)
        return self.head(pooled), pooled


def global_batch():
    # Each identity on both ranks, so that mining within a rank would find other triplets.
    return torch.randn(16, 6, generator=torch.Generator().manual_seed(6)), torch.arange(16) % 4


def teacher():
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(7))


def losses(net, x, labels, taught):
    logits, pooled = net(x)
    parts = ReidLoss()(logits, pooled, labels)
    distilled = DistillationLoss()(pooled, logits, taught)  # the logits in place of a projection
    (parts.loss + distilled.loss).backward()
    return parts, distilled


def train_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    net = DistributedDataParallel(TinyNet())
    x, labels = (t.chunk(2)[rank] for t in global_batch())
    parts, distilled = losses(net, x, labels, teacher().chunk(2)[rank])
    result = {n: p.grad for n, p in net.module.named_parameters()}
    result |= {"cross_entropy": parts.cross_entropy, "triplet": parts.triplet}
    result |= {"similarity": distilled.similarity}
    torch.save(result, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.mark.script
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    mp.spawn(train_rank, args=(str(tmp_path),), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    net = TinyNet()
    x, labels = global_batch()
    parts, distilled = losses(net, x, labels, teacher())
    for rank in ranks:
        torch.testing.assert_close(rank["similarity"], distilled.similarity)
    for name, p in net.named_parameters():
        for rank in ranks:
            torch.testing.assert_close(rank[name], p.grad, msg=name)
    for rank in ranks:
        torch.testing.assert_close(rank["triplet"], parts.triplet)
    mean = (ranks[0]["cross_entropy"] + ranks[1]["cross_entropy"]) / 2
    torch.testing.assert_close(mean, parts.cross_entropy)
    # Mined a rank at a time, the triplet loss would be another.
    alone = [ReidLoss()(*net(a), b).triplet for a, b in zip(x.chunk(2), labels.chunk(2))]  # noqa: B905
    assert (sum(alone) / 2 - parts.triplet).abs() > 1e-3
