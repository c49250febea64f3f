"""What the study of architectures checks cuts by: norms that know some channels alone."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.convnext import LayerNorm2d
from zoo_hiding import is_over_channels, normalising

KEPT = torch.tensor([0, 3, 4])


def stirred(norm: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for parameter in norm.parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


@pytest.mark.parametrize(
    ("norm", "axis", "expected"),
    [
        (nn.LayerNorm(6), -1, lambda n, x: F.layer_norm(x, (3,), n.weight[KEPT], n.bias[KEPT])),
        (LayerNorm2d(6), 1, lambda n, x: F.layer_norm(x, (3,), n.weight[KEPT], n.bias[KEPT])),
        (nn.RMSNorm(6), -1, lambda n, x: F.rms_norm(x, (3,), n.weight[KEPT])),
        (nn.GroupNorm(1, 6, affine=False), 1, lambda n, x: F.group_norm(x.movedim(-1, 1), 1)),
    ],
)
@torch.no_grad()
def test_a_norm_goes_by_the_channels_that_it_knows(norm, axis, expected):
    norm, x = stirred(norm), torch.randn(4, 6, 6, 6)
    wanted = expected(norm, x.movedim(axis, -1)[..., KEPT])
    if isinstance(norm, nn.GroupNorm):
        wanted = wanted.movedim(1, -1)
    norm.register_forward_hook(normalising(torch.zeros(6).index_fill(0, KEPT, 1)), with_kwargs=True)
    found = norm(x).movedim(axis, -1)
    assert torch.allclose(found[..., KEPT], wanted, atol=1e-5)
    assert found.count_nonzero() == found[..., KEPT].count_nonzero()


class Shifted(nn.LayerNorm):
    """A norm that adds something."""

    def forward(self, x):
        return super().forward(x) + 0.1


def test_what_is_no_norm_over_channels_is_refused():
    assert is_over_channels(Shifted(6))
    assert not any(map(is_over_channels, (nn.GroupNorm(2, 6), nn.LayerNorm((6, 6)), nn.ReLU())))
    norm = Shifted(6)
    norm.register_forward_hook(normalising(torch.ones(6)), with_kwargs=True)
    with pytest.raises(ValueError, match="Shifted computes something else than a norm"):
        norm(torch.randn(4, 6))
