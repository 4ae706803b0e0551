from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dress.data.schema import from_json, parse_json, to_json
from dress.errors import InputError, Reject
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn
from tests.chat.tiny_chat import make_sample

SAMPLE = make_sample(3, images=2, turns=2, dialogues=2)
text = st.text(max_size=5)
judgement = st.builds(Judgement, rating=st.integers(1, 4), critique=text, refinement=text)
aspects = st.sampled_from(["helpfulness", "honesty", "harmlessness"])
turn = st.builds(
    Turn,
    user=text,
    model=st.none() | text,
    feedback=st.none() | st.builds(Feedback, st.dictionaries(aspects, judgement, min_size=1)),
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(text, inner, max_size=2),
    max_leaves=5,
)
samples = st.builds(
    Sample,
    id=st.text(min_size=1, max_size=5),
    images=st.just((b"x",)),
    dialogues=st.lists(
        st.lists(turn, min_size=1, max_size=2).map(lambda turns: Dialogue(tuple(turns))),
        min_size=1,
        max_size=2,
    ).map(tuple),
    annotations=st.dictionaries(text, plain, max_size=2),
)


@given(samples)
def test_samples_survive_json(sample: Sample) -> None:
    record = json.loads(json.dumps(to_json(sample)))
    assert from_json(record, sample.images, where="s") == sample


def set_field(path: list[Any], value: Any) -> Callable[[Any], None]:
    def change(record: Any) -> None:
        for step in path[:-1]:
            record = record[step]
        record[path[-1]] = value

    return change


FIRST = ["dialogues", 0, 0]
HONESTY = [*FIRST, "feedback", "honesty"]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema"], 2, "schema is 2"),
        (["schema"], True, "schema is True"),
        (["images"], 2.0, "images is 2.0"),
        (["extra"], 1, "record has the unknown key 'extra'"),
        (["id"], "", "id is ''"),
        (["id"], 7, "id is 7"),
        (["images"], 3, "images is 3, but 2"),
        (["dialogues"], [], "dialogues is not a list of at least one"),
        (["dialogues", 1], [], "dialogues[1] is not a list of at least one"),
        ([*FIRST, "user"], None, "dialogues[0][0].user is None"),
        ([*FIRST, "user"], "\ud800", "dialogues[0][0].user holds half a surrogate pair"),
        ([*FIRST, "model"], ["x"], "dialogues[0][0].model"),
        ([*FIRST, "role"], "gpt", "dialogues[0][0] has the unknown key 'role'"),
        ([*FIRST, "feedback"], {}, "dialogues[0][0].feedback judges no aspect"),
        ([*FIRST, "feedback", "style"], {}, "feedback has the unknown key 'style'"),
        ([*HONESTY, "rating"], 5, "honesty.rating is 5"),
        ([*HONESTY, "rating"], 0, "honesty.rating is 0"),
        ([*HONESTY, "rating"], "4", "honesty.rating is '4'"),
        ([*HONESTY, "rating"], 3.0, "honesty.rating is 3.0"),
        ([*HONESTY, "rating"], True, "honesty.rating is True"),
        ([*HONESTY, "critique"], None, "honesty.critique is None"),
        (["annotations"], [1], "annotations is not an object"),
        (["annotations", "x"], float("nan"), "annotations.x is nan"),
    ],
)
def test_a_bad_field_is_named(path: list[Any], value: Any, message: str) -> None:
    record = copy.deepcopy(to_json(SAMPLE))
    set_field(path, value)(record)
    with pytest.raises(Reject) as reject:
        from_json(record, SAMPLE.images, where="shard-000000.tar")
    assert message in reject.value.detail
    assert reject.value.where == "shard-000000.tar"
    assert reject.value.reason == "invalid record"


def test_a_missing_field_is_named() -> None:
    record = to_json(SAMPLE)
    del record["dialogues"][0][0]["user"]
    with pytest.raises(Reject, match="lacks 'user'"):
        from_json(record, SAMPLE.images, where="s")
    with pytest.raises(Reject, match="not an object"):
        from_json([], (), where="s")


@pytest.mark.parametrize(
    "changes",
    [
        {"id": ""},
        {"dialogues": ()},
        {"dialogues": (Dialogue(()),)},
        {"annotations": {"x": float("inf")}},
        {"annotations": {"x": (1, 2)}},
        {"annotations": {1: "x"}},
        {"dialogues": (Dialogue((Turn("a", "b", Feedback({"honesty": Judgement(9, "")})),)),)},
        {"dialogues": (Dialogue((Turn("a", "b", Feedback({"humour": Judgement(1, "")})),)),)},
    ],
)
def test_a_malformed_sample_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="cannot be stored"):
        to_json(replace(SAMPLE, **changes))


@pytest.mark.parametrize("data", [b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_json_is_strict(data: bytes) -> None:
    with pytest.raises(Reject, match="unreadable JSON"):
        parse_json(data, where="s", key="k")
