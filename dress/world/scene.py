"""Scenes: a few objects on a 3 x 3 grid, drawn with co-occurrence priors, and their splits."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

from dress.errors import Reject

SHAPES = ("circle", "square", "triangle", "cross")
COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SIZES = ("small", "large")
CELLS = (
    "top left",
    "top centre",
    "top right",
    "middle left",
    "centre",
    "middle right",
    "bottom left",
    "bottom centre",
    "bottom right",
)
KINDS = tuple(product(COLOURS, SHAPES))
NUM_OBJECTS_WEIGHTS = {1: 2, 2: 3, 3: 3, 4: 2}

Split = Literal["train", "annotate", "test"]
_SPLIT_BOUNDS: dict[Split, range] = {
    "train": range(0, 80),
    "annotate": range(80, 90),
    "test": range(90, 100),
}


@dataclass(frozen=True, order=True)
class Thing:
    """One object; `cell` counts 0-8 in reading order."""

    cell: int
    colour: str
    shape: str
    size: str

    @property
    def kind(self) -> tuple[str, str]:
        return (self.colour, self.shape)

    @property
    def row(self) -> int:
        return self.cell // 3

    @property
    def column(self) -> int:
        return self.cell % 3

    @property
    def of_world(self) -> bool:
        kind_known = self.kind in KINDS and self.size in SIZES
        return kind_known and isinstance(self.cell, int) and 0 <= self.cell < len(CELLS)

    def to_json(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "colour": self.colour,
            "size": self.size,
            "cell": self.cell,
        }


@dataclass(frozen=True)
class Scene:
    """Objects in reading order, at most one per cell."""

    things: tuple[Thing, ...]

    @property
    def kinds(self) -> set[tuple[str, str]]:
        return {thing.kind for thing in self.things}

    @property
    def name(self) -> str:
        """Which kinds stand where, as one word: scenes that differ in sizes alone are one scene."""
        return ";".join(f"{t.cell},{t.colour},{t.shape}" for t in self.things)

    @property
    def split(self) -> Split:
        """The split by hash of what stands where, whatever the seed that drew it."""
        bucket = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:8], "big") % 100
        return next(name for name, bounds in _SPLIT_BOUNDS.items() if bucket in bounds)

    def to_json(self) -> list[dict[str, Any]]:
        return [thing.to_json() for thing in self.things]

    @staticmethod
    def from_json(rows: Any) -> Scene:
        """Read the objects of a record; raise Reject where they are none of this world."""
        try:
            things = tuple(sorted(Thing(**row) for row in rows))
        except TypeError:
            things = None
        if things is None or not all(thing.of_world for thing in things):
            raise Reject("invalid record", detail="annotations.scene holds no objects of the world")
        return Scene(things)


def companion(kind: tuple[str, str]) -> tuple[str, str]:
    """The kind that tends to stand beside this one: the prior that tempts to hallucinate."""
    colour, shape = kind
    return (
        COLOURS[(COLOURS.index(colour) + 2) % len(COLOURS)],
        SHAPES[(SHAPES.index(shape) + 1) % len(SHAPES)],
    )


def draw_scene(rng: random.Random, *, cooccurrence: float) -> Scene:
    """Draw 1-4 objects; each after the first is, with probability `cooccurrence`, a companion."""
    (count,) = rng.choices(*zip(*NUM_OBJECTS_WEIGHTS.items(), strict=True))
    cells = rng.sample(range(len(CELLS)), count)
    kinds = [rng.choice(KINDS)]
    while len(kinds) < count:
        tempted = rng.random() < cooccurrence
        kinds.append(companion(rng.choice(kinds)) if tempted else rng.choice(KINDS))
    things = (
        Thing(cell=cell, colour=colour, shape=shape, size=rng.choice(SIZES))
        for cell, (colour, shape) in zip(cells, kinds, strict=True)
    )
    return Scene(tuple(sorted(things)))


def draw_scenes(
    *, split: Split, count: int, seed: int, cooccurrence: float = 0.3
) -> Iterator[Scene]:
    """Draw `count` scenes of one split; scenes may repeat, splits never share one."""
    rng = random.Random(f"scenes:{split}:{seed}")
    while count > 0:
        scene = draw_scene(rng, cooccurrence=cooccurrence)
        if scene.split == split:
            count -= 1
            yield scene
