"""Build what a configuration node describes, and hand it the run's own objects that it asks for."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

from hydra.utils import get_object, instantiate


def build(node: Any, offers: Mapping[str, Any]) -> Any:
    """Call the `_target_` of a node with its settings and with the offers that it names.

    An offer is something that no YAML can hold, such as the model. Who needs it has a parameter of
    that name; a setting of the same name counts before it.
    """
    parameters = signature(get_object(node["_target_"])).parameters
    wanted = {k: v for k, v in offers.items() if k in parameters and k not in node}
    return instantiate(node, _partial_=True, _convert_="all")(**wanted)


def build_all(nodes: Mapping[str, Any], offers: Mapping[str, Any]) -> dict[str, Any]:
    """Build each node of a dictionary; what is null or has nothing to do here is left out."""
    built = {name: build(node, offers) for name, node in nodes.items() if node is not None}
    return {name: thing for name, thing in built.items() if thing is not None}
