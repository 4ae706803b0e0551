"""Responses in the formats of the official scripts, read as those scripts read them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dress.evaluation.benchmarks.amber import AmberBenchmark
from dress.evaluation.benchmarks.amber_generative import AmberGenerativeBenchmark
from dress.evaluation.benchmarks.chair import ChairBenchmark
from dress.evaluation.benchmarks.llava_bench import LlavaBenchmark
from dress.evaluation.benchmarks.mme import COGNITION, PERCEPTION, MmeBenchmark
from dress.evaluation.benchmarks.mmhal import MMHalBenchmark
from dress.evaluation.benchmarks.pope import PopeBenchmark
from dress.evaluation.benchmarks.vlsafe import VLSafeBenchmark
from dress.evaluation.public import PublicBenchmark
from dress.evaluation.response_file import read_responses
from dress.evaluation.scoring import score
from tests.data.coco_files import shared_data
from tests.evaluation.public_files import points, read_rows, scored, write_lines

ODD = ["Yes.", "no\tnot\nat all", "", "Yés, «it» is", "No, there is no dog."]


def root() -> str:
    return str(shared_data("pope").parent)


def answer_all(benchmark: PublicBenchmark, folder: Path) -> tuple[Path, dict[str, float]]:
    """Give odd answers in turn; return the folder of official files and the figures."""
    examples = list(benchmark.examples())
    rows = [{"id": e.id, "response": ODD[n % len(ODD)]} for n, e in enumerate(examples)]
    return folder / "official", points(scored(benchmark, rows, folder))


def again(benchmark: PublicBenchmark, path: Path, folder: Path) -> dict[str, float]:
    """Score an official file by our own reader."""
    folder.mkdir()
    return points(score(benchmark, read_responses(path, benchmark).answered, directory=folder))


def test_pope(tmp_path: Path) -> None:
    made, figures = answer_all(PopeBenchmark(root=root()), tmp_path)
    assert sorted(path.name for path in made.iterdir()) == [
        f"pope_{split}.jsonl" for split in ("adversarial", "popular", "random")
    ]
    for split in ("random", "popular", "adversarial"):
        path = made / f"pope_{split}.jsonl"
        own = again(PopeBenchmark(root=root(), splits=[split]), path, tmp_path / split)
        assert own["accuracy"] == figures[f"{split}/accuracy"]
        # the script joins answers and labels by their order
        labels = read_rows(shared_data("pope") / f"coco_pope_{split}.json")
        rows = read_rows(path)
        assert [row["question_id"] for row in rows] == [row["question_id"] for row in labels]
        said = ["no" if {"No", "no", "not"} & _first_words(r["answer"]) else "yes" for r in rows]
        right = sum(a == row["label"] for a, row in zip(said, labels, strict=True))
        assert figures[f"{split}/accuracy"] == pytest.approx(right / 3000)


def _first_words(text: str) -> set[str]:
    return set(text.partition(".")[0].replace(",", "").split(" "))


def test_scripts_that_go_by_order_get_no_gaps(tmp_path: Path) -> None:
    for benchmark in (
        PopeBenchmark(root=root(), splits=["random"], unanswered="skip"),
        LlavaBenchmark(root=root(), unanswered="skip"),
    ):
        example = next(iter(benchmark.examples()))
        answered = read_responses(
            write_lines(tmp_path / "one.jsonl", [{"id": example.id, "response": "Yes"}]), benchmark
        ).answered
        assert len(answered) == 1 and benchmark.official(answered) == {}


def test_mme(tmp_path: Path) -> None:
    made, figures = answer_all(MmeBenchmark(root=root()), tmp_path)
    for subtask in (*PERCEPTION, *COGNITION):
        released = (shared_data("mme") / f"{subtask}.txt").read_text().splitlines()
        lines = (made / "mme" / f"{subtask}.txt").read_text().splitlines(keepends=True)
        parts = [line.split("\t") for line in lines]
        assert ["\t".join(p[:3]) for p in parts] == [line.rstrip() for line in released if line]
        assert all(len(p) == 4 for p in parts)  # as calculation.py unpacks them
        right = [_mme_answer(p[3]) == p[2].lower() for p in parts]
        pairs = [right[n] and right[n + 1] for n in range(0, len(right), 2)]
        expected = 100 * sum(right) / len(right) + 100 * sum(pairs) / len(pairs)
        assert figures[f"{subtask}/score"] == pytest.approx(expected)


def _mme_answer(field: str) -> str:
    start = field.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else "other"


def test_mme_leaves_half_a_pair_out(tmp_path: Path) -> None:
    benchmark = MmeBenchmark(root=root(), subtasks=["OCR"], unanswered="skip")
    rows = [{"id": e.id, "response": "Yes"} for e in benchmark.examples()][:3]
    scored(benchmark, rows, tmp_path)
    assert len((tmp_path / "official/mme/OCR.txt").read_text().splitlines()) == 2


@pytest.mark.slow
def test_amber(tmp_path: Path) -> None:
    made, figures = answer_all(AmberBenchmark(root=root()), tmp_path)
    assert again(AmberBenchmark(root=root()), made / "amber.json", tmp_path / "2") == figures
    truths = json.loads((shared_data("amber") / "annotations.json").read_text())
    rows = json.loads((made / "amber.json").read_text())
    # the script looks a number up as a place
    assert all(truths[row["id"] - 1]["id"] == row["id"] for row in rows)
    generative = AmberGenerativeBenchmark(root=root())
    generative._nouns = str.split  # type: ignore[assignment]
    generative._likeness = lambda word, other: 0.0  # type: ignore[assignment]
    (tmp_path / "3").mkdir()
    made, figures = answer_all(generative, tmp_path / "3")
    assert again(generative, made / "amber.json", tmp_path / "4") == figures


def test_mmhal(tmp_path: Path) -> None:
    made, _ = answer_judged(MMHalBenchmark(root=root()), tmp_path)
    rows = json.loads((made / "mmhal.json").read_text())
    (template,) = shared_data("mmhal").glob("*.json")
    released = json.loads(template.read_text())
    assert len(rows) == 96
    expected = [{**r, "model_answer": ODD[n % len(ODD)]} for n, r in enumerate(released)]
    assert rows == expected


def test_llava_bench(tmp_path: Path) -> None:
    made, answered = answer_judged(LlavaBenchmark(root=root()), tmp_path)
    rows = read_rows(made / "llava_bench.jsonl")
    questions = read_rows(shared_data("llava_bench") / "qa90_questions.jsonl")
    assert [(row["question_id"], row["prompt"]) for row in rows] == [
        (row["question_id"], row["text"]) for row in questions
    ]
    assert [row["text"] for row in rows] == [ODD[n % len(ODD)] for n in range(90)]
    assert all(row["answer_id"] for row in rows)
    read = read_responses(made / "llava_bench.jsonl", LlavaBenchmark(root=root()))
    assert [a.response for a in read.answered] == answered


def answer_judged(benchmark: PublicBenchmark, folder: Path) -> tuple[Path, list[str]]:
    """Save odd answers without a judge."""
    said = {e.id: ODD[n % len(ODD)] for n, e in enumerate(benchmark.examples())}
    rows = [{"id": name, "response": response} for name, response in said.items()]
    path = write_lines(folder / "said.jsonl", rows)
    answered = read_responses(path, benchmark).answered
    assert score(benchmark, answered, directory=folder) == {}
    return folder / "official", list(said.values())


def test_chair(tmp_path: Path) -> None:
    names = {"captions": "coco/captions.json", "instances": "coco/instances.json"}
    benchmark = ChairBenchmark(root=root(), **names, limit=20)
    made, _ = answer_all(benchmark, tmp_path)
    captions = load_captions(json.loads((made / "chair.json").read_text()))
    expected = {int(e.id): ODD[n % len(ODD)] for n, e in enumerate(benchmark.examples())}
    assert captions == expected


def load_captions(file: Mapping[str, Any]) -> dict[int, str]:
    """What chair.py takes from its file: caption metrics over all, captions with their own."""
    needed = {f"Bleu_{n}" for n in range(1, 5)} | {"METEOR", "CIDEr", "SPICE", "ROUGE_L"}
    assert needed <= set(file["overall"])
    rows = list(file["imgToEval"].values())
    assert all(needed <= set(row) and isinstance(row["image_id"], int) for row in rows)
    return {row["image_id"]: row["caption"] for row in rows}


def test_what_has_no_script_gets_no_file(tmp_path: Path) -> None:
    answer_judged(VLSafeBenchmark(root=root()), tmp_path)
    assert not (tmp_path / "official").exists()
