"""Feedback in the format of the released LVLM_NLF: a JSONL file per aspect beside the images.

A row is one dialogue judged on one aspect; the refinement of a response is what the user says next,
so that of a last response is not kept (https://huggingface.co/datasets/YangyiYY/LVLM_NLF).
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TextIO

from dress.types import ASPECTS, Dialogue, Sample, Turn

FOLDER = "lvlm_nlf"
IMAGES = "images"


class LvlmNlfWriter:
    """Write `<aspect>_nlf.jsonl` and `images/` to a directory; a context manager.

    What the format cannot hold is left out: groups without or with several images, dialogues with
    an empty text or a turn that was not judged on the aspect.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._open = ExitStack()
        self._files: dict[str, TextIO] = {}

    def __enter__(self) -> Self:
        (self.directory / IMAGES).mkdir(parents=True, exist_ok=True)
        for aspect in ASPECTS:
            path = self.directory / f"{aspect}_nlf.jsonl"
            self._files[aspect] = self._open.enter_context(path.open("w", encoding="utf-8"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def add(self, sample: Sample) -> None:
        if len(sample.images) != 1:
            return
        name = f"{sample.id}{_suffix(sample.images[0])}"
        rows = [
            (aspect, interaction)
            for dialogue in sample.dialogues
            for aspect in ASPECTS
            if (interaction := interaction_of(dialogue, aspect))
        ]
        if rows:
            path = self.directory / IMAGES / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(sample.images[0])
        caption = sample.annotations.get("captions", "")
        for aspect, interaction in rows:
            row = {"image_id": name, "caption": caption, "interaction": interaction}
            self._files[aspect].write(json.dumps(row, ensure_ascii=False) + "\n")


def interaction_of(dialogue: Dialogue, aspect: str) -> list[dict[str, Any]]:
    """Return the turns of a row, or none where the format cannot hold them."""
    turns = [_turn(turn, aspect) for turn in dialogue.turns]
    return turns if all(all(t.values()) for t in turns) else []  # type: ignore[return-value]


def _turn(turn: Turn, aspect: str) -> dict[str, str | None]:
    judgement = turn.feedback.judgements.get(aspect) if turn.feedback else None
    return {
        "user": turn.user.strip(),
        "model": (turn.model or "").strip(),
        "rating": str(judgement.rating) if judgement else None,
        "critique NLF": judgement.critique.strip() if judgement else None,
    }


def _suffix(image: bytes) -> str:
    return ".png" if image[:4] == b"\x89PNG" else ".webp" if image[8:12] == b"WEBP" else ".jpg"
