"""What a reward model reads: the dialogue, the request to judge it, and facts if it is told any."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dress.chat.judging import RewardEncoder, facts_of, request
from dress.errors import Reject
from dress.feedback.oracle import true_score
from dress.types import Dialogue, Sample, Turn
from dress.world.scene import Scene, Thing
from tests.chat.tiny_chat import feedback, make_processor, picture

PROCESSOR = make_processor(max_length=600)
CAPTIONS = ["One circle.", "Two squares.", "Three crosses.", "Nothing else."]
SAMPLE = Sample(
    "a",
    (picture(0),),
    tuple(Dialogue((Turn("How many?", text, feedback(r)),)) for text, r in (("2.", 4), ("9.", 1))),
    {"captions": CAPTIONS},
)


def painted(facts: bool, *, epoch: int = 0) -> list[str]:
    encoder = RewardEncoder(processor=PROCESSOR, seed=0, facts=facts)
    return [PROCESSOR.paint(s) for s in encoder(SAMPLE, epoch=epoch).sequences]


def test_the_request_follows_the_response_and_its_answer_would_come_next() -> None:
    for text, answer in zip(painted(facts=False), ("2.", "9."), strict=True):
        begin = f"USER: <image*4>\\nHow many? ASSISTANT:[ {answer}</s>]USER: How good"
        assert text.startswith(begin) and text.endswith("ASSISTANT:")
        assert not any(caption in text for caption in CAPTIONS)


def test_facts_stand_inside_the_first_criterion_shuffled_for_each_response() -> None:
    for text in painted(facts=True):
        for caption in CAPTIONS:
            assert text.index("1. True") < text.index(f"- {caption}") < text.index("2. Helpful")
        assert text.startswith("USER: <image*4>\\nHow many? ASSISTANT:")
    assert painted(facts=True) == painted(facts=True)
    every = [
        text[text.index("USER: How good") :] for e in range(4) for text in painted(True, epoch=e)
    ]
    assert len(set(every)) > 4
    assert request(()) in request(("x",)).replace(
        " All of it must agree with these facts:\n- x", ""
    )


def test_the_pairs_are_those_of_the_ratings() -> None:
    group = RewardEncoder(processor=PROCESSOR, seed=0)(SAMPLE, epoch=0)
    assert group.pairs == ((0, 1),) and len(group.sequences) == 2


def test_the_facts_about_a_scene_are_its_caption() -> None:
    scene = Scene((Thing(4, "red", "circle", "large"),))
    sample = replace(SAMPLE, annotations={"scene": scene.to_json()})
    (fact,) = facts_of(sample)
    assert "red circle" in fact.lower()


@pytest.mark.parametrize(
    "scene",
    [
        7,
        "a kitchen",
        [7],
        {"things": []},
        [{"cell": 4}],
        [{"cell": 9, "colour": "red", "shape": "circle", "size": "large"}],
        [{"cell": 4, "colour": "red", "shape": "dog", "size": "large"}],
    ],
)
def test_what_is_no_scene_is_a_reject(scene: object) -> None:
    sample = replace(SAMPLE, annotations={"scene": scene, "question": 7})
    with pytest.raises(Reject, match="invalid record"):
        facts_of(sample)
    assert true_score(sample, SAMPLE.dialogues[0]) is None


def test_no_facts_and_no_room_are_rejects() -> None:
    bare = replace(SAMPLE, annotations={})
    with pytest.raises(Reject, match="no facts"):
        RewardEncoder(processor=PROCESSOR, seed=0)(bare, epoch=0)
    assert len(RewardEncoder(processor=PROCESSOR, seed=0, facts=False)(bare, epoch=0).pairs) == 1
    whole = max(
        len(s.input_ids)
        for s in RewardEncoder(processor=PROCESSOR, seed=0)(SAMPLE, epoch=0).sequences
    )
    small = make_processor(max_length=whole - 1)  # the request alone would fit
    with pytest.raises(Reject, match="no room for the response"):
        RewardEncoder(processor=small, seed=0)(SAMPLE, epoch=0)
