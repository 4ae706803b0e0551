"""What shards hold: tables of counts, lengths and ratings, and a page with a few groups."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dress.reporting.rendering import clipped, environment, picture_of
from dress.types import ASPECTS, RATINGS, Sample, Turn

TEXTS = ("user", "response", "critique", "refinement")
COUNTS = ("groups", "text only", "images", "dialogues", "turns", "turns with feedback")
MOST_TASKS = 20
Chosen = list[tuple[int, str, Sample]]  # a heap of minus the hash, the split, the group


@dataclass(frozen=True)
class Table:
    """Numbers under a title, a row per name."""

    title: str
    columns: Sequence[str]
    rows: Mapping[str, Sequence[str]]

    def __str__(self) -> str:
        names = [self.title, *self.rows]
        width = max(map(len, names))
        lines = [self.columns, *self.rows.values()]
        return "\n".join(
            " ".join([f"{name:<{width}}", *(f"{cell:>20}" for cell in cells)])
            for name, cells in zip(names, lines, strict=True)
        )


class ShardStatistics:
    """Add samples with the name of their split, then ask for `tables`."""

    def __init__(self) -> None:
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)
        self.words: dict[str, Counter[int]] = {name: Counter() for name in TEXTS}
        self.turns: Counter[int] = Counter()
        self.dialogues: Counter[int] = Counter()
        self.ratings: dict[str, Counter[int]] = {aspect: Counter() for aspect in ASPECTS}
        self.tasks: Counter[str] = Counter()

    def add(self, split: str, sample: Sample) -> None:
        turns = [turn for dialogue in sample.dialogues for turn in dialogue.turns]
        judged = [turn for turn in turns if turn.feedback]
        found = (1, not sample.images, len(sample.images), len(sample.dialogues), len(turns))
        numbers = dict(zip(COUNTS, (*map(int, found), len(judged)), strict=True))
        self.counts[split].update(numbers)
        self.dialogues[len(sample.dialogues)] += 1
        self.turns.update(len(dialogue.turns) for dialogue in sample.dialogues)
        self.tasks[str(sample.annotations.get("task", "-"))] += 1
        for turn in turns:
            self._add_turn(turn)

    def _add_turn(self, turn: Turn) -> None:
        self._add_text("user", turn.user)
        if turn.model is not None:
            self._add_text("response", turn.model)
        for aspect, judgement in turn.feedback.judgements.items() if turn.feedback else ():
            self.ratings[aspect][judgement.rating] += 1
            self._add_text("critique", judgement.critique)
            if judgement.refinement:
                self._add_text("refinement", judgement.refinement)

    def _add_text(self, name: str, text: str) -> None:
        self.words[name][len(text.split())] += 1

    def tables(self) -> list[Table]:
        lengths = {f"words: {name}": counter for name, counter in self.words.items()}
        lengths |= {"dialogues of a group": self.dialogues, "turns of a dialogue": self.turns}
        tasks = self.tasks.most_common(MOST_TASKS)
        return [
            Table(
                "counts",
                tuple(self.counts),
                {n: [f"{c[n]:,}" for c in self.counts.values()] for n in COUNTS},
            ),
            Table(
                "lengths",
                ("mean", "median", "95 %", "most"),
                {name: _distribution(counter) for name, counter in lengths.items() if counter},
            ),
            Table(
                "ratings",
                (*map(str, RATINGS), "mean"),
                {aspect: _shares(self.ratings[aspect]) for aspect in ASPECTS},
            ),
            Table("tasks", ("groups",), {name: [f"{count:,}"] for name, count in tasks}),
        ]


def _distribution(counter: Counter[int]) -> list[str]:
    mean = sum(value * count for value, count in counter.items()) / counter.total()
    return [f"{mean:.1f}", *(str(_quantile(counter, share)) for share in (0.5, 0.95, 1.0))]


def _quantile(counter: Counter[int], share: float) -> int:
    """Return the smallest value that at least `share` of all do not exceed."""
    values = sorted(counter)
    ends = accumulate(counter[value] for value in values)
    pairs = zip(values, ends, strict=True)
    return next(value for value, end in pairs if end >= share * counter.total())


def _shares(counter: Counter[int]) -> list[str]:
    if not counter:
        return ["-"] * (len(RATINGS) + 1)
    mean = sum(rating * count for rating, count in counter.items()) / counter.total()
    return [f"{counter[rating]:,}" for rating in RATINGS] + [f"{mean:.2f}"]


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
