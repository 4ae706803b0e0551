"""Feedback in the format of the released LVLM_NLF: a JSONL file per aspect beside the images.

A row is one dialogue judged on one aspect; the refinement of a response is what the user says next,
so that of a last response is not kept (https://huggingface.co/datasets/YangyiYY/LVLM_NLF). A group
that is one row keeps its id and the name of its image: it is read again as it was.
"""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TextIO

from dress.data.shard_writer import group_key, image_suffix
from dress.files import naming
from dress.types import ASPECTS, Dialogue, Sample, Turn

FOLDER = "lvlm_nlf"
IMAGES = "images"
_PLAIN = re.compile(r"\w[\w.%-]{0,120}", re.ASCII)  # our own names have a %


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
        with naming(self.directory):
            self._open.close()

    def add(self, sample: Sample) -> None:
        with naming(self.directory):
            self._add(sample)

    def _add(self, sample: Sample) -> None:
        if len(sample.images) != 1:
            return
        rows = [
            (aspect, interaction)
            for dialogue in sample.dialogues
            for aspect in ASPECTS
            if (interaction := interaction_of(dialogue, aspect))
        ]
        if not rows:
            return
        alone = {"sample_id": sample.id} if len(rows) == 1 else {}
        name = self._write_image(sample, keep_name=bool(alone))
        caption = sample.annotations.get("captions", "")
        for aspect, interaction in rows:
            row = {"image_id": name, "caption": caption, "interaction": interaction, **alone}
            self._files[aspect].write(json.dumps(row, ensure_ascii=False) + "\n")

    def _write_image(self, sample: Sample, *, keep_name: bool) -> str:
        """Write the image under its own name where that is plain and not another image's."""
        image, name = sample.images[0], str(sample.annotations.get("image_id"))
        if not (keep_name and _PLAIN.fullmatch(name)) or self._is_other(name, image):
            name = f"{group_key(sample.id)}.{image_suffix(image, sample.id)}"
        (self.directory / IMAGES / name).write_bytes(image)
        return name

    def _is_other(self, name: str, image: bytes) -> bool:
        path = self.directory / IMAGES / name
        return path.exists() and path.read_bytes() != image


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
