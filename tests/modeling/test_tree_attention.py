import torch

from dress.modeling.tree_attention import tree_mask


def test_tree_mask_by_hand() -> None:
    # A root with two one-token branches, then a padding token.
    mask = tree_mask(torch.tensor([[3, 2, 3, 4]]))[0, 0]
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    assert mask.tolist() == torch.tensor(expected).bool().tolist()
