"""A store of hand-made artifacts: a lineage of two models, each with an evaluation."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from dress.artifact import Artifact, ArtifactStore, Building, artifact_name, fingerprint
from dress.files import append_line

LOSSES = (4.0, 2.0, 1.0)
ATTACK = "<script>alert(1)</script> | `x` **y**"


@dataclass(frozen=True)
class Store:
    """Artifacts as the jobs write them; figures are those of the caller."""

    root: Path

    def make(
        self,
        name: str,
        kind: str,
        fill: Callable[[Building], None],
        config: Mapping[str, Any] | None = None,
        **parents: Artifact,
    ) -> Artifact:
        nodes = {"name": name, "kind": kind, **(config or {})}
        digest = fingerprint(nodes, {r: p.fingerprint for r, p in parents.items()}, {})
        with ArtifactStore(self.root).build(
            artifact_name(name, digest),
            kind=kind,
            config=nodes,
            fingerprint=digest,
            parents=parents,
            inputs={},
        ) as building:
            if not building.reused:
                fill(building)
        return building.artifact

    def model(self, name: str, *, seed: int = 0, **parents: Artifact) -> Artifact:
        config = {"seed": seed, "condition": {"form": "both", "dropout": 0.1}}
        return self.make(name, "model", write_history, config, **parents)

    def evaluation(
        self,
        model: Artifact,
        target: str,
        hits: Sequence[int],
        *,
        labels: bool = True,
        benchmark: Mapping[str, Any] | None = None,
    ) -> Artifact:
        """One question per scene, right where `hits` is 1."""
        config = {
            "target": target,
            "benchmark": dict(benchmark or {"_target_": "dress.toy.Benchmark"}),
        }
        name = f"world_{model.name.rsplit('-', 1)[0]}"

        def fill(building: Building) -> None:
            mean = sum(hits) / len(hits)
            figures = {"": mean, "_low": mean - 0.125, "_high": mean + 0.125}
            building.write_metrics({f"world/mean{end}": value for end, value in figures.items()})
            (building.path / "images").mkdir()
            (building.path / "images" / "a.jpg").write_bytes(picture())
            for number, hit in enumerate(hits):
                row = row_of(number, hit, labels=labels)
                append_line(building.path / "responses.jsonl", row)

        return self.make(name, "evaluation", fill, config, model=model)


def write_history(building: Building) -> None:
    for number, loss in enumerate(LOSSES):
        line = {"step": 10 * (number + 1), "time": 100.0 + 5 * number, "train/loss": loss}
        append_line(
            building.path / "metrics.jsonl", line | {"train/tokens_per_second": 200.0 + number}
        )


def row_of(number: int, hit: int, *, labels: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"scene-{number}",
        "image": "images/a.jpg",
        "question": "How many?",
        "answer": "two",
        "turn": 0,
        "task": "count",
        "response": ATTACK,
    }
    if labels:
        row |= {"cluster": f"scene-{number}", "labels": {"mean": [hit, 1], "count": [hit, 1]}}
    return row


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (600, 300), "red").save(buffer, format="JPEG")
    return buffer.getvalue()
