"""One page on shards: what was counted, and a few groups with their pictures."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Sequence

from dress.data.statistics import Table
from dress.evaluation.report.formats import environment
from dress.evaluation.report.gallery import clipped
from dress.evaluation.report.pictures import picture_of
from dress.types import Sample

Chosen = list[tuple[int, str, Sample]]  # a heap of minus the hash, the split, the group


def choose(chosen: Chosen, split: str, sample: Sample, *, count: int) -> None:
    """Keep the `count` groups whose ids have the smallest hashes: the same whatever the order."""
    digest = -int.from_bytes(hashlib.sha256(sample.id.encode()).digest()[:8], "big")
    if len(chosen) < count:
        heapq.heappush(chosen, (digest, split, sample))
    elif chosen and digest > chosen[0][0]:
        heapq.heapreplace(chosen, (digest, split, sample))


def shards_page(title: str, tables: Sequence[Table], chosen: Chosen) -> str:
    """Render HTML that needs no other file; every text of the data is escaped."""
    groups = [
        {
            "id": sample.id,
            "split": split,
            "task": clipped(sample.annotations.get("task")),
            "pictures": [picture_of(image) for image in sample.images],
            "dialogues": [dialogue.turns for dialogue in sample.dialogues],
        }
        for _, split, sample in sorted(chosen, key=lambda item: -item[0])
    ]
    found = environment(autoescape=True)
    found.filters["clipped"] = clipped
    return found.get_template("shards.html.jinja").render(title=title, tables=tables, groups=groups)
