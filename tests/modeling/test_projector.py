import torch
from torch import nn

from dress.modeling.projector import linear_projector, mlp_projector


def test_linear_shape() -> None:
    assert linear_projector(6, 4)(torch.rand(2, 3, 6)).shape == (2, 3, 4)


def test_mlp_is_linear_gelu_linear_by_default() -> None:
    projector = mlp_projector(6, 4)
    kinds = [type(layer) for layer in projector]
    assert kinds == [nn.Linear, nn.GELU, nn.Linear]
    assert projector[0].out_features == 4
    assert projector(torch.rand(2, 3, 6)).shape == (2, 3, 4)


def test_mlp_depth_and_hidden_width() -> None:
    projector = mlp_projector(6, 4, hidden_dim=5, depth=3)
    linears = [layer for layer in projector if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linears] == [
        (6, 5),
        (5, 5),
        (5, 4),
    ]
    assert [type(layer) for layer in mlp_projector(6, 4, depth=1)] == [nn.Linear]


def test_a_newline_ends_each_picture() -> None:
    plain, ended = mlp_projector(6, 4, norm=True), mlp_projector(6, 4, norm=True, newline=True)
    ended.load_state_dict(plain.state_dict(), strict=False)
    patches = torch.rand(2, 3, 6)
    found = ended(patches)
    assert torch.equal(found[:, :3], plain(patches))
    assert torch.equal(found[:, 3], ended.newline.expand(2, 4))
    assert ended.state_dict().keys() - plain.state_dict().keys() == {"newline"}
