"""Files of responses with every fault that they may have: a sentence, or a count."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError
from dress.evaluation.benchmarks.amber import AmberBenchmark
from dress.evaluation.benchmarks.mme import MmeBenchmark
from dress.evaluation.benchmarks.pope import PopeBenchmark
from dress.evaluation.benchmarks.vlsafe import VLSafeBenchmark
from dress.evaluation.public import Unanswered
from dress.evaluation.response_file import read_responses
from tests.evaluation.public_files import write_lines

NAMES = ("dog", "cat", "bus")


def bench(root: Path, unanswered: Unanswered = "error") -> PopeBenchmark:
    rows = [
        {"question_id": n, "image": "a.jpg", "text": f"Is there a {name}?", "label": "no"}
        for n, name in enumerate(NAMES, start=1)
    ]
    write_lines(root / "random.json", rows)
    return PopeBenchmark(
        root=str(root), file="{split}.json", splits=["random"], unanswered=unanswered
    )


def row(number: int, response: Any = "No", **more: Any) -> dict[str, Any]:
    return {"question_id": number, "answer": response, **more}


def responses(
    root: Path, rows: Sequence[Mapping[str, Any]], unanswered: Unanswered = "error"
) -> dict[str, str]:
    path = write_lines(root / "answers.jsonl", rows)
    found = read_responses(path, bench(root, unanswered))
    return {answered.example.id: answered.response for answered in found.answered}


def test_order_is_of_no_account_where_there_are_ids(tmp_path: Path) -> None:
    found = responses(tmp_path, [row(3, "c"), row(1, "a"), row(2, "b")])
    assert found == {"random/1": "a", "random/2": "b", "random/3": "c"}


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("between", ["", "\n"])
def test_objects_one_after_another(tmp_path: Path, indent: int | None, between: str) -> None:
    path = tmp_path / "answers.json"
    path.write_text(between.join(json.dumps(row(n, str(n)), indent=indent) for n in (3, 1, 2)))
    found = read_responses(path, bench(tmp_path))
    assert [answered.response for answered in found.answered] == ["1", "2", "3"]


def test_a_response_that_is_a_question_is_none(tmp_path: Path) -> None:
    """POPE's own file has its question in `text`, which is also where some have the answer."""
    questions = tmp_path / "random.json"
    bench(tmp_path)
    with pytest.raises(InputError) as raised:
        read_responses(questions, bench(tmp_path))
    assert str(raised.value) == (
        f"{questions}, row 1, has a question and no answer in text: give a file of responses that "
        "has the answer in response or answer."
    )
    for echo in ("Is there a cat?", " is there  A CAT?\n"):
        with pytest.raises(InputError, match="row 2, has a question and no answer in answer"):
            responses(tmp_path, [row(1), row(2, echo), row(3)])
    said = [row(1), row(2, "Is there a cat? Yes."), row(3)]  # an answer that repeats the question
    assert responses(tmp_path, said)["random/2"] == "Is there a cat? Yes."


def test_the_questions_of_every_other_benchmark_are_no_responses(tmp_path: Path) -> None:
    """Whatever is asked, the question in place of the response is named."""
    (tmp_path / "mme").mkdir()
    (tmp_path / "mme/count.txt").write_text("1.jpg\tOne?\tYes\n1.jpg\tTwo?\tNo\n")
    mme = MmeBenchmark(root=str(tmp_path), subtasks=["count"])
    write_lines(tmp_path / "truth.json", [{"id": 1, "type": "relation", "truth": "no"}])
    write_lines(tmp_path / "asked.json", [{"id": 1, "image": "a.jpg", "query": "Do they touch?"}])
    amber = AmberBenchmark(root=str(tmp_path), queries="asked.json", annotations="truth.json")
    write_lines(tmp_path / "safe.json", [{"image_id": "a", "caption": "A.", "query": "How to?"}])
    vlsafe = VLSafeBenchmark(root=str(tmp_path), file="safe.json", alignment=None)
    for benchmark in (mme, amber, vlsafe):
        rows = [{"id": e.id, "response": e.question} for e in benchmark.examples()]
        path = write_lines(tmp_path / "answers.jsonl", rows)
        with pytest.raises(InputError, match=r"jsonl, row 1, has a question and no answer in resp"):
            read_responses(path, benchmark)


def test_a_folder_holds_no_rows(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder: give responses=<a file of JSON rows>"):
        read_responses(tmp_path, bench(tmp_path))


def test_an_id_may_be_a_number_or_text(tmp_path: Path) -> None:
    found = responses(tmp_path, [{**row(1, "a"), "question_id": n} for n in ("1", 2.0, 3)])
    assert list(found) == ["random/1", "random/2", "random/3"]


def test_an_array_and_ids_of_our_own(tmp_path: Path) -> None:
    rows = [{"id": f"random/{n}", "response": str(n), "answer": "yes"} for n in (2, 3, 1)]
    (tmp_path / "answers.json").write_text(json.dumps(rows, indent=1))
    found = read_responses(tmp_path / "answers.json", bench(tmp_path))
    assert [answered.response for answered in found.answered] == ["1", "2", "3"]


def test_without_ids_the_questions_give_the_order(tmp_path: Path) -> None:
    said = [{"question": f"<image>\nis there  a {name}?", "answer": name} for name in NAMES]
    assert list(responses(tmp_path, said).values()) == list(NAMES)
    with pytest.raises(InputError, match=r"row 1, answers .*cat.*random/1 asks 'Is there a dog"):
        responses(tmp_path, [said[1], said[0], said[2]])
    with pytest.raises(
        InputError, match=r"2 rows that do not say which of 3 .*: add its question_id"
    ):
        responses(tmp_path, said[:2])
    with pytest.raises(InputError, match=r"row 1, .* repeats none: add its question_id"):
        responses(tmp_path, [{"answer": "No"}] * 3)


def test_missing_responses_end_the_run_or_are_counted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lacks responses to 2 of 3 questions, first random/1"):
        responses(tmp_path, [row(2)])
    assert list(responses(tmp_path, [row(2)], "skip")) == ["random/2"]
    path = write_lines(tmp_path / "answers.jsonl", [row(2)])
    assert read_responses(path, bench(tmp_path, "skip")).unanswered == ("random/1", "random/3")
    with pytest.raises(InputError, match="lacks responses to 3 of 3"):
        responses(tmp_path, [], "skip")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2), row(3), row(2, "Yes")], "row 4, answers random/2 again, after row 2"),
        ([row(1), row(2), row(9)], "row 3, answers random/9, which pope does not ask"),
        ([row(1), row(2), {"answer": "No"}], "row 3, does not say .* answers: add its question_id"),
        ([row(1), row(2), {"question_id": 3}], "row 3, has no response: call it response or"),
        ([row(1), row(2, None), row(3)], "row 2, has answer None: give a text"),
        ([row(1), row(2, ["No"]), row(3)], "row 2, has answer"),
        ([row(1), row(2, "No \ud800"), row(3)], "row 2, holds half a surrogate pair in answer"),
        (  # of another split, which counts its questions alike
            [row(1, question="Is there a cow?"), row(2), row(3)],
            "row 1, answers 'Is there a cow",
        ),
    ],
)
def test_bad_rows(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        responses(tmp_path, rows)
    assert "\n" not in str(raised.value) and "answers.jsonl" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"question_id": 1, "answer": "No"}\nnot JSON\n', "row 2, is not a JSON object"),
        ('[{"question_id": 1, "answer": "No"},', "cut short|is not a JSON object"),
        ('["No", "Yes"]', "row 1, is not a JSON object"),
        ('{"question_id": 1,\n "answer": "No"', "row 1, is not a JSON object"),
    ],
)
def test_files_that_are_not_rows_of_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "answers.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_responses(tmp_path / "answers.json", bench(tmp_path))


def test_absent_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.jsonl does not exist: give responses="):
        read_responses(tmp_path / "nowhere.jsonl", bench(tmp_path))
    path = write_lines(tmp_path / "answers.jsonl", [row(1)])
    with pytest.raises(InputError, match=r"random\.json does not exist: put the released file"):
        read_responses(path, PopeBenchmark(root=str(tmp_path), file="no/{split}.json"))
    with pytest.raises(InputError, match=r"benchmark\.root is 'None'"):
        read_responses(path, PopeBenchmark())


def test_mistaken_settings() -> None:
    with pytest.raises(InputError, match="choose error or skip"):
        PopeBenchmark(unanswered="guess")  # type: ignore[arg-type]
    for options in (
        {"splits": []},
        {"splits": ["a", "a"]},
        {"file": "random.json"},
    ):
        with pytest.raises(InputError, match="name each split once"):
            PopeBenchmark(**options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="splits is 'random': give a list"):
        PopeBenchmark(splits="random")
