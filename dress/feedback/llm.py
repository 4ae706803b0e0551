"""An annotator that asks a language model behind any OpenAI-compatible server."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from dress.errors import InputError, Reject
from dress.feedback.annotator import annotate_alone
from dress.feedback.client import ChatClient, in_order
from dress.feedback.endpoint import JsonEndpoint
from dress.feedback.rubric import Show, messages, reply_schema
from dress.types import ASPECTS, Dialogue, Feedback, Judgement, Sample


@dataclass(kw_only=True, eq=False)
class LLMAnnotator(JsonEndpoint):
    """Judge responses by `aspects` with one request for each response.

    The paper's annotator reads what is known of the image (`show="annotation"`); one that sees
    gets the image.
    """

    show: Show = "annotation"
    aspects: Sequence[str] = ASPECTS

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.aspects or set(self.aspects) - set(ASPECTS):
            raise InputError(
                f"annotator.aspects is {list(self.aspects)}: choose from {', '.join(ASPECTS)}."
            )
        self.aspects = tuple(aspect for aspect in ASPECTS if aspect in self.aspects)
        self.schema = reply_schema(self.aspects)
        self.client = ChatClient(self)

    def annotate(self, sample: Sample, dialogue: Dialogue) -> Feedback:
        return annotate_alone(self, sample, dialogue)

    def annotate_many(self, samples: Iterable[Sample | Reject]) -> Iterator[Sample | Reject]:
        """Judge all dialogues of each group, in order; a Reject takes the place of its group.

        A bounded number of groups is held; requests go on while `samples` makes the next group.
        """
        return in_order(self.client, (self._annotated(sample) for sample in samples))

    def metrics(self) -> dict[str, float]:
        return {f"annotator/{name}": value for name, value in self.client.metrics().items()}

    async def _annotated(self, sample: Sample | Reject) -> Sample | Reject:
        if isinstance(sample, Reject):
            return sample
        judging = (self._judged(sample, dialogue) for dialogue in sample.dialogues)
        judged = await asyncio.gather(*judging, return_exceptions=True)
        rejects = [outcome for outcome in judged if isinstance(outcome, Reject)]
        for outcome in judged:
            if isinstance(outcome, BaseException) and not isinstance(outcome, Reject):
                raise outcome
        if rejects:
            first = rejects[0]
            reason, detail = f"annotator: {first.reason}", first.detail
            return Reject(reason, key=sample.id, where="annotator", detail=detail)
        return replace(sample, dialogues=tuple(d for d in judged if isinstance(d, Dialogue)))

    async def _judged(self, sample: Sample, dialogue: Dialogue) -> Dialogue:
        asked = messages(sample, dialogue, self.aspects, show=self.show)
        reply = await self.client.complete(asked, self.schema, **self.decoding)
        feedback = Feedback({aspect: Judgement(**reply[aspect]) for aspect in self.aspects})
        return Dialogue((*dialogue.turns[:-1], replace(dialogue.turns[-1], feedback=feedback)))
