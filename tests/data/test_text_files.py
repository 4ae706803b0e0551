"""Text files of others: byte order marks, line ends and encodings mean the same at every door."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dress.data.object_words import load_synonyms
from dress.data.overlap import read_evaluation_set
from dress.data.sources.coco_index import read_index
from dress.data.sources.facts_source import ImageCaptions
from dress.data.sources.fields import Fields
from dress.data.sources.json_rows import json_rows
from dress.errors import InputError
from dress.evaluation.benchmarks.amber_generative import AmberGenerativeBenchmark
from dress.evaluation.benchmarks.mme import MmeBenchmark
from dress.evaluation.chair_words import ChairVocabulary
from dress.files import read_json

BREAKS = "\u2028\u2029\x85\x0b\x0c\x1c\x1d\x1e\r"  # str.splitlines() would end a line at each
COCO = {
    "images": [{"id": 1, "file_name": "a.jpg"}],
    "categories": [{"id": 2, "name": "dog"}],
    "annotations": [{"image_id": 1, "category_id": 2, "caption": "A dog."}],
}


def rows(path: Path) -> Any:
    return list(json_rows(path))


def coco(path: Path) -> Any:
    return read_index(path, path).photographs


def facts(path: Path) -> Any:
    return ImageCaptions(str(path.parent), path.name).of(["a.jpg"], Fields({}, where="", key=""))


def evaluation_set(path: Path) -> Any:
    found = read_evaluation_set(path)
    return sorted(found.images), sorted(found.questions)


def words(path: Path) -> Any:
    return ChairVocabulary.read(path).node_of


def synonyms(path: Path) -> Any:
    return load_synonyms(path).categories


def safe_words(path: Path) -> Any:
    benchmark = AmberGenerativeBenchmark(root=str(path.parent), safe_words=path.name)
    return sorted(benchmark._safe - {""})


def mme(path: Path) -> Any:
    benchmark = MmeBenchmark(root=str(path.parent), folder=".", subtasks=[path.stem])
    return [(e.annotations["image"], e.question, e.answer) for e in benchmark.examples()]


DOORS: dict[str, tuple[Callable[[Path], Any], str, Any]] = {
    "rows.json": (rows, '[{"a": 1}]\n', [(1, {"a": 1})]),
    "rows.jsonl": (rows, '{"a": 1}\n\n{"a": 2}\n', [(1, {"a": 1}), (2, {"a": 2})]),
    "object.json": (read_json, '{"a": [1]}\n', {"a": [1]}),
    "captions.json": (facts, '{"a.jpg": ["A dog."]}', ["A dog."]),
    "coco.json": (
        lambda path: [(p.id, p.captions, p.objects) for p in coco(path)],
        json.dumps(COCO),
        [(1, ("A dog.",), ("dog",))],
    ),
    "lines.txt": (evaluation_set, "a.jpg\nWhat?\n", (["What?", "a"], ["a.jpg", "what?"])),
    "words.txt": (words, "dog, puppy\ncat\n", {"dog": "dog", "puppy": "dog", "cat": "cat"}),
    "synonyms.txt": (synonyms, "dog, puppy\ncat\n", {"dog": ["puppy"], "cat": []}),
    "synonyms.yaml": (synonyms, "categories:\n  dog: [puppy]\n", {"dog": ["puppy"]}),
    "safe.txt": (safe_words, "sky\nwall\n", ["sky", "wall"]),
    "artwork.txt": (
        mme,
        "1.jpg\tIs it art?\tYes\n1.jpg\tIs it blue?\tNo\n",
        [("artwork/1.jpg", "Is it art?", "yes"), ("artwork/1.jpg", "Is it blue?", "no")],
    ),
}


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["bare", "marked"])
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_a_mark_and_a_carriage_return_change_nothing(
    tmp_path: Path, name: str, mark: bytes, end: str
) -> None:
    read, text, expected = DOORS[name]
    (tmp_path / name).write_bytes(mark + text.replace("\n", end).encode())
    assert read(tmp_path / name) == expected


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(tmp_path: Path, name: str, encoding: str) -> None:
    read, text, _ = DOORS[name]
    (tmp_path / name).write_bytes(text.replace("a", "\u00e4").encode(encoding))
    with pytest.raises(InputError, match=rf"{name} is not UTF-8"):
        read(tmp_path / name)


@pytest.mark.parametrize("separator", BREAKS, ids=lambda c: f"U+{ord(c):04X}")
def test_only_a_line_feed_ends_a_line(tmp_path: Path, separator: str) -> None:
    def read(name: str, text: str) -> Any:
        (tmp_path / name).write_bytes(text.encode())
        return DOORS[name][0](tmp_path / name)

    said = f"one{separator}line"
    quoted = json.dumps({"a": said}, ensure_ascii=False)
    assert read("rows.jsonl", quoted + "\n") == [(1, {"a": said})]
    assert read("rows.json", f"[{quoted}]") == [(1, {"a": said})]
    lines = f"1.jpg\t{said}?\tYes\n1.jpg\tIs it blue?\tNo\n"
    assert [question for _, question, _ in read("artwork.txt", lines)] == [
        f"{said}?",
        "Is it blue?",
    ]
    assert read("words.txt", f"dog, {said}\n") == {"dog": "dog", said: "dog"}
    assert read("synonyms.txt", f"dog, {said}\n") == {"dog": [said]}
    assert read("safe.txt", f"{said}\n") == [said]
    images, _ = read("lines.txt", f"{said}\tQuestion?\n")
    assert images == [said]


def test_files_that_were_put_together_have_marks_within(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\xef\xbb\xbf{"a": 2}\n\xef\xbb\xbf\n')
    assert rows(path) == [(1, {"a": 1}), (2, {"a": 2})]
