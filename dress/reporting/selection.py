"""The artifacts that a report is about, and the graph of what they were made from."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dress.artifact import LINEAGE, MARKER, Artifact
from dress.errors import InputError
from dress.files import read_json

logger = logging.getLogger(__name__)
TARGET_ORDER = ("none", "best", "4", "3", "2", "1", "worst")


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


@dataclass(frozen=True)
class Selection:
    """Evaluations in the order of their columns, and models that were named themselves."""

    evaluations: tuple[Artifact, ...]
    models: tuple[Artifact, ...]

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        return (*self.evaluations, *self.models)


def select(paths: Sequence[str], root: Path) -> Selection:
    """Open the named evaluations, and those of the named models; no name means all under `root`.

    InputError if a path holds something else, or if there is nothing to report.
    """
    given = [Artifact.open(path) for path in paths]
    for artifact in given:
        if (kind := artifact.lineage["kind"]) not in ("evaluation", "model"):
            raise InputError(
                f"{artifact.path} holds {kind}: name evaluations or models in report.artifacts."
            )
    models = [artifact for artifact in given if artifact.lineage["kind"] == "model"]
    found = _of_every_model(root) if not paths else []
    for artifact in given:
        found += [artifact] if artifact not in models else _of_model(artifact)
    if not found and not models:
        raise InputError(
            f"{root} holds no evaluation: run experiment=dress_stage2 or job=evaluate first, or "
            "name folders in report.artifacts."
        )
    return Selection(_once(found), _once(models))


def _once(artifacts: Sequence[Artifact]) -> tuple[Artifact, ...]:
    return tuple({artifact.fingerprint: artifact for artifact in artifacts}.values())


def _of_every_model(root: Path) -> list[Artifact]:
    """Return all evaluations, those of early stages first."""
    evaluations = list(_evaluations(root))

    def sort_key(evaluation: Artifact) -> tuple[int, str, tuple[int, str, str]]:
        nodes = ancestry([evaluation])
        made = max((n.created for n in nodes.values() if n.kind == "model"), default="")
        models = sum(node.kind == "model" for node in nodes.values())
        return models, made, _target_place(evaluation)

    return sorted(evaluations, key=sort_key)


def _of_model(model: Artifact) -> list[Artifact]:
    """Return the evaluations of a model that lie next to it."""
    found = [
        evaluation
        for evaluation in _evaluations(model.path.parent)
        if parent_fingerprint(evaluation) == model.fingerprint
    ]
    return sorted(found, key=_target_place)


def _target_place(evaluation: Artifact) -> tuple[int, str, str]:
    target = str(evaluation.config.get("target"))
    known = TARGET_ORDER.index(target) if target in TARGET_ORDER else len(TARGET_ORDER)
    return known, target, evaluation.lineage.get("created", "")


def parent_fingerprint(evaluation: Artifact) -> str:
    """Return the fingerprint of the model that was evaluated."""
    return evaluation.lineage["parents"].get("model", {}).get("fingerprint", "")


def _evaluations(root: Path) -> Iterator[Artifact]:
    for marker in sorted(root.glob(f"*/{MARKER}")):
        # folders of an unfinished or a replaced build are no artifacts of their own
        if marker.parent.suffix in (".partial", ".old"):
            continue
        try:
            if read_json(marker.parent / LINEAGE).get("kind") == "evaluation":
                yield Artifact.open(marker.parent)
        except (InputError, ValueError) as error:
            logger.warning("not in the report: %s", error)
