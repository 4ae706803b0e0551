"""AMBER's discriminative part: no is the positive class, and only Yes and No are answers."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError
from dress.evaluation.benchmark import Example
from dress.evaluation.benchmarks.amber import AmberBenchmark
from tests.data.coco_files import shared_data
from tests.evaluation.public_files import points, scored

EXISTENCE, STATE, OTHER = (
    "discriminative-hallucination",
    "discriminative-attribute-state",
    "relation",
)


def write(root: Path, truths: Sequence[tuple[str, str]], **options: Any) -> AmberBenchmark:
    """Write questions 2, 3, ... with (type, truth); 1 belongs to the generative part."""
    annotations = [{"id": 1, "type": "generative", "truth": ["sky"], "hallu": []}]
    queries = []
    for number, (kind, truth) in enumerate(truths, start=2):
        annotations.append({"id": number, "type": kind, "truth": truth})
        queries.append({"id": number, "image": f"{number % 2}.jpg", "query": f"Is it {number}?"})
    (root / "annotations.json").write_text(json.dumps(annotations, indent=1))
    (root / "queries.json").write_text(json.dumps(queries))
    names = {"queries": "queries.json", "annotations": "annotations.json"}
    return AmberBenchmark(root=str(root), **names, **options)


def rows(*responses: str) -> list[dict[str, Any]]:
    return [{"id": n, "response": r} for n, r in enumerate(responses, start=2)]


TRUTHS = [(EXISTENCE, "no"), (EXISTENCE, "no"), (STATE, "yes"), (STATE, "no"), (OTHER, "yes")]


def test_figures_by_hand(tmp_path: Path) -> None:
    said = rows("No", "Yes", "No", "no.", "Yes")
    said.append({"id": 1, "response": "A sky."})  # of the generative part: ignored
    figures = points(scored(write(tmp_path, TRUTHS), said, tmp_path))
    # `No` was said of 2 and 4, right once; no was true of 2, 3 and 5
    assert figures["accuracy"] == pytest.approx(2 / 5)
    assert figures["precision"] == pytest.approx(1 / 2)
    assert figures["recall"] == pytest.approx(1 / 3)
    assert figures["f1"] == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))
    assert figures["unparsed"] == pytest.approx(1 / 5)
    assert figures["existence/accuracy"] == 1 / 2 and figures["relation/accuracy"] == 1
    assert figures["state/recall"] == figures["attribute/recall"] == 0
    assert "number/accuracy" not in figures


def test_the_first_word_may_count(tmp_path: Path) -> None:
    benchmark = write(tmp_path, TRUTHS, answers="first_word")
    said = rows("no, it is not", "NO", "Yes, sunny.", "Nothing", "Well, yes")
    figures = points(scored(benchmark, said, tmp_path))
    assert figures["accuracy"] == pytest.approx(3 / 5)
    assert figures["unparsed"] == pytest.approx(2 / 5)


def test_faults(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="choose exact or first_word"):
        write(tmp_path, TRUTHS, answers="any")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="row 2, has no known type"):
        list(write(tmp_path, [("strange", "yes")]).examples())
    benchmark = write(tmp_path, TRUTHS)
    (tmp_path / "annotations.json").write_text("[]")
    with pytest.raises(InputError, match=r"row 1, has id 2, which annotations\.json lacks"):
        list(benchmark.examples())


def official(kinds: Sequence[str], truths: Sequence[str], said: Sequence[str]) -> list[float]:
    """Percentages as the official script prints them: rounded, with its small constants."""
    everything = list(zip(kinds, truths, said, strict=True))
    right = sum(t.capitalize() == s for _, t, s in everything)
    hits = sum((t, s) == ("no", "No") for _, t, s in everything)
    precision = round(hits / (0.001 + said.count("No")) * 100, 1)
    recall = round(hits / (0.001 + truths.count("no")) * 100, 1)
    accuracy = round(right / (0.001 + len(everything)) * 100, 1)
    p, r = precision / 100, recall / 100
    return [accuracy, precision, recall, round(2 * p * r / (p + r + 0.0001) * 100, 1)]


@pytest.fixture(scope="module")
def released() -> list[Example]:
    return list(AmberBenchmark(root=str(shared_data("amber").parent)).examples())


@pytest.mark.parametrize("kind", ["all yes", "all no", "copy", "shuffled"])
def test_the_released_files(tmp_path: Path, released: list[Example], kind: str) -> None:
    benchmark, examples = AmberBenchmark(root=str(shared_data("amber").parent)), released
    assert len(examples) == 14216
    truths = [example.answer for example in examples]
    answers = [truth.capitalize() for truth in truths]
    if kind == "shuffled":
        random.Random(0).shuffle(answers)
    elif kind != "copy":
        answers = [kind.removeprefix("all ").capitalize()] * len(answers)
    said = [{"id": int(e.id), "response": a} for e, a in zip(examples, answers, strict=True)]
    figures = points(scored(benchmark, said, tmp_path))
    kinds = [example.annotations["type"] for example in examples]
    groups = {
        "": set(kinds),
        "existence/": {EXISTENCE},
        "relation/": {"relation", "discriminative-relation"},
        "attribute/": {k for k in kinds if "attribute" in k},
        "number/": {"discriminative-attribute-number"},
    }
    for prefix, members in groups.items():
        chosen = [n for n, k in enumerate(kinds) if k in members]
        expected = official(*([part[n] for n in chosen] for part in (kinds, truths, answers)))
        got = [100 * figures[f"{prefix}{q}"] for q in ("accuracy", "precision", "recall", "f1")]
        # theirs is rounded twice
        assert got == pytest.approx(expected, abs=0.12), prefix
    if kind == "copy":
        assert figures["f1"] == figures["accuracy"] == 1
    if kind == "all no":
        assert figures["recall"] == 1 and figures["accuracy"] == truths.count("no") / 14216
