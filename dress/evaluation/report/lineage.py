"""The lineage of artifacts: what each was made from, as a graph and written as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dress.artifact import Artifact
from dress.errors import InputError


@dataclass(frozen=True)
class Node:
    """One artifact of the lineage; `artifact` is None where it is not at hand."""

    name: str
    kind: str
    created: str
    code_version: str
    parents: tuple[tuple[str, str], ...]  # role, name
    artifact: Artifact | None
    note: str = ""


def ancestry(artifacts: Sequence[Artifact]) -> dict[str, Node]:
    """Return every artifact and all its ancestors by name, parents before children.

    A parent is looked for beside its child.
    """
    nodes: dict[str, Node] = {}
    for artifact in artifacts:
        _visit(artifact, nodes)
    return nodes


def _visit(artifact: Artifact, nodes: dict[str, Node]) -> None:
    if artifact.name in nodes:
        return
    parents = artifact.lineage["parents"]
    for parent in parents.values():
        found = _beside(artifact, parent["name"], parent["fingerprint"])
        if isinstance(found, Artifact):
            _visit(found, nodes)
        else:
            nodes.setdefault(found.name, found)
    nodes[artifact.name] = Node(
        name=artifact.name,
        kind=artifact.lineage["kind"],
        created=artifact.lineage.get("created", ""),
        code_version=artifact.lineage.get("code_version", ""),
        parents=tuple((role, parent["name"]) for role, parent in parents.items()),
        artifact=artifact,
    )


def _beside(child: Artifact, name: str, fingerprint: str) -> Artifact | Node:
    note = "not found beside its child"
    try:
        # a name from a file must not lead out of the folder
        parent = Artifact.open(child.path.absolute().parent / Path(name).name)
        if parent.fingerprint == fingerprint:
            return parent
        note = "another build has its name"
    except InputError:
        pass
    return Node(name, "", "", "", (), None, note)


@dataclass(frozen=True)
class Line:
    """A line of the lineage written as a tree."""

    depth: int
    role: str
    node: Node
    repeated: bool  # its parents stand further up


def tree(roots: Sequence[str], nodes: Mapping[str, Node]) -> list[Line]:
    """Write the lineage depth first; an artifact's own parents are listed once."""
    lines: list[Line] = []
    seen: set[str] = set()

    def descend(name: str, role: str, depth: int) -> None:
        node = nodes[name]
        lines.append(Line(depth, role, node, repeated=name in seen and bool(node.parents)))
        if name not in seen:
            seen.add(name)
            for parent_role, parent in node.parents:
                descend(parent, parent_role, depth + 1)

    for root in roots:
        if root not in seen:
            descend(root, "", 0)
    return lines
