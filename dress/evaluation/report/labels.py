"""Names of columns: as short as tells them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dress.artifact import Artifact
from dress.evaluation.report.lineage import Node

LAST = ("scenes", "id")  # what tells the least


def settings_of(evaluation: Artifact) -> dict[str, Any]:
    benchmark = evaluation.config.get("benchmark", {})
    temperature = evaluation.config.get("generation", {}).get("temperature")
    settings = {key: value for key, value in benchmark.items() if not key.startswith("_")}
    return settings | {"temperature": temperature}


def of_world(evaluation: Artifact) -> bool:
    """Tell the synthetic world's benchmarks, which share their settings."""
    target = str(evaluation.config.get("benchmark", {}).get("_target_", ""))
    return target.endswith((".WorldBenchmark", ".InteractionBenchmark"))


def facts_of(evaluations: Sequence[Artifact], nodes: Mapping[str, Node]) -> dict[str, Any]:
    """Return what tells a column apart, the most telling first."""
    first = evaluations[0]
    name = first.lineage["parents"].get("model", {}).get("name", first.name)
    model = nodes[name].artifact if name in nodes else None
    config = model.config if model else {}
    settings = {key: value for e in evaluations for key, value in settings_of(e).items()}
    return {
        "label": f"{name.rsplit('-', 1)[0]} {first.config.get('target', '')}".strip(),
        "model seed": config.get("seed"),
        "condition": config.get("condition", {}).get("form"),
        **{key: value for key, value in settings.items() if key != "scenes"},
        "scenes": settings.get("scenes"),
        "id": first.fingerprint[:6],
    }


def labels_from(facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name columns by experiment and target, and by what else differs where these are equal."""
    labels = [fact["label"] for fact in facts]
    keys = dict.fromkeys(key for fact in facts for key in fact if key not in ("label", *LAST))
    for key in (*keys, *LAST):
        for label in {label for label in labels if labels.count(label) > 1}:
            places = [i for i, other in enumerate(labels) if other == label]
            values = {
                i: "not given" if facts[i].get(key) is None else facts[i][key] for i in places
            }
            if len(set(map(str, values.values()))) > 1:
                for i in places:
                    labels[i] = f"{label}, {key} {values[i]}"
    return labels
