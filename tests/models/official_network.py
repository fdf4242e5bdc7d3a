"""The paper's network with the parameter names of the paper's own code, from the paper's formulas.

For the parity of checkpoints alone: affinities are formed, images have one size.
"""

import torch
from torch import Tensor, nn


def unit(inputs: int, outputs: int, relu: bool = True) -> list[nn.Module]:
    layers = [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
    return [*layers, nn.ReLU()] if relu else layers


class OfficialAttention(nn.Module):
    def __init__(self, channels: int, positions: int, spatial: bool, channel: bool) -> None:
        super().__init__()
        self.used = [k for k, on in (("spatial", spatial), ("channel", channel)) if on]
        for kind in self.used:
            features, nodes = (channels, positions) if kind == "spatial" else (positions, channels)
            for part in ("gx", "theta", "phi"):
                self.add_module(f"{part}_{kind}", nn.Sequential(*unit(features, features // 8)))
            self.add_module(f"gg_{kind}", nn.Sequential(*unit(2 * nodes, nodes // 8)))
            width = 1 + nodes // 8
            layers = unit(width, width // 8) + unit(width // 8, 1, relu=False)
            self.add_module(f"W_{kind}", nn.Sequential(*layers))

    def weights_of(self, kind: str, nodes: Tensor) -> Tensor:
        """(B, F, M) nodes to (B, M) weights."""

        def embed(part: str, x: Tensor) -> Tensor:
            return self.get_submodule(f"{part}_{kind}")(x[..., None])[..., 0]

        theta, phi = embed("theta", nodes), embed("phi", nodes)
        affinity = torch.einsum("bfp,bfk->bpk", theta, phi)  # G[p, k]: θ of p with φ of k
        relations = torch.cat([affinity, affinity.mT], dim=2)  # row p: G[p, :], then G[:, p]
        embedded = embed("gg", relations.mT)
        own = embed("gx", nodes).mean(1, keepdim=True)
        return embed("W", torch.cat([own, embedded], dim=1))[:, 0].sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        if "spatial" in self.used:
            x = x * self.weights_of("spatial", x.reshape(b, c, h * w)).reshape(b, 1, h, w)
        if "channel" in self.used:
            x = x * self.weights_of("channel", x.reshape(b, c, h * w).mT).reshape(b, c, 1, 1)
        return x


class OfficialBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = None
        if stride != 1 or inputs != 4 * width:
            shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(4 * width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x)).relu()
        y = self.bn2(self.conv2(y)).relu()
        y = self.bn3(self.conv3(y))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class OfficialBackbone(nn.Module):
    def __init__(self, widths, blocks, height, width, spatial, channel) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = 64
        for i, (planes, count) in enumerate(zip(widths, blocks, strict=True), start=1):
            stride = 2 if i in (2, 3) else 1
            stage = [OfficialBlock(inputs, planes, stride)]
            stage += [OfficialBlock(4 * planes, planes, 1) for _ in range(count - 1)]
            inputs = 4 * planes
            down = (4, 8, 16, 16)[i - 1]
            positions = (height // down) * (width // down)
            self.add_module(f"layer{i}", nn.Sequential(*stage))
            self.add_module(f"rga_att{i}", OfficialAttention(inputs, positions, spatial, channel))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
            x = self.get_submodule(f"rga_att{i}")(x)
        return x


class OfficialNetwork(nn.Module):
    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...],
        size: tuple[int, int],
        blocks: tuple[int, ...] = (1, 1, 1, 1),
        spatial: bool = True,
        channel: bool = True,
    ) -> None:
        super().__init__()
        self.backbone = OfficialBackbone(widths, blocks, *size, spatial, channel)
        self.feat_bn = nn.BatchNorm1d(4 * widths[-1])
        self.cls = nn.Linear(4 * widths[-1], num_classes, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Feature before the neck, after it, logits."""
        pooled = self.backbone(x).mean((2, 3))
        embedding = self.feat_bn(pooled)
        return pooled, embedding, self.cls(embedding)


def assert_parity(model, network, images):
    """A model gives pooled feature, embedding and logits of the paper's network."""
    model, network, images = model.double(), network.double(), images.double()
    pooled, embedding, logits = network(images)
    actual = model.forward_neck(model.forward_features(images))
    torch.testing.assert_close(actual[0], pooled, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(actual[1], embedding, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model(images), logits, rtol=1e-9, atol=1e-9)
    # The comparison has a point only where the images differ from each other.
    assert (embedding[0] - embedding[1]).abs().mean() > 0.1
