"""MME: the official reading of answers, pairs, sums, and the released files."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError
from dress.evaluation.benchmarks.mme import COGNITION, PERCEPTION, MmeBenchmark, read_answer
from dress.evaluation.response_file import read_responses
from dress.evaluation.scoring import score
from tests.data.coco_files import shared_data
from tests.evaluation.public_files import points, scored


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Yes", "yes"),
        ("no.", "no"),
        ("YES, it is", "yes"),
        (" yes", "yes"),
        ("  yes", None),  # only four characters are looked at
        ("Not so", "no"),
        ("Know", "no"),  # holds `no`
        ("The answer is yes", None),
        ("y", None),
        ("", None),
        ("noye", "no"),
        ("nyes", "yes"),
    ],
)
def test_an_answer_is_read_by_the_official_rule(response: str, said: str | None) -> None:
    assert read_answer(response) == said


def write(root: Path, **pairs: int) -> MmeBenchmark:
    """Write so many images for each subtask, each with a yes and then a no."""
    (root / "mme").mkdir(exist_ok=True)
    for subtask, count in pairs.items():
        lines = [
            f"{i}.jpg\tIs {i} {what}?\t{answer}"
            for i in range(count)
            for what, answer in (("there", "Yes"), ("absent", "No"))
        ]
        (root / f"mme/{subtask}.txt").write_text("\n".join(lines) + "\n")
    return MmeBenchmark(root=str(root), subtasks=list(pairs))


def rows(subtask: str, *answers: str) -> list[dict[str, Any]]:
    return [
        {
            "subtask": subtask,
            "image": f"{n // 2}.jpg",
            "question": f"Is {n // 2} {'absent' if n % 2 else 'there'}?",
            "answer": answer,
        }
        for n, answer in enumerate(answers)
    ]


def test_figures_by_hand(tmp_path: Path) -> None:
    said = rows("count", "Yes", "No", "Yes", "Yes", "perhaps", "No")
    said += rows("color", "Yes", "No")
    figures = points(scored(write(tmp_path, count=3, color=1), reversed(said), tmp_path))
    assert figures == pytest.approx(
        {
            "count/acc": 4 / 6,
            "count/acc_plus": 1 / 3,
            "count/score": 100 * (4 / 6 + 1 / 3),
            "color/acc": 1.0,
            "color/acc_plus": 1.0,
            "color/score": 200.0,
            "unparsed": 1 / 8,
        }
    )  # no total: subtasks are missing


def test_half_a_pair_counts_for_acc_alone(tmp_path: Path) -> None:
    write(tmp_path, count=2)
    benchmark = MmeBenchmark(root=str(tmp_path), subtasks=["count"], unanswered="skip")
    figures = points(scored(benchmark, rows("count", "Yes", "No", "Yes"), tmp_path))
    assert figures["count/acc"] == 1 and figures["count/acc_plus"] == 1
    figures = points(scored(benchmark, rows("count", "No", "No", "Yes"), tmp_path))
    assert figures["count/acc"] == pytest.approx(2 / 3) and figures["count/acc_plus"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\tQ?\tYes\n", "no pair"),
        ("a.jpg\tQ?\tYes\nb.jpg\tQ?\tNo\n", "no pair"),
        ("a.jpg\tQ?\tYes\na.jpg\tR?\tNever\n", "line 2, is not image, question"),
        ("a.jpg Q? Yes\n", "line 1, is not"),
        ("a.jpg\tQ?\tYes\na.jpg\tQ?\tNo\n", "asked twice"),
    ],
)
def test_damaged_files(tmp_path: Path, text: str, message: str) -> None:
    benchmark = write(tmp_path, count=1)
    (tmp_path / "mme/count.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        list(benchmark.examples())


def test_mistaken_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose from existence, count"):
        MmeBenchmark(subtasks=["taste"])
    with pytest.raises(InputError, match=r"color\.txt does not exist"):
        write(tmp_path, count=1)
        list(MmeBenchmark(root=str(tmp_path), subtasks=["color"]).examples())


RESULTS = {  # as calculation.py reads them; of four pairs two are right, of eight answers six
    "count": "0.jpg\tIs 0 there?\tYes\tYes, it is.\n0.jpg\tIs 0 absent?\tNo\tNo\n"
    "1.jpg\tIs 1 there?\tYes\tyes\r\n1.jpg\tIs 1 absent?\tNo\tYes\n",
    "color": "0.txt\tIs 0 there?\tYes\tno\n0.txt\tIs 0  absent?\tNo\tNo.\tNot\u2028at all\n"
    "\n1.txt\tIs 1 there?\tYes\tYes\n1.txt\tIs 1 absent?\tNo\tNo",
}


def results(folder: Path, **texts: str) -> Path:
    folder.mkdir(exist_ok=True)
    for subtask, text in texts.items():
        (folder / f"{subtask}.txt").write_text(text, newline="")
    return folder


def test_the_official_results_are_read_as_they_are(tmp_path: Path) -> None:
    benchmark = write(tmp_path, count=2, color=2)
    folder = results(tmp_path / "Model", **RESULTS, calculation="no results")
    found = read_responses(folder, benchmark)
    assert [a.response for a in found.answered] == [
        *("Yes, it is.", "No", "yes", "Yes"),
        *("no", "No.\tNot\u2028at all", "Yes", "No"),
    ]
    figures = points(score(benchmark, found.answered, directory=tmp_path))
    assert (figures["count/acc"], figures["count/acc_plus"]) == (3 / 4, 1 / 2)
    assert (figures["color/acc"], figures["color/acc_plus"]) == (3 / 4, 1 / 2)
    # one file alone
    alone = read_responses(
        folder / "color.txt", MmeBenchmark(root=str(tmp_path), subtasks=["color"])
    )
    assert [a.response for a in alone.answered] == [a.response for a in found.answered[4:]]
    with pytest.raises(
        InputError, match=r"Model lacks responses to 4 of 8 questions, first count/"
    ):
        (folder / "count.txt").unlink()
        read_responses(folder, benchmark)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.jpg\tIs 0 there?\tYes\n", r"count\.txt, row 1, has no answer after its third tab"),
        ("0.jpg\tIs 0 there?\tYes\tYes\nand so on\n", r"count\.txt, line 2, is not image"),
        ("9.jpg\tIs 9 there?\tYes\tYes\n", r"count\.txt, row 1, answers count/9\.jpg/Is 9 there"),
        (RESULTS["count"] * 2, r"row 5, answers count/0\.jpg/Is 0 there\? again, after row 1"),
        (
            "0.jpg\tIs 0 there?\tYes\tIs 0 there?\n",
            r"count\.txt, row 1, has a question and no answer in answer",
        ),
    ],
)
def test_damaged_results(tmp_path: Path, text: str, message: str) -> None:
    folder = results(tmp_path / "Model", count=text)
    with pytest.raises(InputError, match=message):
        read_responses(folder, write(tmp_path, count=2))


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Model holds no count\.txt and no file of another"):
        read_responses(results(tmp_path / "Model", other="x"), write(tmp_path, count=2))


@pytest.mark.parametrize("kind", ["all yes", "all no", "copy", "shuffled"])
def test_the_released_files(tmp_path: Path, kind: str) -> None:
    benchmark = MmeBenchmark(root=str(shared_data("mme").parent))
    examples = list(benchmark.examples())
    assert len(examples) == 2374 and len({e.annotations["image"] for e in examples}) == 1187
    answers = [example.answer for example in examples]
    if kind.startswith("all"):
        answers = [kind.removeprefix("all ")] * len(answers)
    elif kind == "shuffled":
        random.Random(0).shuffle(answers)
    said = [{"id": e.id, "response": a} for e, a in zip(examples, answers, strict=True)]
    figures = points(scored(benchmark, said, tmp_path))
    right: Counter[str] = Counter()
    both: Counter[str] = Counter()
    asked = Counter(e.annotations["subtask"] for e in examples)
    for place in range(0, len(examples), 2):
        subtask = examples[place].annotations["subtask"]
        hits = [answers[i] == examples[i].answer for i in (place, place + 1)]
        right[subtask] += sum(hits)
        both[subtask] += all(hits)
    scores = {s: 100 * right[s] / n + 100 * both[s] / (n / 2) for s, n in asked.items()}
    assert {s: figures[f"{s}/score"] for s in scores} == pytest.approx(scores)
    assert figures["perception"] == pytest.approx(sum(scores[s] for s in PERCEPTION))
    assert figures["cognition"] == pytest.approx(sum(scores[s] for s in COGNITION))
    totals = {"copy": (2000, 800), "all yes": (500, 200), "all no": (500, 200)}
    if kind in totals:
        assert (figures["perception"], figures["cognition"]) == pytest.approx(totals[kind])
