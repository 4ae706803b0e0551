"""LLaVA-Bench: a judge scores a reference answer and the response, 1-10 each (arXiv 2304.08485).

A category's figure is 100 * mean score of the responses / mean score of the references; `all`
pools the rows and `mean` is the plain mean of the categories. The reference stands first, as
published, although judges may favour a position. The judge reads captions and boxes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, JudgeRequest, Labels, Ratios, ask
from dress.evaluation.public import (
    PublicBenchmark,
    Unanswered,
    all_answered,
    field,
    json_lines,
    released_id,
)
from dress.files import read_json

_PROMPT = """\
You check the quality of answers, carefully and to the point. Two assistants answered a question
about an image that you do not see; what is known of it is given as sentences about it and, where
there are any, boxes of objects as [left, top, right, bottom], from 0 to 1 of width and height.

Score how helpful, relevant, accurate and detailed each answer is, from 1 to 10, the higher the
better. Give both scores, of Assistant 1 and of Assistant 2, and then explain them. Be fair: the
order of the answers says nothing about them."""
_FORM = "Whatever form the text above asks for, give the scores and the explanation as JSON."
_SCORE = {"type": "integer", "enum": list(range(1, 11))}
_REPLY = {"assistant_1": _SCORE, "assistant_2": _SCORE, "explanation": {"type": "string"}}


class LlavaBenchmark(PublicBenchmark):
    """Join questions, reference answers and what is known of the images.

    `rules` is the released file of judge prompts, whose text for `rule_prefix` + category then
    takes the place of our own; the prompts of COCO have no prefix, those of in-the-wild
    `llava_bench_`.
    """

    response_fields = ("response", "text", "answer")
    key_fields = ("question_id",)
    row_fields = ("category",)

    def __init__(
        self,
        *,
        name: str = "llava_bench",
        root: str | None = None,
        questions: str = "llava_bench/qa90_questions.jsonl",
        references: str = "llava_bench/qa90_gpt4_answer.jsonl",
        context: str = "llava_bench/caps_boxes_coco2014_val_80.jsonl",
        rules: str | None = None,
        rule_prefix: str = "",
        images: str = "coco/val2014",
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.name, self.questions, self.references = name, questions, references
        self.context, self.rules, self.rule_prefix = context, rules, rule_prefix
        self._prompts: dict[str, str] = {}

    def files(self) -> Sequence[str]:
        return [n for n in (self.questions, self.references, self.context, self.rules) if n]

    def read_examples(self) -> Iterator[Example]:
        references = _texts(self, self.references, "question_id", "text")
        known = {}
        for where, row in self.rows(self.context):
            known[field(row, "image", where)] = _described(row, where)
        for where, row in self.rows(self.questions):
            name, image = field(row, "question_id", where), field(row, "image", where)
            if name not in references or image not in known:
                lacking = self.references if name not in references else self.context
                raise InputError(f"{where} has no counterpart in {lacking}: give matching files.")
            yield Example(
                id=name,
                cluster=image,
                images=(),
                question=field(row, "text", where),
                answer=references[name],
                annotations={
                    "image": image,
                    "context": known[image],
                    "category": field(row, "category", where),
                },
            )

    def request(self, example: Example, response: str) -> JudgeRequest:
        texts = (
            ("Context", str(example.annotations["context"])),
            ("Question", example.question),
            ("Assistant 1", example.answer),
            ("Assistant 2", response),
        )
        return ask(self._prompt(str(example.annotations["category"])), texts, _REPLY)

    def _prompt(self, category: str) -> str:
        if self.rules is None:
            return _PROMPT
        if category not in self._prompts:
            path = self.path(self.rules)
            try:
                text = read_json(path)[f"{self.rule_prefix}{category}"]["prompt"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise InputError(
                    f"{path} has no prompt for {self.rule_prefix}{category}: fetch rule.json "
                    "again, or give benchmark.rules=null for our own words."
                )
            self._prompts[category] = f"{text}\n{_FORM}"
        return self._prompts[category]

    def judged_labels(self, example: Example, reply: Mapping[str, Any]) -> Labels:
        pair = (float(reply["assistant_2"]), float(reply["assistant_1"]))
        category = example.annotations["category"]
        return {
            "all": pair,
            category: pair,
            "score": (pair[0], 1.0),
            "reference_score": (pair[1], 1.0),
        }

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        scores = ("score", "reference_score")
        figures = {n: value if n in scores else 100 * value for n, value in ratios.items()}
        categories = [value for n, value in figures.items() if n not in (*scores, "all")]
        figures["mean"] = sum(categories) / len(categories)
        return {f"{self.name}/{name}": value for name, value in figures.items()}

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Give eval_gpt_review_visual.py its second file of answers; it joins by order."""
        if not all_answered(self, answered):
            return {}
        rows = (
            {
                "question_id": released_id(a.example.id),
                "prompt": a.example.question,
                "text": a.response,
                "answer_id": a.example.id,
                "category": a.example.annotations["category"],
            }
            for a in answered
        )
        return {f"{self.name}.jsonl": json_lines(rows)}


def _texts(benchmark: PublicBenchmark, name: str, key: str, value: str) -> dict[str, str]:
    rows = benchmark.rows(name)
    return {field(row, key, where): field(row, value, where) for where, row in rows}


def _described(row: Mapping[str, Any], where: str) -> str:
    """Write captions, or a caption, and then a line for each box."""
    captions = row.get("captions", [row.get("caption")])
    boxes = row.get("instances", [])
    sound = isinstance(captions, list) and isinstance(boxes, list)
    if not sound or not all(isinstance(text, str) for text in captions):
        raise InputError(f"{where} has no captions: fetch the released file again.")
    if not all(isinstance(box, dict) and {"category", "bbox"} <= set(box) for box in boxes):
        raise InputError(f"{where} has instances without category or bbox: fetch it again.")
    lines = [f"{box['category']}: {box['bbox']}" for box in boxes]
    return "\n".join([*captions, *([""] if lines else []), *lines])
