"""What was probably meant by a key or an option that does not exist: a sentence for each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

CONF = Path(__file__).resolve().parents[2] / "conf"
OVERLAYS = ("experiment", "debug")  # they set the keys of other groups
ALIKE = 0.75  # of two names, 1 where they are equal
AGAIN = {"benchmark": "interaction"}  # groups with a second node


def unread(key: str) -> str:
    """Say that nothing reads a key, and which one is close, or which option has it."""
    known = declared()
    if options := known.get(key):
        return f"nothing that was chosen reads {key}: choose {' or '.join(options)}."
    if close := _close(key, [*known, *_groups()]):
        return f"nothing reads {key}: did you mean {' or '.join(close)}?"
    node = key.rpartition(".")[0]
    beside = sorted({k.rpartition(".")[2] for k in known if node and k.rpartition(".")[0] == node})
    has = f" ({node} has {', '.join(beside)})" if beside else ""
    return f"nothing reads {key}: leave it out{has}."


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    close = difflib.get_close_matches(option, options, n=3)
    if close:
        return f"{group} has no option {option!r}: did you mean {' or '.join(close)}?"
    return f"{group} has no option {option!r}: choose one of {', '.join(options)}."


def declared() -> dict[str, list[str]]:
    """Return every key in conf/ with the options that declare it; overlays declare none."""
    found: dict[str, list[str]] = {}
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix()
        if group not in OVERLAYS:
            for key in _declared_in(path, group):
                found.setdefault(key, []).append(f"{group}={path.stem}")
    for group, node in AGAIN.items():
        for key in [key for key in found if key.startswith(f"{group}.")]:
            options = [option.replace(group, f"{group}@{node}", 1) for option in found[key]]
            found[key.replace(group, node, 1)] = options
    return found


def _declared_in(path: Path, group: str) -> Iterator[str]:
    """Yield the keys that one option adds to the nodes of its own group."""
    text = path.read_text(encoding="utf-8")
    nodes = yaml.safe_load(text) or {}
    nodes.pop("defaults", None)
    top = "" if group == "." else group.replace("/", ".")
    package = re.match(r"# @package (\S+)", text)
    under = top if package is None else package[1].replace("_global_", "")
    for key, _ in leaves(nodes, under):
        if key.startswith(top):
            yield key


def leaves(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each dotted key below a node with its value; lists count as values."""
    if not isinstance(node, Mapping):
        yield key, node
        return
    for name, value in node.items():
        yield from leaves(value, f"{key}.{name}" if key else str(name))


def _groups() -> list[str]:
    return [path.relative_to(CONF).as_posix() for path in CONF.rglob("*") if path.is_dir()]


def _close(key: str, known: Iterable[str]) -> list[str]:
    """Return up to three keys whose node, where it was given, and name are spelt alike."""
    node, _, last = key.rpartition(".")
    found = []
    for name in known:
        other_node, _, other = name.rpartition(".")
        alike = min(_likeness(node, other_node) if node else 1.0, _likeness(last, other))
        if alike >= ALIKE:
            found.append((name.count("."), -alike, name))
    return [name for _, _, name in sorted(found)[:3]]


def _likeness(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()
