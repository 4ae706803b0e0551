"""Which classes a configuration may name: our own packages', torch's optimizers and Lightning's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OURS = re.compile(
    r"(dress|datamodules|lit_modules|torch\.optim)(\.\w+)+"
    r"|lightning\.(pytorch\.)?Trainer"
    r"|lightning\.pytorch\.(callbacks|loggers|profilers|strategies)(\.\w+)+"
)


def foreign_target(config: Any) -> str | None:
    """Return a `_target_` at any depth that leads elsewhere; None if there is none.

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
            target = node.get("_target_")
            if target is not None and not OURS.fullmatch(str(target)):
                return str(target)
            left.extend(node.values())
        elif isinstance(node, list | tuple):
            left.extend(node)
    return None
