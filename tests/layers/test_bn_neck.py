import torch

from rga_timm.layers import bn_neck, pass_through


def test_neck_that_passes_through_gives_what_it_gets():
    neck = bn_neck(6)
    with torch.no_grad():
        neck.weight.uniform_(0.5, 2)
        neck.running_mean.normal_()
        neck.running_var.uniform_(0.1, 3)
    x = torch.randn(4, 6)
    assert not torch.allclose(neck.eval()(x), x)
    pass_through(neck)
    torch.testing.assert_close(neck(x), x, rtol=1e-6, atol=0)
    # And in training it is a batch norm as before.
    normalised = torch.nn.functional.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(neck.train()(x), normalised)
