"""Pairs of rated responses: which there are, and what they are encoded as."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from dress.chat.condition import Condition
from dress.chat.distillation import SelfDistillationEncoder
from dress.chat.judging import RewardEncoder
from dress.chat.preferences import (
    Corruption,
    PreferenceEncoder,
    corrupt,
    preference_pairs,
    response_scores,
)
from dress.errors import InputError, Reject
from dress.types import Dialogue, Encoded, Feedback, Judgement, Sample, Turn
from tests.chat.tiny_chat import make_processor, picture

PROCESSOR = make_processor(max_length=500)


def rated(*ratings: int | None) -> Feedback | None:
    """Ratings in the order of the aspects; None is an aspect that was not judged."""
    names = ("helpfulness", "honesty", "harmlessness")
    judged = {n: Judgement(r, "") for n, r in zip(names, ratings, strict=False) if r is not None}
    return Feedback(judged) if judged else None


def group(*feedback: Feedback | None, texts: str = "abcdef", **annotations: Any) -> Sample:
    dialogues = tuple(
        Dialogue((Turn("Hi.", "Hello."), Turn("How many?", text, each)))
        for text, each in zip(texts, feedback, strict=False)
    )
    return Sample("g", (picture(0),), dialogues, annotations)


def pairs(sample: Sample, rule: str = "all", margin: float = 0.0) -> set[tuple[int, int]]:
    found = preference_pairs(sample, rule=rule, margin=margin)  # type: ignore[arg-type]
    assert len(found) == len(set(found))
    return set(found)


MEANS = group(rated(2, 2, 2), rated(4, 4, 4), rated(1, 2, 3), rated(3, 4, 3))  # 2, 4, 2, 10/3


def test_all_pairs_of_a_prompt_by_the_mean_over_aspects_without_ties() -> None:
    assert response_scores(MEANS) == (2.0, 4.0, 2.0, 10 / 3)
    assert pairs(MEANS) == {(1, 0), (1, 2), (1, 3), (3, 0), (3, 2)}  # (0, 2) is a tie
    every = group(*(rated(n, n, n) for n in (1, 2, 3, 4)))
    assert len(pairs(every)) == 6


def test_a_margin_and_best_against_worst() -> None:
    assert pairs(MEANS, margin=1.0) == {(1, 0), (1, 2), (3, 0), (3, 2)}
    assert pairs(MEANS, margin=2.0) == {(1, 0), (1, 2)}
    assert pairs(MEANS, margin=2.1) == set()
    assert pairs(MEANS, rule="best_worst") == {(1, 2)}
    assert pairs(MEANS, rule="best_worst", margin=2.1) == set()
    assert pairs(group(rated(3)), rule="best_worst") == set()


def test_what_is_not_rated_in_full_is_in_no_pair() -> None:
    sample = group(rated(4, 4, 4), rated(1, None, 1), None, rated(2, 2, 2))
    assert response_scores(sample) == (4.0, None, None, 2.0)
    assert pairs(sample) == {(0, 3)}
    # an aspect that nobody was judged on is not missing
    assert response_scores(group(rated(4, 2), rated(1, 2))) == (3.0, 1.5)


def test_a_data_sets_own_scores_come_first() -> None:
    sample = group(rated(4, 4, 4), rated(1, 1, 1), rated(2, 2, 2), scores=[1.0, 2.5, None])
    assert pairs(sample) == {(1, 0)}
    for scores in ([1.0, 2.0], "abc", [1.0, 2.0, "3"], [1.0, 2.0, True]):
        with pytest.raises(Reject, match="invalid record"):
            response_scores(group(*[rated(4)] * 3, scores=scores))


def test_the_same_words_are_no_pair() -> None:
    assert pairs(group(rated(1, 1, 1), rated(4, 4, 4), texts="aa")) == set()


def test_only_paired_responses_are_encoded_with_loss_on_the_last_turn() -> None:
    sample = group(rated(2, 2, 2), None, rated(4, 4, 4), rated(3, 3, 3))
    encoded = PreferenceEncoder(processor=PROCESSOR)(sample, epoch=0)
    before = "USER: <image*4>\\nHi. ASSISTANT: Hello.</s>USER: How many? ASSISTANT:"
    painted = [PROCESSOR.paint(sequence) for sequence in encoded.sequences]
    assert painted == [f"{before}[ {text}</s>]" for text in "acd"]
    assert set(encoded.pairs) == {(1, 0), (1, 2), (2, 0)}
    ties = PreferenceEncoder(processor=PROCESSOR)(group(rated(2), rated(2)), epoch=0)
    assert ties.sequences == () and ties.pairs == ()


@pytest.mark.parametrize("corrupted", ["crop", "blank"])
def test_each_chosen_response_stands_once_more_behind_a_poorer_image(corrupted: Corruption) -> None:
    sample = group(rated(2, 2, 2), rated(4, 4, 4), rated(3, 3, 3))
    encoder = PreferenceEncoder(processor=PROCESSOR, corrupted=corrupted)
    encoded = encoder(sample, epoch=0)
    assert encoded.pairs == ((1, 2), (1, 0), (2, 0)) and encoded.image_pairs == (
        (1, 3),
        (1, 3),
        (2, 4),
    )
    for shown, hidden in encoded.image_pairs:
        one, other = encoded.sequences[shown], encoded.sequences[hidden]
        assert np.array_equal(one.input_ids, other.input_ids)
        (image,), (poorer,) = one.images, other.images
        assert image != poorer
        assert encoded.pixels[image].shape == encoded.pixels[poorer].shape
        assert not torch.equal(encoded.pixels[image], encoded.pixels[poorer])
    (poorer,) = encoded.sequences[3].images
    later = encoder(sample, epoch=1)  # for which the same reference holds
    assert torch.equal(later.pixels[poorer], encoded.pixels[poorer])


def test_a_crop_keeps_a_piece_of_at_most_a_fifth_and_a_blank_nothing() -> None:
    pixels = torch.arange(10 * 20 * 3).reshape(10, 20, 3).remainder(256).to(torch.uint8)
    values = set()
    for seed in range(50):
        cropped = corrupt(pixels, "crop", random.Random(seed))
        assert cropped.shape == pixels.shape
        found = {tuple(p) for p in cropped.reshape(-1, 3).tolist()}
        assert found <= {tuple(p) for p in pixels.reshape(-1, 3).tolist()}
        values.add(len(found))
    assert 1 <= min(values) and max(values) <= 0.2 * 10 * 20
    blank = corrupt(pixels, "blank", random.Random(0))
    assert {tuple(p) for p in blank.reshape(-1, 3).tolist()} == {
        tuple(pixels.float().mean(dim=(0, 1)).round().int().tolist())
    }


def test_nothing_rated_and_nothing_said_are_rejects() -> None:
    encoder = PreferenceEncoder(processor=PROCESSOR)
    with pytest.raises(Reject, match="no feedback"):
        encoder(group(None, None), epoch=0)
    silent = Sample(
        "g",
        (picture(0),),
        (Dialogue((Turn("a", "b", rated(4)),)), Dialogue((Turn("a", None, rated(1)),))),
    )
    with pytest.raises(Reject, match="no response"):
        encoder(silent, epoch=0)


def test_mistakes_name_the_choices() -> None:
    with pytest.raises(InputError, match="pairs is 'some': choose all or best_worst"):
        PreferenceEncoder(processor=PROCESSOR, pairs="some")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="margin is -1"):
        PreferenceEncoder(processor=PROCESSOR, margin=-1)


@pytest.mark.parametrize(
    "encoder", [PreferenceEncoder, partial(RewardEncoder, seed=0, facts=False)]
)
def test_both_sides_of_a_pair_stand_behind_the_same_turns(encoder: Any) -> None:
    """Where the longer response leaves no room for the first turn, the shorter one drops it too."""
    first = Turn("Hello there, my friend.", "Hello.")
    sides = (Turn("How many?", "Two.", rated(4)), Turn("How many?", "No. " * 30, rated(1)))
    sample = Sample("g", (), tuple(Dialogue((first, side)) for side in sides), {})

    def sequences(max_length: int) -> tuple[Encoded, ...]:
        return encoder(processor=make_processor(max_length=max_length))(sample, epoch=0).sequences

    short, long = sequences(900)
    assert (short.dropped, long.dropped) == (0, 0)
    short, long = sequences(len(long.input_ids) - 1)
    assert (short.dropped, long.dropped) == (1, 1)
    begin = PROCESSOR.paint(long).partition("[")[0]
    assert "Hello" not in begin and PROCESSOR.paint(short).startswith(begin)


def test_a_student_stands_behind_the_same_turns_as_its_teacher() -> None:
    turns = (Turn("Hello there, my friend.", "Hello."), Turn("How many?", "Two.", rated(4, 4, 4)))
    sample = Sample("g", (), (Dialogue(turns),), {})

    def both(max_length: int) -> tuple[Encoded, ...]:
        processor = make_processor(max_length=max_length)
        encoder = SelfDistillationEncoder(processor=processor, condition=Condition())
        return encoder(sample, epoch=0).sequences

    _, teacher = both(900)
    student, teacher = both(len(teacher.input_ids) - 1)
    assert (student.dropped, teacher.dropped) == (1, 1)
