"""The model card of an export: what it is, what from, how good, and where its limits are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup

from dress.artifact import Artifact
from dress.errors import InputError
from dress.files import public_name, read_text
from dress.reporting.rendering import environment
from dress.reporting.selection import ancestry, select
from dress.reporting.tables import number

UNKNOWN = "see the page of the released weights; this project does not know it"


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a model card is made of; `base` is the released model, or None for own parts.

    `kind` is the type of transformers in whose layout it is written, and `views` says that it
    shows a single picture several times.
    """

    artifact: Artifact
    target: str
    condition: str
    base: str | None
    form: str
    kind: str = "llava"
    views: bool = False


def card_of(card: Card) -> str:
    """Return README.md with the front matter that the hub reads."""
    base = public_name(card.base) if card.base else ""
    front: dict[str, Any] = {
        "library_name": "transformers" if card.form == "merged" else "peft",
        "pipeline_tag": "image-text-to-text",
        "license": "other",
    }
    if card.base is not None and base == card.base:
        front["base_model"] = base
    shown = {
        "front": Markup(f"---\n{yaml.safe_dump(front)}---\n"),
        "title": card.artifact.name,
        "kind": card.kind,
        "views": card.views,
        "name": card.artifact.name,
        "code_version": card.artifact.lineage.get("code_version", "of an unknown version"),
        "created": card.artifact.lineage.get("created", "an unknown day"),
        "target": card.target,
        "condition": card.condition,
        "adapter": card.form == "adapter",
        "base": Markup(repr(base)),
        "made_from": [*_made_from(card.artifact)],
        "figures": [*_figures(card.artifact)],
        "licences": [*_licences(card)],
    }
    return environment(autoescape=False).get_template("model_card.md.jinja").render(shown)


def _made_from(artifact: Artifact) -> Iterator[dict[str, str]]:
    for node in ancestry([artifact]).values():
        fingerprint = node.artifact.fingerprint if node.artifact else node.note
        yield {"what": node.kind or "parent", "name": node.name, "fingerprint": fingerprint}
        inputs: Mapping[str, str] = node.artifact.lineage.get("inputs", {}) if node.artifact else {}
        for name, digest in inputs.items():
            yield {"what": f"input of {node.name}", "name": name, "fingerprint": digest[:16]}


def _figures(artifact: Artifact) -> Iterator[dict[str, str]]:
    evaluations = select([str(artifact.path)], artifact.path.parent).evaluations
    for evaluation in evaluations:
        metrics = evaluation.metrics
        for name, value in metrics.items():
            if f"{name}_low" in metrics:
                low, high = metrics[f"{name}_low"], metrics[f"{name}_high"]
                told = f"{number(value, counted=False)} [{low:.3f}, {high:.3f}]"
                target = str(evaluation.config.get("target"))
                yield {"name": name, "target": target, "value": Markup(told)}


def _licences(card: Card) -> Iterator[dict[str, str]]:
    model = card.artifact.config["model"]
    if card.base is not None:
        told = _licence_in(Path(card.base) / "README.md") or UNKNOWN
        yield {"part": f"all weights, from {public_name(card.base)}", "text": told}
    else:
        for part in ("vision", "language"):
            node = model[part]
            drawn = node["random_init"] or not node["name"]
            text = "random weights, no licence of others" if drawn else UNKNOWN
            name = public_name(node["name"]) if node["name"] else "own shape"
            yield {"part": f"{part} ({name})", "text": text}
    yield {"part": "the code that trained it", "text": "Apache-2.0"}


def _licence_in(readme: Path) -> str | None:
    try:
        parts = read_text(readme).split("---\n")
        front = yaml.safe_load(parts[1]) if len(parts) > 2 else {}
    except (InputError, yaml.YAMLError):
        return None
    found = front.get("license") if isinstance(front, dict) else None
    return str(found) if found else None
