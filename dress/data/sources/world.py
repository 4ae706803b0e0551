"""The synthetic world as a source: captions, flawed instructions, and prompts to respond to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

from dress.data.sources.source import Part, Source
from dress.errors import InputError
from dress.records import BANK_SENTENCES
from dress.settings import Amount, Positive, Share, checked
from dress.types import Dialogue, Sample, Turn
from dress.world.corpus import (
    Flaws,
    draw_question,
    flawed_response,
    held_out,
    held_out_scenes,
)
from dress.world.grammar import caption, listing
from dress.world.questions import Question, ask, count_closely, exists_closely, reference
from dress.world.render import render
from dress.world.scene import Scene, Split, draw_scenes
from dress.world.scene_oracle import Oracle

CAPTION_REQUEST = "Caption this image in full."
LISTING_REQUEST = "Say where each object is."
WORLD = "5"  # raise it where the same settings give other samples than before
_SPLITS: dict[Part, Split] = {"captions": "train", "instructions": "train", "prompts": "annotate"}
_TEXT_SAMPLES = 3000


def pretraining_turns(scene: Scene, rng: random.Random) -> list[Turn]:
    """The scene by place and by kind, and a question of each kind that it permits, without flaws.

    Counts and existence are asked so that neither colours nor shapes alone give the answer.
    """
    asked = [
        ask("attribute", scene, rng),
        ask("relation", scene, rng),
        count_closely(scene, rng),
        exists_closely(scene, rng),
    ]
    return [
        Turn(CAPTION_REQUEST, caption(scene.things)),
        Turn(LISTING_REQUEST, listing(scene.things)),
        *(Turn(q.text, reference(q, scene, rng)) for q in asked if q is not None),
    ]


class WorldSource(Source):
    """Generate `sizes[part]` samples; the same seed gives the same samples.

    `questions` are those of the world's benchmark, whose seed is `held_out_seed`.
    `flaws` are the rates of the SFT corpus (dress/world/corpus.py), all times `flaw_scale`.
    """

    @checked
    def __init__(
        self,
        *,
        sizes: Mapping[str, Positive],
        flaws: Mapping[str, Share],
        flaw_scale: Amount = 1.0,
        cooccurrence: Share = 0.3,
        seed: int = 0,
        held_out_seed: int = 0,
    ) -> None:
        self.sizes, self.cooccurrence, self.seed = sizes, cooccurrence, seed
        self.held_out_seed = held_out_seed
        self.flaws = Flaws(**{name: min(1.0, flaw_scale * rate) for name, rate in flaws.items()})

    def rows(self, part: Part) -> Iterator[Any]:
        if part == "questions":
            return enumerate(
                held_out_scenes(
                    scenes=self.sizes[part], seed=self.held_out_seed, cooccurrence=self.cooccurrence
                )
            )
        if part not in _SPLITS:
            raise InputError(
                f"part={part}: the world has no ready responses; choose one of "
                f"{[*sorted(_SPLITS), 'questions']}."
            )
        scenes = draw_scenes(
            split=_SPLITS[part],
            count=self.sizes[part],
            seed=self.seed,
            cooccurrence=self.cooccurrence,
        )
        return enumerate(scenes)

    def convert(self, part: Part, row: tuple[int, Any]) -> Iterator[Sample]:
        number, scene = row
        if part == "questions":
            yield from self._held_out(number, *scene)
            return
        name = f"world-{part}-{self.seed}-{number:08d}"
        rng = random.Random(name)
        if part == "captions":
            question = Question("caption", CAPTION_REQUEST)
            truth = caption(scene.things)
            turns = pretraining_turns(scene, rng)
        else:
            question = draw_question(scene, rng)
            flawed = flawed_response(question, scene, self.flaws, rng)
            response = flawed if part == "instructions" else None
            truth = reference(question, scene, rng)
            turns = [Turn(question.text, response)]
        yield Sample(
            id=name,
            images=(render(scene, seed=name),),
            dialogues=tuple(Dialogue((turn,)) for turn in turns),
            annotations={
                "task": question.task,
                "scene": scene.to_json(),
                "question": question.to_json(),
                "reference": truth,
            },
        )

    def _held_out(self, number: int, scene: Scene, picture_seed: str) -> Iterator[Sample]:
        image = render(scene, seed=picture_seed)
        for asked in held_out(scene, seed=self.held_out_seed, number=number):
            yield Sample(
                id=asked.id,
                images=(image,),
                dialogues=(Dialogue((Turn(asked.question.text),)),),
                annotations={
                    "task": asked.question.task,
                    "scene": scene.to_json(),
                    "question": asked.question.to_json(),
                    "reference": asked.reference,
                },
            )

    def texts(self) -> Iterator[str]:
        """Yield captions, questions, responses and feedback: what the model will ever read."""
        yield from (CAPTION_REQUEST, LISTING_REQUEST)
        yield from BANK_SENTENCES
        rng = random.Random(f"texts:{self.seed}")
        oracle = Oracle()
        scenes = draw_scenes(
            split="train", count=_TEXT_SAMPLES, seed=self.seed, cooccurrence=self.cooccurrence
        )
        for scene in scenes:
            question = draw_question(scene, rng)
            response = flawed_response(question, scene, self.flaws, rng)
            feedback = oracle.annotate(question, scene, response, rng=rng)
            yield from (caption(scene.things), listing(scene.things), question.text, response)
            for aspect, judgement in feedback.judgements.items():
                yield f"{aspect} {judgement.rating}: {judgement.critique}"
                yield judgement.refinement

    def inputs(self) -> dict[str, str]:
        return {"world": WORLD}
