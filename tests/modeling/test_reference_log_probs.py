import pytest
import torch
from modeling_helpers import tree_batch, words

from dress.errors import InputError
from dress.modeling.reference import ReferenceLogProbs
from dress.types import TokenBatch

PIXELS = torch.zeros(0, 3, 16, 16)


def batch(*rows: list) -> TokenBatch:
    return tree_batch(list(rows), pixels=PIXELS, supervised_from=2)


def test_groups_come_back_in_any_batch(tmp_path) -> None:
    a, b = [words(1, 10, 11, 12)], [words(1, 10, 20)]
    both = batch(a, b)  # two supervised tokens, then one; groups 0 and 1
    kept = ReferenceLogProbs()
    kept.add(both, torch.tensor([-1.0, -2.0, -3.0]))
    kept.save(tmp_path)
    kept = ReferenceLogProbs.load(tmp_path)
    assert len(kept) == 2
    assert kept(both).tolist() == [-1.0, -2.0, -3.0]
    assert kept(batch(a)).tolist() == [-1.0, -2.0]


def test_ids_that_are_not_unique_are_refused() -> None:
    kept = ReferenceLogProbs()
    kept.add(batch([words(1, 10, 11)]), torch.tensor([-1.0]))
    with pytest.raises(InputError, match="reference=step"):
        kept.add(batch([words(1, 10, 12)]), torch.tensor([-1.0]))
