"""The stored form of a Sample: versioned JSON, checked field by field on writing and reading."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

from dress.errors import InputError, Reject
from dress.files import is_unicode
from dress.records import ASPECTS, RATINGS, Dialogue, Feedback, Judgement, Sample, Turn

SCHEMA_VERSION = 1


class _Invalid(Exception):
    """A field that breaks the schema; the message names it."""


def to_json(sample: Sample) -> dict[str, Any]:
    """Return the record of `sample` without its images; raise InputError where it is malformed."""
    record = _record(sample)
    try:
        _sample(record, sample.images)
    except _Invalid as error:
        raise InputError(f"Sample {sample.id!r} cannot be stored: {error}; correct it.") from None
    return record


def check(sample: Sample, *, where: str) -> None:
    """Raise Reject naming the field where `sample` could not be stored."""
    from_json(_record(sample), sample.images, where=where, key=sample.id)


def from_json(record: Any, images: Sequence[bytes], *, where: str, key: str = "") -> Sample:
    """Return the Sample of `record`; raise Reject naming `where`, `key` and the field."""
    try:
        return _sample(record, images)
    except _Invalid as error:
        raise Reject("invalid record", key=key, where=where, detail=str(error)) from None


def parse_json(data: bytes, *, where: str, key: str) -> Any:
    """Parse strict JSON: UTF-8, no NaN, no infinity, no key twice in one object."""
    try:
        return json.loads(
            data.decode(), parse_constant=_refuse_constant, object_pairs_hook=_refuse_twins
        )
    except (ValueError, RecursionError, _Invalid) as error:
        detail = str(error) if isinstance(error, _Invalid) else type(error).__name__
        raise Reject("unreadable JSON", key=key, where=where, detail=detail) from None


def _refuse_constant(name: str) -> None:
    raise _Invalid(f"{name} is no JSON number")


def _refuse_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    if len(record) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise _Invalid(f"the key {twice!r:.40} stands twice")
    return record


def _record(sample: Sample) -> dict[str, Any]:
    return {
        "schema": SCHEMA_VERSION,
        "id": sample.id,
        "images": len(sample.images),
        "dialogues": [[_turn_to_json(turn) for turn in d.turns] for d in sample.dialogues],
        "annotations": dict(sample.annotations),
    }


def _turn_to_json(turn: Turn) -> dict[str, Any]:
    record: dict[str, Any] = {"user": turn.user, "model": turn.model}
    if turn.feedback is not None:
        record["feedback"] = {
            aspect: {"rating": j.rating, "critique": j.critique, "refinement": j.refinement}
            for aspect, j in turn.feedback.judgements.items()
        }
    return record


def _sample(record: Any, images: Sequence[bytes]) -> Sample:
    _keys(record, "record", required={"schema", "id", "images", "dialogues", "annotations"})
    if type(record["schema"]) is not int or record["schema"] != SCHEMA_VERSION:
        raise _Invalid(f"schema is {record['schema']!r}, this version reads {SCHEMA_VERSION}")
    if type(record["images"]) is not int or record["images"] != len(images):
        raise _Invalid(f"images is {record['images']!r}, but {len(images)} are stored")
    if not isinstance(record["annotations"], dict):
        raise _Invalid("annotations is not an object")
    _plain(record["annotations"], "annotations")
    dialogues = _items(record["dialogues"], "dialogues")
    return Sample(
        id=_text(record["id"], "id", allow_empty=False),
        images=tuple(images),
        dialogues=tuple(_dialogue(d, f"dialogues[{i}]") for i, d in enumerate(dialogues)),
        annotations=record["annotations"],
    )


def _dialogue(record: Any, field: str) -> Dialogue:
    turns = _items(record, field)
    return Dialogue(tuple(_turn(turn, f"{field}[{i}]") for i, turn in enumerate(turns)))


def _turn(record: Any, field: str) -> Turn:
    _keys(record, field, required={"user", "model"}, optional={"feedback"})
    model, feedback = record["model"], record.get("feedback")
    return Turn(
        user=_text(record["user"], f"{field}.user"),
        model=None if model is None else _text(model, f"{field}.model"),
        feedback=None if feedback is None else _feedback(feedback, f"{field}.feedback"),
    )


def _feedback(record: Any, field: str) -> Feedback:
    _keys(record, field, optional=set(ASPECTS))
    if not record:
        raise _Invalid(f"{field} judges no aspect")
    return Feedback({aspect: _judgement(record[aspect], f"{field}.{aspect}") for aspect in record})


def _judgement(record: Any, field: str) -> Judgement:
    _keys(record, field, required={"rating", "critique", "refinement"})
    rating = record["rating"]
    if type(rating) is not int or rating not in RATINGS:
        raise _Invalid(f"{field}.rating is {rating!r}, not an integer from 1 to 4")
    return Judgement(
        rating=rating,
        critique=_text(record["critique"], f"{field}.critique"),
        refinement=_text(record["refinement"], f"{field}.refinement"),
    )


def _keys(
    record: Any,
    field: str,
    *,
    required: AbstractSet[str] = frozenset(),
    optional: AbstractSet[str] = frozenset(),
) -> None:
    if not isinstance(record, Mapping):
        raise _Invalid(f"{field} is not an object")
    if missing := required - set(record):
        raise _Invalid(f"{field} lacks {min(missing)!r}")
    if unknown := set(record) - required - optional:
        raise _Invalid(f"{field} has the unknown key {min(unknown, key=str)!r}")


def _items(value: Any, field: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise _Invalid(f"{field} is not a list of at least one")
    return value


def _text(value: Any, field: str, *, allow_empty: bool = True) -> str:
    if not isinstance(value, str) or not (value or allow_empty):
        raise _Invalid(f"{field} is {value!r:.40}, not {'a' if allow_empty else 'non-empty'} text")
    if not is_unicode(value):
        raise _Invalid(f"{field} holds half a surrogate pair")
    return value


def _plain(value: Any, field: str, depth: int = 0) -> None:
    """Check that `value` is JSON that reads back as it was written."""
    if depth > 50:
        raise _Invalid(f"{field} is nested too deeply")
    if isinstance(value, dict):
        for key, item in value.items():
            _plain(item, f"{field}.{_text(key, f'a key of {field}')}", depth + 1)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _plain(item, f"{field}[{index}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise _Invalid(f"{field} is {value}, not a finite number")
    elif isinstance(value, str):
        _text(value, field)
    elif not (value is None or isinstance(value, (bool, int))):
        raise _Invalid(f"{field} is a {type(value).__name__}, which JSON cannot hold")
