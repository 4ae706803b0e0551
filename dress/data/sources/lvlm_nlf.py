"""LVLM_NLF: dialogues in which every response has a rating and a critique, as JSON lines.

The format is that of the data set YangyiYY/LVLM_NLF: one file judges one aspect. In what people
say on the chat page a turn has its `refinement` besides, and `judgements` of several aspects or of
none.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from dress.data.sources.coco import CAPTION_REQUESTS
from dress.data.sources.fields import Fields
from dress.data.sources.json_rows import json_lines
from dress.data.sources.photographs import (
    data_root,
    photograph_bytes,
    photograph_paths,
    photographs_hash,
)
from dress.data.sources.source import Part, Source, check_part
from dress.errors import InputError, Reject
from dress.fingerprint import content_hash
from dress.records import (
    ASPECTS,
    BANK_SENTENCES,
    RATINGS,
    Aspect,
    Dialogue,
    Feedback,
    Judgement,
    Sample,
    Turn,
    whole_number,
)
from dress.settings import Whole, checked

_ASPECT_OF_NAME = {"hallucination": "honesty", **{aspect: aspect for aspect in ASPECTS}}

_PlacedRow = tuple[Path, int, Mapping[str, Any]]
SESSIONS = "sessions.jsonl"  # what the chat page writes beside its rows
JUDGEMENTS, REFINEMENT = "judgements", "refinement"
CRITIQUE_KEYS = ("critique NLF", "critique_NLF", "critique")  # as released; as others and we do


class LVLMNLFSource(Source):
    """Turn rows into samples; a row that is malformed or lacks its image is a Reject.

    `files` are names or patterns below `root`. A file judges the aspect that its name holds
    (`hallucination` is honesty), else `aspect`. `limit` keeps the first rows of each file.
    `candidates` are whole dialogues with their feedback, `instructions` and `prompts` first turns.
    """

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        files: Sequence[str] = ("*.jsonl",),
        images: str = "images",
        aspect: Aspect = "helpfulness",
        limit: Whole | None = None,
        seed: int = 0,
    ) -> None:
        self.root, self.files, self.images = root, tuple(files), images
        self.aspect, self.limit, self.seed = aspect, limit, seed

    def rows(self, part: Part) -> Iterator[_PlacedRow]:
        check_part(part)
        self._check()
        return self._rows()

    def convert(self, part: Part, row: _PlacedRow) -> Iterator[Sample | Reject]:
        if (sample := self._sample(part, *row)) is not None:
            yield sample

    def texts(self) -> Iterator[str]:
        """Yield what is said in the dialogues and about them, and the general critiques."""
        yield from BANK_SENTENCES
        yield from CAPTION_REQUESTS
        for path, number, row in self._rows():
            record = Row(row, where=f"{path}, line {number}", key="")
            with suppress(Reject):
                for turn in record.turns(self.aspect):
                    yield from (turn.user, turn.model or "")
                    if turn.feedback:
                        yield from (j.critique for j in turn.feedback.judgements.values())
                yield from record.captions

    def inputs(self) -> dict[str, str]:
        self._check()
        names = (str(row.get("image_id", "")) for _, _, row in self._rows())
        images = photographs_hash(photograph_paths(self._folder, names))
        return {self._name(path): content_hash(path) for path in self._paths} | {
            self.images: images
        }

    @property
    def _folder(self) -> Path:
        if not (folder := data_root(self.root) / self.images).is_dir():
            raise InputError(f"{folder} is no directory: correct data.images.")
        return folder

    @cached_property
    def _paths(self) -> list[Path]:
        root = data_root(self.root)
        found: dict[Path, None] = {}
        for pattern in self.files:
            outside = Path(pattern).is_absolute() or ".." in Path(pattern).parts
            matches = [] if outside else sorted(path for path in root.glob(pattern))
            if not matches:
                raise InputError(
                    f"data.files: {pattern!r} matches nothing below {root}: correct one of them."
                )
            found |= dict.fromkeys(p for p in matches if p.is_file() and p.name != SESSIONS)
        return list(found)

    def _check(self) -> None:
        """Raise InputError for what is missing before the first sample is asked for."""
        if next(self._rows(), None) is None:
            names = ", ".join(map(self._name, self._paths))
            raise InputError(
                f"data.files ({names}) below {self.root} hold no rows: give at least one."
            )
        assert self._folder

    def _rows(self) -> Iterator[_PlacedRow]:
        for path in self._paths:
            yield from ((path, n, row) for n, row in islice(json_lines(path), self.limit))

    def _name(self, path: Path) -> str:
        return path.relative_to(data_root(self.root)).as_posix()

    def _aspect(self, path: Path) -> str:
        named = (aspect for name, aspect in _ASPECT_OF_NAME.items() if name in path.stem.lower())
        return next(named, self.aspect)

    def _sample(
        self, part: Part, path: Path, number: int, row: Mapping[str, Any]
    ) -> Sample | Reject | None:
        """Make the sample of a row; None where a row without a caption is asked for captions."""
        key, aspect = f"{self._name(path)}-{part}-{number:06d}", self._aspect(path)
        record = Row(row, where=f"{path}, line {number}", key=key)
        try:
            turns = record.turns(aspect)
            dialogues = self._dialogues(part, turns, record.captions, key)
            image = photograph_bytes(self._folder, record.image_id, key=key)
        except Reject as reject:
            return reject
        if not dialogues:
            return None
        return Sample(
            id=record.sample_id or key,
            images=(image,),
            dialogues=dialogues,
            annotations={
                "task": aspect,
                "image_id": record.image_id,
                "captions": record.captions,
                "reference": _best(turns).model,
            },
        )

    def _dialogues(
        self, part: Part, turns: tuple[Turn, ...], captions: Sequence[str], key: str
    ) -> tuple[Dialogue, ...]:
        if part == "candidates":
            return (Dialogue(turns),)
        if part == "captions":
            request = random.Random(f"{key}:{self.seed}").choice(CAPTION_REQUESTS)
            return tuple(Dialogue((Turn(user=request, model=text),)) for text in captions)
        response = turns[0].model if part == "instructions" else None
        return (Dialogue((Turn(user=turns[0].user, model=response),)),)


def _best(turns: Sequence[Turn]) -> Turn:
    """Return the turn rated highest, the latest of equals."""
    return max(reversed(turns), key=lambda t: t.feedback.mean_rating if t.feedback else 0.0)


class Row(Fields):
    """What a row of LVLM_NLF holds."""

    @property
    def image_id(self) -> str:
        return self.text("image_id")

    @property
    def sample_id(self) -> str:
        """What we write into our own files so that ids stay; the released rows have none."""
        value = self.row.get("sample_id")
        return value if isinstance(value, str) else ""

    @property
    def captions(self) -> list[str]:
        """Accept text or a list of texts, also none at all."""
        value = self.row.get("caption")
        texts = value if isinstance(value, list) else [value]
        return [text.strip() for text in texts if isinstance(text, str) and text.strip()]

    def turns(self, aspect: str) -> tuple[Turn, ...]:
        """Return the dialogue; where a turn names no refinement it is what the user says next."""
        records = self.row.get("interaction")
        if not isinstance(records, list) or not records:
            raise self.reject("interaction is not a list of at least one turn")
        if not all(isinstance(record, dict) for record in records):
            raise self.reject("interaction holds something that is not an object")
        fields = [f"interaction[{index}]" for index in range(len(records))]
        users = [
            self.as_text(r.get("user"), f"{f}.user") for r, f in zip(records, fields, strict=True)
        ]
        return tuple(
            Turn(
                user=user,
                model=self.as_text(record.get("model"), f"{field}.model"),
                feedback=self._feedback(record, field, following, aspect),
            )
            for record, field, user, following in zip(
                records, fields, users, [*users[1:], ""], strict=True
            )
        )

    def _feedback(
        self, record: Mapping[str, Any], field: str, following: str, aspect: str
    ) -> Feedback | None:
        refinement = record.get(REFINEMENT, following)
        if not isinstance(refinement, str):
            raise self.reject(f"{field}.{REFINEMENT} is {refinement!r:.40}, not a text")
        if JUDGEMENTS not in record:
            return Feedback({aspect: self._judgement(record, field, refinement)})
        field = f"{field}.{JUDGEMENTS}"
        by_aspect = self.as_object(record[JUDGEMENTS], field)
        if unknown := set(by_aspect) - set(ASPECTS):
            raise self.reject(f"{field} has {min(unknown)!r:.40}, which is no aspect")
        judged = {
            name: self._judgement(
                self.as_object(value, f"{field}.{name}"), f"{field}.{name}", refinement
            )
            for name, value in by_aspect.items()
        }
        return Feedback(judged) if judged else None

    def _judgement(self, record: Mapping[str, Any], field: str, refinement: str) -> Judgement:
        name = next((name for name in CRITIQUE_KEYS if name in record), CRITIQUE_KEYS[0])
        critique = self.as_text(record.get(name), f"{field}.{name!r}")
        rating = self._rating(record.get("rating"), f"{field}.rating")
        return Judgement(rating=rating, critique=critique, refinement=refinement)

    def _rating(self, value: Any, field: str) -> int:
        if (rating := whole_number(value)) not in RATINGS:
            raise self.reject(f"{field} is {value!r:.40}, not a whole number from 1 to 4")
        return rating
