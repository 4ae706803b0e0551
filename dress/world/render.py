"""Draw a scene as a small JPEG with jitter in position, radius and colour, and noise."""

from __future__ import annotations

import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw

from dress.world.scene import Scene, Thing

IMAGE_SIZE = 48
_SCALE = 4  # drawn larger and reduced, for smooth edges
_CELL = IMAGE_SIZE // 3
_RGB = {
    "red": (214, 44, 40),
    "green": (44, 160, 60),
    "blue": (40, 70, 210),
    "yellow": (236, 214, 50),
    "purple": (150, 50, 180),
    "cyan": (60, 205, 215),
}
_RADIUS = {"small": 4.2, "large": 6.8}
_JITTER = 1.0  # pixels off the centre of the cell


def render(scene: Scene, *, seed: int | str) -> bytes:
    """JPEG bytes of the scene; the same scene and seed give the same bytes."""
    rng = random.Random(f"render:{seed}")
    grey = rng.randint(175, 225)
    side = IMAGE_SIZE * _SCALE
    canvas = Image.new("RGB", (side, side), (grey, grey, grey))
    draw = ImageDraw.Draw(canvas)
    for thing in scene.things:
        _draw_thing(draw, thing, rng)
    small = np.asarray(canvas.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX), np.float32)
    noise = np.random.default_rng(rng.getrandbits(32)).normal(0.0, 5.0, small.shape)
    pixels = np.clip(small + noise, 0, 255).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=92, subsampling=0)
    return stream.getvalue()


def blank(image: bytes) -> bytes:
    """A uniformly grey image of the same size."""
    with Image.open(io.BytesIO(image)) as opened:
        size = opened.size
    stream = io.BytesIO()
    Image.new("RGB", size, (200, 200, 200)).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def _draw_thing(draw: ImageDraw.ImageDraw, thing: Thing, rng: random.Random) -> None:
    radius = _RADIUS[thing.size] * rng.uniform(0.94, 1.06)
    x = thing.column * _CELL + _CELL / 2 + rng.uniform(-_JITTER, _JITTER)
    y = thing.row * _CELL + _CELL / 2 + rng.uniform(-_JITTER, _JITTER)
    colour = tuple(min(255, max(0, c + rng.randint(-12, 12))) for c in _RGB[thing.colour])
    points = _outline(thing.shape, x * _SCALE, y * _SCALE, radius * _SCALE)
    draw.polygon(points, fill=colour)


def _outline(shape: str, x: float, y: float, radius: float) -> list[tuple[float, float]]:
    if shape == "circle":
        return _polar(x, y, [radius] * 40)
    if shape == "square":
        return _polar(x, y, [1.25 * radius] * 4, turn=math.pi / 4)
    if shape == "triangle":
        return _polar(x, y, [1.2 * radius] * 3, turn=-math.pi / 2)
    arm = radius / 3
    quarter = [(arm, arm), (arm, 1.1 * radius), (-arm, 1.1 * radius)]
    corners = [(u, v) for u, v in quarter]
    points = []
    for _ in range(4):
        points += corners
        corners = [(-v, u) for u, v in corners]
    return [(x + u, y + v) for u, v in points]


def _polar(
    x: float, y: float, radii: list[float], *, turn: float = 0.0
) -> list[tuple[float, float]]:
    step = 2 * math.pi / len(radii)
    return [
        (x + r * math.cos(turn + step * k), y + r * math.sin(turn + step * k))
        for k, r in enumerate(radii)
    ]
