from __future__ import annotations

import copy

import pytest

from dress.data.rejects import Reject, Rejects
from dress.errors import InputError


def test_the_default_allows_none_and_names_the_first() -> None:
    with pytest.raises(InputError) as error:
        Rejects().add("shard-000001.tar", "k7", "too long", "300 tokens")
    for part in ("shard-000001.tar", "k7", "too long (300 tokens)", "data.max_rejects"):
        assert part in str(error.value)


def test_a_count() -> None:
    rejects = Rejects(max_rejects=2)
    rejects.seen(10)
    rejects.add("a", "1", "too long")
    rejects.add("b", "2", "no feedback")
    assert rejects.count == 2 and rejects.groups_seen == 10
    assert rejects.by_reason == {"too long": 1, "no feedback": 1}
    assert rejects.by_file == {"a": 1, "b": 1}
    with pytest.raises(InputError, match=r"3 of 10 groups .* a, key 1: too long"):
        rejects.add("b", "3", "too long")


def test_a_share_of_the_groups_seen() -> None:
    rejects = Rejects(max_rejects=0.001)
    rejects.add("a", "1", "too long")  # one in the first thousand is within the share
    with pytest.raises(InputError):
        rejects.add("a", "2", "too long")
    rejects = Rejects(max_rejects=0.001)
    rejects.seen(2000)
    rejects.add("a", "1", "too long")
    rejects.add("a", "2", "too long")
    with pytest.raises(InputError):
        rejects.add("a", "3", "too long")


def test_reject_travels_between_processes_and_learns_its_place() -> None:
    reject = Reject("too long", detail="300 tokens").at(where="s.tar", key="k")
    twin = copy.deepcopy(reject)
    assert vars(twin) == vars(reject)
    assert str(twin) == "s.tar, key k: too long (300 tokens)"
    assert reject.at(where="other", key="other").where == "s.tar"
