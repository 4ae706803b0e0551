"""Draw how the packages import each other, from their import statements.

    python benchmarks/draw_imports.py docs/imports.svg

Each box is a package and stands above all that it imports. An arrow that follows from others is
left out. The small files of dress that import no package of it are one box, the ground. Packages
that import each other in a circle share one red box.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from statistics import fmean

from house import Graph, circles, file_graph, package_graph, reachable, tracked_files

ROOT = Path(__file__).resolve().parents[1]
GROUND = "ground"
ROW, GAP, LETTER, LINE, MARGIN = 92, 26, 7.3, 17, 16  # pixels
SWEEPS = 8  # of the ordering within rows
COLOURS = {"run": "#e8e8e8", "lit_modules": "#fde3c8", "datamodules": "#fde3c8"}


@dataclass(frozen=True)
class Box:
    lines: tuple[str, ...]
    colour: str
    edge: str = "#555555"

    @property
    def width(self) -> float:
        return LETTER * max(map(len, self.lines)) + 22 if self.lines else 10

    @property
    def height(self) -> float:
        return LINE * len(self.lines) + 14


def joined(graph: Graph, groups: Mapping[str, str]) -> Graph:
    """Replace each name by its group, where it has one."""
    edges: dict[str, set[str]] = {}
    for name, targets in graph.items():
        inside = edges.setdefault(groups.get(name, name), set())
        inside |= {groups.get(target, target) for target in targets}
    return {name: frozenset(targets - {name}) for name, targets in edges.items()}


def without_shortcuts(graph: Graph) -> Graph:
    """Leave out each edge that a longer way makes unnecessary; the graph has no circle."""
    below = {name: reachable(graph, name) for name in graph}
    return {
        name: frozenset(t for t in targets if not any(t in below[other] for other in targets))
        for name, targets in graph.items()
    }


def heights(graph: Graph) -> dict[str, int]:
    """Return the length of the longest way down from each box."""
    found: dict[str, int] = {}

    def height(name: str) -> int:
        if name not in found:
            found[name] = 1 + max(map(height, graph[name]), default=-1)
        return found[name]

    for name in sorted(graph):
        height(name)
    return found


def with_bends(graph: Graph, height: dict[str, int]) -> dict[str, list[str]]:
    """Let each edge pass a bend in every row that it crosses; `height` gets the bends."""
    edges: dict[str, list[str]] = {}
    for name, targets in sorted(graph.items()):
        for target in sorted(targets):
            last = name
            for row in range(height[name] - 1, height[target], -1):
                bend = f"{name}>{target}@{row}"
                height[bend] = row
                edges.setdefault(last, []).append(bend)
                last = bend
            edges.setdefault(last, []).append(target)
    return edges


def ordered_rows(edges: Mapping[str, list[str]], height: Mapping[str, int]) -> list[list[str]]:
    """Order each row by the mean place of its neighbours, from below and from above in turns."""
    rows = [
        sorted(n for n in height if height[n] == row) for row in range(max(height.values()) + 1)
    ]
    above: dict[str, list[str]] = {}
    for name, targets in edges.items():
        for target in targets:
            above.setdefault(target, []).append(name)
    place = {name: (i + 0.5) / len(row) for row in rows for i, name in enumerate(row)}
    for sweep in range(SWEEPS):
        neighbours = above if sweep % 2 else edges
        for row in rows[::-1] if sweep % 2 else rows:
            pull = {
                n: fmean([place[other] for other in neighbours.get(n, ())] or [place[n]])
                for n in row
            }
            row.sort(key=lambda n: (pull[n], n))
            place |= {n: (i + 0.5) / len(row) for i, n in enumerate(row)}
    return rows


def boxes(graph: Graph, groups: Mapping[str, str]) -> dict[str, Box]:
    members: dict[str, list[str]] = {}
    for name, group in sorted(groups.items()):
        members.setdefault(group, []).append(name)
    return {name: box(name, members.get(name, [name])) for name in graph}


def box(name: str, members: Iterable[str]) -> Box:
    shown = [member.removeprefix("dress.") for member in members]
    if name == "run":
        return Box(("conf/ and run.py",), COLOURS[name])
    if name == GROUND:
        return Box(tuple(wrapped([f"{n}.py" for n in shown])), "#ececec")
    if len(shown) > 1:
        return Box(("in a circle:", *wrapped(shown)), "#ffffff", edge="#c00000")
    label = name.replace(".", "/") + (".py" if not is_package(name) else "/")
    return Box((label,), COLOURS.get(name, "#d6e6f5"))


def wrapped(words: list[str], letters: int = 56) -> list[str]:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > letters:
            lines.append("")
        lines[-1] += f"{word}  "
    return [line.strip() for line in lines]


def positions(rows: list[list[str]], drawn: Mapping[str, Box]) -> dict[str, tuple[float, float]]:
    """Return the middle of each box and bend; rows are centred, the highest first."""
    widths = [sum(drawn[name].width + GAP for name in row) - GAP for row in rows]
    middles: dict[str, tuple[float, float]] = {}
    for row, (names, width) in enumerate(zip(rows, widths, strict=True)):
        x = MARGIN + (max(widths) - width) / 2
        y = MARGIN + 24 + ROW * (len(rows) - 1 - row)
        for name in names:
            middles[name] = (x + drawn[name].width / 2, y)
            x += drawn[name].width + GAP
    return middles


def arrow(path: list[tuple[float, float]]) -> str:
    (x, y), *rest = path
    text = f"M{x:.0f} {y:.0f}"
    for end_x, end_y in rest:
        middle = (y + end_y) / 2
        text += f" C{x:.0f} {middle:.0f} {end_x:.0f} {middle:.0f} {end_x:.0f} {end_y:.0f}"
        x, y = end_x, end_y
    return f'<path d="{text}" fill="none" stroke="#888888" marker-end="url(#head)"/>'


def arrows(
    edges: Mapping[str, list[str]], at: Mapping[str, tuple[float, float]], drawn: Mapping[str, Box]
) -> Iterable[str]:
    for name, targets in edges.items():
        if not drawn[name].lines:
            continue
        for target in targets:
            path = [(at[name][0], at[name][1] + drawn[name].height / 2)]
            while not drawn[target].lines:
                path.append(at[target])
                (target,) = edges[target]
            yield arrow([*path, (at[target][0], at[target][1] - drawn[target].height / 2 - 5)])


def rectangle(middle: tuple[float, float], box: Box) -> Iterable[str]:
    x, y = middle[0] - box.width / 2, middle[1] - box.height / 2
    yield (
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" '
        f'rx="6" fill="{box.colour}" stroke="{box.edge}"/>'
    )
    for number, line in enumerate(box.lines):
        base = y + 19 + LINE * number
        yield f'<text x="{middle[0]:.0f}" y="{base:.0f}" text-anchor="middle">{escape(line)}</text>'


def drawing(graph: Graph) -> str:
    """Return the picture of a graph of packages as SVG."""
    rooms = {name for name in graph if name.startswith("dress.") and is_package(name)}
    ground = {
        name: GROUND
        for name in graph
        if name.startswith("dress") and name not in rooms and not reachable(graph, name) & rooms
    }
    graph = joined({n: t - {"dress"} for n, t in graph.items() if n != "dress"}, ground)
    groups = {name: f"circle {i}" for i, circle in enumerate(circles(graph)) for name in circle}
    graph = without_shortcuts(joined(graph, groups))
    height = heights(graph)
    edges = with_bends(graph, height)
    rows = ordered_rows(edges, height)
    named = boxes(graph, ground | groups)
    return picture(rows, edges, {n: named.get(n, Box((), "")) for row in rows for n in row})


def picture(rows: list[list[str]], edges: Mapping[str, list[str]], drawn: Mapping[str, Box]) -> str:
    at = positions(rows, drawn)
    width = max(x + drawn[name].width / 2 for name, (x, _) in at.items()) + MARGIN
    depth = max(y + drawn[name].height / 2 for name, (_, y) in at.items()) + MARGIN
    rectangles = (rectangle(at[name], box) for name, box in drawn.items() if box.lines)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{depth:.0f}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="14">',
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="4" refY="4" '
        'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#888888"/></marker></defs>',
        f'<rect width="{width:.0f}" height="{depth:.0f}" fill="white"/>',
        *arrows(edges, at, drawn),
        *(line for lines in rectangles for line in lines),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def is_package(name: str) -> bool:
    return (ROOT / name.replace(".", "/")).is_dir()


def main() -> None:
    files = tracked_files(ROOT)
    Path(sys.argv[1]).write_text(drawing(package_graph(file_graph(ROOT, files))))


if __name__ == "__main__":
    main()
