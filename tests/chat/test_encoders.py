from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from dress.chat.condition import Condition
from dress.chat.encoders import CritiqueEncoder, InstructionEncoder
from dress.data.collate import TreeCollator
from dress.errors import InputError, Reject
from dress.types import Dialogue, EncodedGroup, Feedback, Sample, Turn
from tests.chat.tiny_chat import feedback, make_processor, picture

PROCESSOR = make_processor(max_length=500)
SAMPLE = Sample(
    id="a",
    images=(picture(0), picture(1)),
    dialogues=(
        Dialogue((Turn("How?", "Two.", feedback(4)), Turn("Sure?", "Yes.", feedback(1)))),
        Dialogue((Turn("How?", "Three."),)),
    ),
)


def paint(encoder: InstructionEncoder | CritiqueEncoder, sample: Sample = SAMPLE) -> list[str]:
    return [PROCESSOR.paint(s) for s in encoder(sample, epoch=0).sequences]


def test_instructions_are_one_unconditioned_sequence_per_dialogue() -> None:
    first = "USER: <image*4>\\n<image*4>\\nHow? ASSISTANT:"
    assert paint(InstructionEncoder(processor=PROCESSOR)) == [
        f"{first}[ Two.</s>]USER: Sure? ASSISTANT:[ Yes.</s>]",
        f"{first}[ Three.</s>]",
    ]
    assert paint(InstructionEncoder(processor=PROCESSOR, loss_turns="last")) == [
        f"{first} Two.</s>USER: Sure? ASSISTANT:[ Yes.</s>]",
        f"{first}[ Three.</s>]",
    ]


def test_critiques_are_one_sequence_per_turn_with_only_its_own_condition() -> None:
    encoder = CritiqueEncoder(
        processor=PROCESSOR, condition=Condition(form="score", dropout=0.0), seed=0
    )
    first = "USER: <image*4>\\n<image*4>\\nHow?"
    assert paint(encoder) == [
        f"{first} FEEDBACK: helpfulness 4 honesty 4 harmlessness 4 ASSISTANT:[ Two.</s>]",
        f"{first} ASSISTANT: Two.</s>USER: Sure? FEEDBACK: helpfulness 1 honesty 1 harmlessness 1"
        " ASSISTANT:[ Yes.</s>]",
        f"{first} ASSISTANT:[ Three.</s>]",
    ]


def test_critique_of_the_last_turn_only() -> None:
    condition = Condition(form="score", dropout=0.0)
    encoder = CritiqueEncoder(processor=PROCESSOR, condition=condition, seed=0, loss_turns="last")
    assert len(paint(encoder)) == 2


def test_without_history_a_revision_answers_the_first_question() -> None:
    encoder = CritiqueEncoder(
        processor=PROCESSOR,
        condition=Condition(form="score", dropout=0.0),
        seed=0,
        loss_turns="last",
        history="none",
    )
    first = "USER: <image*4>\\n<image*4>\\nHow?"
    assert paint(encoder)[0] == (
        f"{first} FEEDBACK: helpfulness 1 honesty 1 harmlessness 1 ASSISTANT:[ Yes.</s>]"
    )
    with pytest.raises(InputError, match="history is 'some': choose all or none"):
        CritiqueEncoder(processor=PROCESSOR, condition=Condition(), seed=0, history="some")


def test_feedback_of_another_response_is_that_of_the_next() -> None:
    encoder = CritiqueEncoder(
        processor=PROCESSOR,
        condition=Condition(form="score", dropout=0.0),
        seed=0,
        feedback_of="other",
    )
    dialogues = tuple(
        Dialogue((Turn("How?", text, feedback(rating)),))
        for text, rating in (("Two.", 4), ("Three.", 1))
    )
    painted = paint(encoder, replace(SAMPLE, dialogues=dialogues))
    assert "helpfulness 1" in painted[0] and painted[0].endswith("[ Two.</s>]")
    assert "helpfulness 4" in painted[1] and painted[1].endswith("[ Three.</s>]")


@pytest.mark.parametrize("feedback_of", ["own", "other"])
def test_a_response_with_perfect_feedback_counts_as_often_as_it_weighs(feedback_of: str) -> None:
    dialogues = tuple(
        Dialogue((Turn("How?", text, judged),))
        for text, judged in (
            ("Two.", feedback(4)),
            ("Three.", feedback(3)),
            ("Four.", Feedback({})),
            ("Five.", None),
        )
    )
    sample = replace(SAMPLE, dialogues=dialogues)

    def encoded(weight: int) -> EncodedGroup:
        return CritiqueEncoder(
            processor=PROCESSOR,
            condition=Condition(form="score", dropout=0.0),
            seed=0,
            feedback_of=feedback_of,
            perfect_weight=weight,
        )(sample, epoch=0)

    plain, weighted = encoded(1), encoded(3)
    # "Five." comes before the perfect one, in a ring
    times = [3, 1, 1, 1] if feedback_of == "own" else [1, 1, 1, 3]
    expected = [
        s.input_ids.tolist() for s, n in zip(plain.sequences, times, strict=True) for _ in range(n)
    ]
    assert [s.input_ids.tolist() for s in weighted.sequences] == expected
    collate = TreeCollator(
        pad_token_id=0, image_token_id=PROCESSOR.image_token_id, num_image_tokens=4
    )
    (one,), (three,) = collate([plain]), collate([weighted])
    assert torch.equal(one.input_ids, three.input_ids)  # a tree computes it once
    perfect = plain.sequences[times.index(3)].loss_mask.sum()
    assert len(three.target_node) == len(one.target_node) + 2 * perfect


@pytest.mark.parametrize(
    ("ratings", "weight", "times"),
    [((4, 3, 4), 6, [3, 1, 3]), ((4, 4, 4), 2, [1, 1, 1]), ((3, 2, 1), 6, [1, 1, 1])],
)
def test_perfect_responses_of_a_group_count_together(
    ratings: tuple[int, ...], weight: int, times: list[int]
) -> None:
    texts = ("Two.", "Three.", "Four.")
    dialogues = tuple(
        Dialogue((Turn("How?", text, feedback(rating)),))
        for text, rating in zip(texts, ratings, strict=True)
    )
    condition = Condition(form="score", dropout=0.0)
    encoder = CritiqueEncoder(
        processor=PROCESSOR, condition=condition, seed=0, perfect_weight=weight
    )
    painted = paint(encoder, replace(SAMPLE, dialogues=dialogues))
    assert [sum(text in line for line in painted) for text in texts] == times


def test_a_later_response_counts_as_often_as_it_weighs() -> None:
    turns = tuple(Turn("How?", text, feedback(4)) for text in ("One.", "Two.", "Three."))
    condition = Condition(form="score", dropout=0.0)
    encoder = CritiqueEncoder(processor=PROCESSOR, condition=condition, seed=0, later_weight=2)
    group = encoder(replace(SAMPLE, dialogues=(Dialogue(turns),)), epoch=0)
    assert [sequence.turn for sequence in group.sequences] == [0, 1, 1, 2, 2]


def test_what_weighs_more_keeps_all_aspects_of_its_feedback() -> None:
    def painted(weight: int) -> list[str]:
        dialogues = tuple(Dialogue((Turn("How?", "Two.", feedback(r)),)) for r in (4, 3))
        condition = Condition(form="score", dropout=0.0, aspect_dropout=1.0)
        encoder = CritiqueEncoder(
            processor=PROCESSOR, condition=condition, seed=0, perfect_weight=weight
        )
        return paint(encoder, replace(SAMPLE, dialogues=dialogues))

    assert not any("FEEDBACK" in text for text in painted(1))
    *perfect, other = painted(2)
    assert len(perfect) == 2 and "FEEDBACK" not in other
    assert all("helpfulness 4 honesty 4 harmlessness 4" in text for text in perfect)


def test_a_group_with_nothing_to_learn_gives_no_sequence() -> None:
    encoder = CritiqueEncoder(
        processor=PROCESSOR, condition=Condition(), seed=0, loss_turns="improved"
    )
    group = encoder(SAMPLE, epoch=0)  # rated 4, then 1
    assert group.sequences == ()
    (batch,) = TreeCollator(
        pad_token_id=0, image_token_id=PROCESSOR.image_token_id, num_image_tokens=4
    )([group])
    assert batch.num_sequences == 0 and len(batch.target_node) == 0


def test_condition_dropout_depends_on_epoch_not_on_calls() -> None:
    encoder = CritiqueEncoder(processor=PROCESSOR, condition=Condition(dropout=0.5), seed=3)

    def lengths(epoch: int) -> list[int]:
        return [len(s.input_ids) for s in encoder(SAMPLE, epoch=epoch).sequences]

    assert lengths(0) == lengths(0)
    assert len({tuple(lengths(epoch)) for epoch in range(20)}) > 1


def test_pixels_are_kept_once_per_distinct_file() -> None:
    sample = replace(SAMPLE, images=(SAMPLE.images[0],) * 2)
    group = InstructionEncoder(processor=PROCESSOR)(sample, epoch=0)
    assert len(group.pixels) == 1
    assert group.sequences[0].images == tuple(group.pixels) * 2


def test_records_of_the_wrong_kind_are_rejected() -> None:
    plain = replace(SAMPLE, dialogues=SAMPLE.dialogues[1:])
    critique = CritiqueEncoder(processor=PROCESSOR, condition=Condition(), seed=0)
    assert critique.requires == "feedback"
    with pytest.raises(Reject, match="no feedback"):
        critique(plain, epoch=0)
    unanswered = replace(SAMPLE, dialogues=(Dialogue((Turn("How?"),)),))
    with pytest.raises(Reject, match="no response"):
        InstructionEncoder(processor=PROCESSOR)(unanswered, epoch=0)
    with pytest.raises(InputError, match="loss_turns is 'first': choose all or last or improved"):
        InstructionEncoder(processor=PROCESSOR, loss_turns="first")
