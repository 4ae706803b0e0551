"""Read a pair of COCO annotation files into one small record per photograph."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dress.errors import InputError

ImageId = int | str


@dataclass(frozen=True)
class CocoImage:
    """What is known of one photograph; `objects` are its categories, the largest area first."""

    id: ImageId
    file_name: str
    captions: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class CocoIndex:
    photographs: tuple[CocoImage, ...]
    categories: tuple[str, ...]


def read_index(captions: Path, instances: Path, *, limit: int | None = None) -> CocoIndex:
    """Join captions and objects; `limit` keeps the first photographs only."""
    caption_data, instance_data = _AnnotationFile(captions), _AnnotationFile(instances)
    texts: dict[ImageId, list[str]] = defaultdict(list)
    for record in caption_data.records("annotations", image_id=(int, str), caption=(str,)):
        if text := " ".join(record["caption"].split()):
            texts[record["image_id"]].append(text)
    objects, categories = _objects(instance_data)
    images = caption_data.records("images", id=(int, str), file_name=(str,))
    if not images:
        raise InputError(f"{captions} lists no images: give the annotations of a split with some.")
    known: set[ImageId] = set()
    for image in images:
        if image["id"] in known:
            raise InputError(f"{captions} lists the image id {image['id']} twice: remove one.")
        if image["id"] not in objects:
            raise InputError(
                f"{instances} does not list image {image['id']}, which {captions} does: "
                "give the captions and the instances of the same split."
            )
        known.add(image["id"])
    photographs = tuple(
        CocoImage(
            id=image["id"],
            file_name=image["file_name"],
            captions=tuple(texts[image["id"]]),
            objects=objects[image["id"]],
        )
        for image in images[:limit]
    )
    return CocoIndex(photographs=photographs, categories=categories)


def _objects(data: _AnnotationFile) -> tuple[dict[ImageId, tuple[str, ...]], tuple[str, ...]]:
    """Return the categories of each listed image by falling area, and those of the file."""
    names = {c["id"]: c["name"] for c in data.records("categories", id=(int, str), name=(str,))}
    areas: dict[ImageId, dict[str, float]] = {
        image["id"]: {} for image in data.records("images", id=(int, str))
    }
    fields = {"image_id": (int, str), "category_id": (int, str)}
    for number, record in enumerate(data.records("annotations", **fields)):
        if record["category_id"] not in names:
            raise data.error(
                f"annotations[{number}].category_id is {record['category_id']!r}, no category's id"
            )
        name, found = names[record["category_id"]], areas.setdefault(record["image_id"], {})
        area = record.get("area", 0)
        found[name] = found.get(name, 0.0) + (area if isinstance(area, int | float) else 0.0)
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
        try:
            data = json.loads(self.path.read_bytes())
        except json.JSONDecodeError as error:
            place = f"line {error.lineno}, column {error.colno}"
            raise self.error(f"it is not JSON, {place}: {error.msg}") from None
        except OSError as error:
            raise InputError(
                f"{self.path} cannot be read ({error.strerror}): correct data.root or the source's "
                "captions and instances."
            ) from None
        except (ValueError, RecursionError) as error:
            raise self.error(f"it is not JSON ({type(error).__name__})") from None
        if not isinstance(data, dict):
            raise self.error("it does not hold an object")
        return data

    def records(self, section: str, **fields: tuple[type, ...]) -> list[dict[str, Any]]:
        """Return a section, a list of objects with at least these fields of these types."""
        records = self.data.get(section)
        if not isinstance(records, list):
            raise self.error(f"{section} is not a list")
        for number, record in enumerate(records):
            for name, kinds in fields.items():
                value = record.get(name) if isinstance(record, dict) else None
                if not isinstance(value, kinds) or isinstance(value, bool):
                    wanted = " or ".join(kind.__name__ for kind in kinds)
                    raise self.error(f"{section}[{number}].{name} is {value!r:.40}, not {wanted}")
        return records
