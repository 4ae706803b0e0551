"""What is known of an image, as sentences: for those who judge a response, never for the model."""

from __future__ import annotations

from dress.data.rejects import Reject
from dress.types import Sample
from dress.world.language import caption
from dress.world.scene import Scene


def facts_of(sample: Sample) -> tuple[str, ...]:
    """Return human captions, or that of a synthetic scene; raise Reject where there is neither."""
    if "scene" in sample.annotations:
        return (caption(Scene.from_json(sample.annotations["scene"]).things),)
    captions = sample.annotations.get("captions")
    if not isinstance(captions, list) or not captions:
        raise Reject("no facts", key=sample.id, detail="annotations hold no captions and no scene")
    return tuple(map(str, captions))


def expected_answer(sample: Sample) -> str | None:
    """Return the answer that a rule can check, `annotations.answer`: A, B, C, D, yes or no."""
    answer = sample.annotations.get("answer")
    return None if answer is None else str(answer)
