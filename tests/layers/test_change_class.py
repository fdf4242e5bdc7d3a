import pytest
import torch
from torch import nn

from rga_timm.layers import change_class


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


def test_module_gets_the_subclass_and_keeps_its_parameters():
    module = nn.Linear(2, 3)
    x = torch.randn(4, 2)
    weight, before = module.weight, module(x)
    change_class(module, Scaled)
    assert module.weight is weight
    assert torch.equal(module(x), 2 * before)


@pytest.mark.parametrize("other", [nn.Conv2d, nn.Module])
def test_class_that_is_no_subclass_is_refused(other):
    module = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=f"a Linear cannot become a {other.__name__}"):
        change_class(module, other)
    assert type(module) is nn.Linear
