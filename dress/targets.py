"""Which classes a configuration may name: our own packages', torch's optimizers and Lightning's.

A command may let it name those of further packages. Artifacts record them under another key, so
that nothing is ever imported because of an artifact.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

OURS = re.compile(
    r"(dress|datamodules|lit_modules|torch\.optim)(\.\w+)+"
    r"|lightning\.(pytorch\.)?Trainer"
    r"|lightning\.pytorch\.(callbacks|loggers|profilers|strategies)(\.\w+)+"
)
TARGET, FOREIGN = "_target_", "_foreign_target_"


def is_foreign(target: str) -> bool:
    return not OURS.fullmatch(target)


def foreign_targets(config: Any) -> Iterator[str]:
    """Yield each `_target_` at any depth that leads elsewhere.

    Every node is looked at once, however often YAML aliases repeat it.
    """
    seen: set[int] = set()
    left = [config]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Mapping):
            target = node.get(TARGET)
            if target is not None and is_foreign(str(target)):
                yield str(target)
            left.extend(node.values())
        elif isinstance(node, list | tuple):
            left.extend(node)


def lies_in(target: str, packages: Collection[str]) -> bool:
    """Whether a class is one of these packages or modules."""
    return any(target.startswith(f"{package}.") for package in packages)


def class_of(node: Mapping[str, Any]) -> str:
    """Name the class that a node of an artifact was made by; empty where it names none."""
    return str(node.get(TARGET) or node.get(FOREIGN) or "")


def recorded(config: Any) -> Any:
    """Return a configuration as an artifact keeps it: a foreign `_target_` becomes a mere name."""
    if isinstance(config, Mapping):
        target = config.get(TARGET)
        named = TARGET if target is None or not is_foreign(str(target)) else FOREIGN
        return {named if key == TARGET else key: recorded(value) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [recorded(value) for value in config]
    return config
