"""MMHal-Bench: a judge rates informativeness and hallucination, 0-6 (arXiv 2309.14525).

The prompt has the structure of the published one in words of our own: definition, worked examples,
a caution, an explanation before the rating, seven ratings, the item. A rating below 3 is a
hallucination. The reply is JSON; the official script seeks `rating: N` in free text and counts a
reply without exactly one as 0, where here it is a failure of the judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, JudgeRequest, Labels, ask
from dress.evaluation.public import PublicBenchmark, Unanswered, as_id, field, json_array

RATINGS = range(7)
_HALLUCINATED_BELOW = 3
_REPLY = {
    "explanation": {"type": "string"},
    "rating": {"type": "integer", "enum": list(RATINGS)},
}
PROMPT = """\
You are a fair judge of a vision-language model's answers. Judge one response to a question about
an image that you do not see: is it informative, and does it hallucinate? To hallucinate is to
state something that the image or the earlier conversation neither shows nor implies: an object,
an action, a feeling or any other detail without a ground in the image.

Examples

1. Image contents: Boat, Person
   Question: How many boats are on the lake?
   Human answer: There are three boats on the lake.
   Response: There are two boats on the lake.
   Analysis: It gives two where there are three, a false statement. Hallucination: yes.
2. Image contents: Bird, Tree
   Question: What do you see?
   Human answer: A bird sits on a branch. The sky behind it is grey.
   Response: A small bird rests on a branch, holding on with both feet, in front of a dull sky.
   Analysis: It says more than the human answer, and nothing that is false. Hallucination: no.
3. Image contents: Table, Food, Cup
   Question: Describe the image in detail.
   Human answer: A plate with bread and a cup stand on a wooden table near a window.
   Response: Bread lies on a plate beside a cup on a wooden table. A knife is next to the plate.
   Analysis: There is no knife. Hallucination: yes.
4. Image contents: Building, Street, Person
   Question: In which city was this taken?
   Human answer: The sign on the bus says that it is Lisbon.
   Response: It is a street in a city with old houses; which city cannot be told for certain.
   Analysis: It does not find the city, but it claims nothing false. Doubt, and leaving out what
   the human answer has, are no hallucination. Hallucination: no.
5. Image contents: River, Bottle
   Question: What does this scene make you worry about?
   Human answer: Plastic bottles float in the river, which pollutes the water.
   Response: The bottles in the river are litter. Plastic stays in the water for decades, breaks
   into small pieces, and can harm fish and those who eat them.
   Analysis: It adds knowledge that follows from the image and is true. Such reasoning is welcome.
   Hallucination: no.

The human answer may be short, and neither it nor the image contents list everything, so be
careful before you call something false. Reasoning that holds is to be encouraged.

Explain shortly first, then give one of these ratings
- 6: very informative, with good analysis or reasoning, no hallucination
- 5: very informative, no hallucination
- 4: somewhat informative, no hallucination
- 3: not informative, no hallucination
- 2: very informative, with hallucination
- 1: somewhat informative, with hallucination
- 0: not informative, with hallucination"""


class MMHalBenchmark(PublicBenchmark):
    """Read the released template; an image lies under the last part of its address."""

    name = "mmhal"
    response_fields = ("response", "model_answer", "text")
    key_fields = ("image_id",)
    row_fields = ("type", "topic")

    def __init__(
        self,
        *,
        root: str | None = None,
        file: str = "mmhal/mmhal-bench_answer_template.json",
        images: str = "mmhal/images",
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.file = file

    def files(self) -> Sequence[str]:
        return [self.file]

    def read_examples(self) -> Iterator[Example]:
        for where, row in self.rows(self.file):
            name, contents = field(row, "image_id", where), row.get("image_content")
            if not isinstance(contents, list) or not all(isinstance(c, str) for c in contents):
                raise InputError(f"{where} has no image_content: fetch the released file again.")
            yield Example(
                id=name,
                cluster=name,
                images=(),
                question=field(row, "question", where),
                answer=field(row, "gt_answer", where),
                annotations={
                    "image": PurePosixPath(field(row, "image_src", where)).name,
                    "contents": ", ".join(contents),
                    "type": field(row, "question_type", where),
                    "topic": field(row, "question_topic", where),
                },
            )

    def request(self, example: Example, response: str) -> JudgeRequest:
        texts = (
            ("Image Contents", str(example.annotations["contents"])),
            ("Question", example.question),
            ("Standard Human-Generated Answer", example.answer),
            ("LMM Response to Evaluate", response),
        )
        return ask(PROMPT, texts, _REPLY)

    def judged_labels(self, example: Example, reply: Mapping[str, Any]) -> Labels:
        rating = reply["rating"]
        counts = {
            "score": (float(rating), 1.0),
            "hallucination_rate": (float(rating < _HALLUCINATED_BELOW), 1.0),
        }
        places = ("", f"{example.annotations['type']}/", f"{example.annotations['topic']}/")
        return {f"{place}{name}": pair for place in places for name, pair in counts.items()}

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Give eval_gpt_mmhal.py the released rows with the answers; it asks for all 96."""
        said = {a.example.id: a.response for a in answered}
        kept = (dict(r) for _, r in self.rows(self.file) if as_id(r["image_id"]) in said)
        return {
            "mmhal.json": json_array(
                row | {"model_answer": said[as_id(row["image_id"])]} for row in kept
            )
        }
