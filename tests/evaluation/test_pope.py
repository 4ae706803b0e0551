"""POPE on hand-made answers and on the released files with answers that are made up."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.errors import InputError
from dress.evaluation.benchmarks.pope import PopeBenchmark, read_answer
from dress.evaluation.public import first_word
from tests.data.coco_files import shared_data
from tests.evaluation.public_files import points, read_rows, scored, write_lines

ROOT = Path(__file__).resolve().parents[2]
SPLITS = ("random", "popular", "adversarial")


@pytest.mark.parametrize(
    ("response", "said"),
    [
        ("Yes, there is.", "yes"),
        ("No, there is not.", "no"),
        ("no", "no"),
        ("", "yes"),  # nothing says no
        ("NO", "yes"),  # these letters are not among the three spellings
        ("No.", "no"),
        ("Well. No.", "yes"),  # only the text before the first full stop counts
        ("I do, not see one", "no"),  # commas go
        ("There isn't one", "yes"),
        ("Nothing like it", "yes"),
        ("It is not.", "no"),
        ("No\tdog", "yes"),  # cut at blanks alone
        ("no-one", "yes"),
    ],
)
def test_an_answer_is_read_by_the_official_rule(response: str, said: str) -> None:
    assert read_answer(response) == said


def question(number: int, label: str, image: str = "a.jpg") -> dict[str, Any]:
    text = f"Is there a thing{number} in the image?"
    return {"question_id": number, "image": image, "text": text, "label": label}


def bench(root: Path, labels: str, split: str = "random", **options: Any) -> PopeBenchmark:
    """Ask a question per letter, y or n, two per image."""
    rows = [
        question(i, "yes" if letter == "y" else "no", f"{i // 2}.jpg")
        for i, letter in enumerate(labels)
    ]
    write_lines(root / f"{split}.json", rows)
    return PopeBenchmark(root=str(root), file="{split}.json", splits=[split], **options)


def test_figures_by_hand(tmp_path: Path) -> None:
    said = ["Yes", "Yes", "no", "Yes", "No", "perhaps"]  # of which the last counts as yes
    rows = [{"question_id": i, "answer": text} for i, text in enumerate(said)]
    metrics = scored(bench(tmp_path, "yyynnn"), rows, tmp_path)
    # true positives 2, false positives 2, false negatives 1, true negatives 1
    expected = {
        "accuracy": 3 / 6,
        "precision": 2 / 4,
        "recall": 2 / 3,
        "f1": 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3),
        "yes_ratio": 4 / 6,
    }
    figures = points(metrics)
    lost = {"unparsed": 1 / 6, "misread": 0}
    assert figures == pytest.approx(
        expected | {f"random/{k}": v for k, v in expected.items()} | lost
    )
    assert metrics["pope/accuracy_low"] < 0.5 < metrics["pope/accuracy_high"]
    unparsed = read_rows(tmp_path / "unparsed.jsonl")
    assert unparsed == [{"id": "random/5", "response": "perhaps"}]
    kept = read_rows(tmp_path / "responses.jsonl")
    assert [row["response"] for row in kept] == said and kept[0]["split"] == "random"


def test_what_is_not_defined_is_zero(tmp_path: Path) -> None:
    rows = [{"question_id": i, "answer": "No"} for i in range(4)]
    figures = points(scored(bench(tmp_path, "yynn"), rows, tmp_path))
    assert figures["precision"] == figures["recall"] == figures["f1"] == 0
    assert figures["accuracy"] == 0.5 and figures["yes_ratio"] == 0


def test_splits_stand_alone_and_as_their_mean(tmp_path: Path) -> None:
    bench(tmp_path, "yn", split="random")
    bench(tmp_path, "yy", split="popular")
    both = PopeBenchmark(root=str(tmp_path), file="{split}.json", splits=["random", "popular"])
    rows = [
        {"split": split, "question_id": i, "response": "Yes"}
        for split in ("popular", "random")
        for i in range(2)
    ]
    figures = points(scored(both, rows, tmp_path))
    assert figures["random/accuracy"] == 0.5 and figures["popular/accuracy"] == 1
    assert figures["accuracy"] == 0.75
    remedy = r"add its split, or give benchmark\.splits=\[<that of the file>\]\.$"
    with pytest.raises(InputError, match=f"row 1, does not say which question .*: {remedy}"):
        scored(both, [{"question_id": 0, "response": "Yes"}, *rows[1:]], tmp_path)
    one = [{"question_id": i, "response": "Yes"} for i in range(2)]
    with pytest.raises(InputError, match=f"row 1, .* repeats none: {remedy}"):
        scored(both, one, tmp_path)
    asked = [row | {"prompt": f"Is there a thing{i} in the image?"} for i, row in enumerate(one)]
    with pytest.raises(InputError, match=f"2 rows that do not say which of 4 .*: {remedy}"):
        scored(both, asked, tmp_path)
    with pytest.raises(InputError, match=f"row 1, answers 'Is there a thing1.*: {remedy}"):
        scored(both, asked[::-1], tmp_path)
    with pytest.raises(InputError, match=r"row 1, .* repeats none: add its split and question_id,"):
        scored(both, [{"response": "Yes"}], tmp_path)


MARKED = [
    "**No**",
    "NO",
    "No!",
    "No\nThere is none.",
    "__no__",
    "Yes, it is not hidden.",
    "No.",
    "",
]
READ = {  # the first word of each, and whether POPE's rule reads each as yes
    "first_word": ["no", "no", "no", "no", "no", "yes", "no", None],
    "official": ["yes", "yes", "yes", "yes", "yes", "no", "no", "yes"],
}


def test_what_the_official_rule_misreads_is_counted(tmp_path: Path) -> None:
    assert [first_word(text) for text in MARKED] == READ["first_word"]
    assert [read_answer(text) for text in MARKED] == READ["official"]
    rows = [{"question_id": i, "answer": text} for i, text in enumerate(MARKED)]
    figures = points(scored(bench(tmp_path, "nnnnnynn"), rows, tmp_path))
    # of the eight only `No.` is read right; six say otherwise at once, and one says nothing
    assert figures["accuracy"] == 1 / 8
    assert figures["misread"] == 6 / 8 and figures["unparsed"] == 7 / 8
    assert [row["response"] for row in read_rows(tmp_path / "unparsed.jsonl")] == [
        text for text in MARKED if text != "No."
    ]


def test_the_first_word_may_count(tmp_path: Path) -> None:
    rows = [{"question_id": i, "answer": text} for i, text in enumerate(MARKED)]
    benchmark = bench(tmp_path, "nnnnnynn", answers="first_word")
    figures = points(scored(benchmark, rows, tmp_path))
    assert figures["accuracy"] == 7 / 8 and figures["yes_ratio"] == 1 / 8
    assert figures["unparsed"] == 1 / 8 and "misread" not in figures
    with pytest.raises(InputError, match="answers is 'exact': choose official or first_word"):
        PopeBenchmark(answers="exact")  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", ["question", "response"])
def test_imange_is_image(tmp_path: Path, kept: str) -> None:
    """Some copies write `an umbrella in the imange`: in the questions, or in what repeats them."""
    right, wrong = "Is there an owl in the image?", "Is there an owl in the imange?"
    in_file, in_row = (wrong, right) if kept == "question" else (right, wrong)
    write_lines(tmp_path / "random.json", [question(0, "yes") | {"text": in_file}])
    benchmark = PopeBenchmark(root=str(tmp_path), file="{split}.json", splits=["random"])
    [example] = benchmark.examples()
    assert example.question == right
    for more in ({"question_id": 0}, {}):  # by its id, and by its question alone
        figures = points(scored(benchmark, [{"prompt": in_row, "text": "Yes", **more}], tmp_path))
        assert figures["accuracy"] == 1


@pytest.mark.parametrize(
    "changed", [{"label": "maybe"}, {"image": None}, {"question_id": ""}, {"text": "\ud83d?"}]
)
def test_a_damaged_row_is_named(tmp_path: Path, changed: dict[str, Any]) -> None:
    write_lines(tmp_path / "random.json", [question(0, "yes"), question(1, "no") | changed])
    benchmark = PopeBenchmark(root=str(tmp_path), file="{split}.json", splits=["random"])
    with pytest.raises(InputError, match=r"random\.json, row 2, has .*fetch"):
        list(benchmark.examples())


def official(answers: list[str], labels: list[str]) -> dict[str, float]:
    """The figures from arrays, written independently of the benchmark."""
    truth = np.array([label == "yes" for label in labels])
    yes = np.array([not {"No", "no", "not"} & set(a.split(".")[0].replace(",", "").split(" "))
                    for a in answers])  # fmt: skip
    hits = (yes & truth).sum()
    precision = hits / yes.sum() if yes.any() else 0.0
    recall = hits / truth.sum()
    total = precision + recall
    return {
        "accuracy": (yes == truth).mean(),
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / total if total else 0.0,
        "yes_ratio": yes.mean(),
    }


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["all yes", "all no", "copy", "shuffled"])
def test_the_released_files(tmp_path: Path, split: str, kind: str) -> None:
    rows = read_rows(shared_data("pope", f"coco_pope_{split}.json"))
    labels = [row["label"] for row in rows]
    mixed = random.Random(0).sample(labels, len(labels))
    answers = {
        "all yes": ["Yes, there is."] * len(rows),
        "all no": ["No, there is not."] * len(rows),
        "copy": labels,
        "shuffled": mixed,
    }[kind]
    said = [
        {"question_id": r["question_id"], "text": a} for r, a in zip(rows, answers, strict=True)
    ]
    random.Random(1).shuffle(said)  # the order of a file with ids is of no account
    benchmark = PopeBenchmark(root=str(shared_data()), splits=[split])
    started = time.process_time()
    figures = points(scored(benchmark, said, tmp_path))
    assert time.process_time() - started < 2
    expected = official(answers, labels)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)
    if kind != "shuffled":  # half of the labels are yes
        assert figures["accuracy"] == (1.0 if kind == "copy" else 0.5)


def test_no_torch_is_needed(tmp_path: Path) -> None:
    bench(tmp_path, "yn")
    rows = [{"question_id": i, "answer": "No"} for i in range(2)]
    answers = write_lines(tmp_path / "a.jsonl", rows)
    code = (
        "import runpy, sys, atexit\n"
        "atexit.register(lambda: print('heavy', "
        "{'torch', 'transformers', 'lightning', 'openai'} & set(sys.modules)))\n"
        "runpy.run_path('run.py', run_name='__main__')"
    )
    command = [
        *(sys.executable, "-c", code, "job=evaluate", "benchmark=pope", f"responses={answers}"),
        *(f"benchmark.root={tmp_path}", "benchmark.file=\\{split\\}.json"),
        *("benchmark.splits=[random]", f"paths.artifacts={tmp_path / 'artifacts'}"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("heavy set()\n"), done.stdout
    [path] = (tmp_path / "artifacts").glob("pope_a-*/metrics.json")
    assert json.loads(path.read_text())["pope/responses"] == 2
