from __future__ import annotations

import copy
import json

import pytest

from dress.data.rejects import Rejects
from dress.errors import InputError, Reject


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


def test_a_group_that_is_met_again_counts_once() -> None:
    rejects = Rejects(max_rejects=2)
    for _ in range(5):
        rejects.add_once(Reject("too long", key="1", where="a"))
        rejects.add_once(Reject("damaged tar", key="number 3", where="a"))
    assert rejects.count == 2
    with pytest.raises(InputError, match=r"3 of 3 groups .* a, key 1: too long"):
        rejects.add_once(Reject("too long", key="1", where="b"))


def test_a_share_is_one_of_the_distinct_groups() -> None:
    rejects = Rejects(max_rejects=0.01, grace=10, total=200)
    rejects.seen(100_000)  # many epochs of the same 200
    for key in "12":
        rejects.add_once(Reject("too long", key=key, where="a"))
    with pytest.raises(InputError):
        rejects.add_once(Reject("too long", key="3", where="a"))


def test_the_state_goes_on_where_it_was() -> None:
    rejects = Rejects(max_rejects=3)
    rejects.seen(10)
    rejects.add_once(Reject("too long", key="1", where="a", detail="9 tokens"))
    rejects.add_once(Reject("damaged tar", key="2", where="b"))
    state = json.loads(json.dumps(rejects.state_dict()))
    resumed = Rejects(max_rejects=3)
    resumed.add_once(Reject("too long", key="1", where="a"))  # met before the state was loaded
    resumed.load_state_dict(state)
    resumed.add_once(Reject("damaged tar", key="2", where="b"))
    assert resumed.by_reason == rejects.by_reason
    assert resumed.groups_seen == 10 and resumed.count == 2 and resumed.first is not None


def test_figures_are_named_by_reason() -> None:
    rejects = Rejects(max_rejects=9)
    rejects.add("a", "1", "not a JPEG, PNG or WebP image")
    rejects.add("b", "2", "too long")
    rejects.add("b", "3", "too long")
    rejects.retries = 3
    assert rejects.metrics() == {
        "data/rejects": 3.0,
        "data/rejects/not_a_JPEG_PNG_or_WebP_image": 1.0,
        "data/rejects/too_long": 2.0,
        "data/read_retries": 3.0,
    }


def test_the_first_of_each_kind_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    rejects = Rejects(max_rejects=20)
    for number in range(8):
        rejects.add("a", str(number), "too long")
    rejects.add("a", "x", "damaged tar")
    lines = [record.message for record in caplog.records]
    assert lines[0] == "rejected: a, key 0: too long" and len(lines) == 6
    assert lines[4] == "rejected: a, key 4: too long; more of this kind are only counted"
    assert lines[5] == "rejected: a, key x: damaged tar"
    caplog.clear()
    with pytest.raises(InputError):
        Rejects().add("a", "1", "too long")
    assert not caplog.records  # the error says it all
