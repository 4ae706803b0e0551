"""Counts, lengths and ratings of a few groups, by hand."""

from __future__ import annotations

from dress.reporting.shards_page import ShardStatistics
from dress.types import Dialogue, Feedback, Judgement, Sample, Turn


def judged(rating: int, critique: str, refinement: str = "") -> Feedback:
    return Feedback({"honesty": Judgement(rating, critique, refinement)})


FIRST = Sample(
    "a",
    (b"1", b"2"),
    (
        Dialogue((Turn("one two", "a b c", judged(2, "x y", "z")), Turn("z", "a"))),
        Dialogue((Turn("one two", "", judged(4, "")),)),
    ),
    {"task": "describe"},
)
SECOND = Sample(
    "b",
    (),
    (
        Dialogue(
            (
                Turn(
                    "one",
                ),
            )
        ),
    ),
)


def test_the_tables_say_what_was_added() -> None:
    statistics = ShardStatistics()
    statistics.add("train", FIRST)
    statistics.add("validation", SECOND)
    counts, lengths, ratings, tasks = statistics.tables()
    assert counts.columns == ("train", "validation")
    assert counts.rows == {
        "groups": ["1", "1"],
        "text only": ["0", "1"],
        "images": ["2", "0"],
        "dialogues": ["2", "1"],
        "turns": ["3", "1"],
        "turns with feedback": ["2", "0"],
    }
    # mean, median, 95 %, most
    assert lengths.rows == {
        "words: user": ["1.5", "1", "2", "2"],  # 2 1 2 1
        "words: response": ["1.3", "1", "3", "3"],  # 3 1 0
        "words: critique": ["1.0", "0", "2", "2"],  # 2 0
        "words: refinement": ["1.0", "1", "1", "1"],
        "dialogues of a group": ["1.5", "1", "2", "2"],
        "turns of a dialogue": ["1.3", "1", "2", "2"],  # 2 1 1
    }
    assert ratings.rows["honesty"] == ["0", "1", "0", "1", "3.00"]
    assert ratings.rows["helpfulness"] == ["-"] * 5
    assert tasks.rows == {"describe": ["1"], "-": ["1"]}
    assert str(tasks).splitlines()[1].split() == ["describe", "1"]


def test_quantiles_of_a_hundred() -> None:
    statistics = ShardStatistics()
    for number in range(1, 101):
        text = " ".join(["w"] * number)
        statistics.add("train", Sample(str(number), (), (Dialogue((Turn(text),)),)))
    assert statistics.tables()[1].rows["words: user"] == ["50.5", "50", "95", "100"]
