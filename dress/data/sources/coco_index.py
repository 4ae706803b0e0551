"""Read a pair of COCO annotation files into one small record per photograph."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from dress.errors import InputError
from dress.files import read_text
from dress.records import finite, whole_number

Id = int | str


@dataclass(frozen=True)
class CocoImage:
    """What is known of one photograph; `objects` are its categories, the largest area first."""

    id: Id
    file_name: str
    captions: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class CocoIndex:
    photographs: tuple[CocoImage, ...]
    categories: tuple[str, ...]


def read_index(captions: Path, instances: Path, *, limit: int | None = None) -> CocoIndex:
    """Join captions and objects; `limit` keeps the first photographs only.

    Ids are whole numbers, also where they are written as text, or else texts. InputError where an
    annotation is about an image that its file does not list.
    """
    caption_data, instance_data = _AnnotationFile(captions), _AnnotationFile(instances)
    images = caption_data.by_id("images", "file_name")
    if not images:
        raise InputError(f"{captions} lists no images: give the annotations of a split with some.")
    texts = _captions(caption_data, images)
    objects, categories = _objects(instance_data)
    for name in images:
        if name not in objects:
            raise InputError(
                f"{instances} does not list image {name}, which {captions} does: "
                "give the captions and the instances of the same split."
            )
    photographs = tuple(
        CocoImage(
            id=name,
            file_name=image["file_name"],
            captions=tuple(texts[name]),
            objects=objects[name],
        )
        for name, image in islice(images.items(), limit)
    )
    return CocoIndex(photographs=photographs, categories=categories)


def _captions(data: _AnnotationFile, images: Collection[Id]) -> dict[Id, list[str]]:
    texts: dict[Id, list[str]] = {name: [] for name in images}
    for number, record in enumerate(data.records("annotations", "caption")):
        name = data.reference(record, "image_id", number, images)
        if text := " ".join(record["caption"].split()):
            texts[name].append(text)
    return texts


def _objects(data: _AnnotationFile) -> tuple[dict[Id, tuple[str, ...]], tuple[str, ...]]:
    """Return the categories of each listed image by falling area, and those of the file."""
    names = {key: record["name"] for key, record in data.by_id("categories", "name").items()}
    areas: dict[Id, dict[str, float]] = {name: {} for name in data.by_id("images")}
    for number, record in enumerate(data.records("annotations")):
        name = names[data.reference(record, "category_id", number, names)]
        found = areas[data.reference(record, "image_id", number, areas)]
        found[name] = found.get(name, 0.0) + (finite(record.get("area")) or 0.0)
    ordered = {
        image: tuple(sorted(found, key=lambda name: (-found[name], name)))
        for image, found in areas.items()
    }
    return ordered, tuple(sorted(set(names.values())))


class _AnnotationFile:
    """One parsed file; every complaint names it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = self._read()

    def error(self, fault: str) -> InputError:
        return InputError(f"{self.path}: {fault}; give a file in COCO's annotation format.")

    def _read(self) -> Mapping[str, Any]:
        text = read_text(
            self.path, remedy="correct data.root or the source's captions and instances"
        )
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise self.error(f"it is not JSON, {place}: {error.msg}") from None
        except (ValueError, RecursionError) as error:
            raise self.error(f"it is not JSON ({type(error).__name__})") from None
        if not isinstance(data, dict):
            raise self.error("it does not hold an object")
        return data

    def records(self, section: str, *texts: str) -> list[dict[str, Any]]:
        """Return a section, a list of objects with at least these texts."""
        records = self.data.get(section)
        if not isinstance(records, list):
            raise self.error(f"{section} is not a list")
        for number, record in enumerate(records):
            if not isinstance(record, dict):
                raise self.error(f"{section}[{number}] is {record!r:.40}, not an object")
            for name in texts:
                if not isinstance(value := record.get(name), str):
                    raise self.error(f"{section}[{number}].{name} is {value!r:.40}, not a text")
        return records

    def by_id(self, section: str, *texts: str) -> dict[Id, dict[str, Any]]:
        """Return the records of a section by their `id`, which none may share."""
        found: dict[Id, dict[str, Any]] = {}
        for number, record in enumerate(self.records(section, *texts)):
            if (name := _id(record.get("id"))) is None:
                raise self.error(f"{section}[{number}].id is {record.get('id')!r:.40}, no id")
            if name in found:
                raise InputError(f"{self.path} lists the id {name} twice in {section}: remove one.")
            found[name] = record
        return found

    def reference(
        self, record: Mapping[str, Any], field: str, number: int, known: Collection[Id]
    ) -> Id:
        """Return the id that annotation `number` gives in `field`, which must be a known one."""
        name = _id(record.get(field))
        if name is None or name not in known:
            section = field.replace("_id", "")
            raise self.error(
                f"annotations[{number}].{field} is {record.get(field)!r:.40}, which no {section} "
                "of the file has as its id"
            )
        return name


def _id(value: object) -> Id | None:
    """Return a whole number, or a text that is none; None for what cannot be an id."""
    if (number := whole_number(value)) is not None:
        return number
    return value if isinstance(value, str) and value else None
