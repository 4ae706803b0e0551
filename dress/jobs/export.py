"""job=export: a trained model as a folder that transformers and its servers load by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dress.artifact import Artifact
from dress.chat.condition import chosen_target, has_learned
from dress.errors import InputError
from dress.files import write_text
from dress.jobs.job import Job, open_model
from dress.modeling.specification import NOT_MERGED
from dress.reporting.model_card import Card, card_of
from dress.settings import AboveZero

MODEL = "model"


@dataclass(frozen=True, kw_only=True)
class Exporting:
    """How a model is written (conf/export)."""

    condition: str | int
    form: Literal["merged", "adapter"]
    push: str | None
    shard_gigabytes: AboveZero


def run(job: Job) -> Artifact:
    node = Exporting(**job.node("export"))
    if not job.cfg.artifact:
        raise InputError("artifact is not set: give the model to export, artifact=<directory>.")
    job.refuse_model_overrides("only export.* can")
    if any(override.startswith("condition.target") for override in job.overrides):
        raise InputError("condition.target is not read by job=export: give export.condition.")
    artifact = open_model(job.cfg.artifact)
    if artifact.config["model"]["language"].get("quantization"):
        raise InputError(f"{artifact.path} cannot be exported: {NOT_MERGED}")
    target = chosen_target(node.condition, learned=has_learned(artifact.config))
    written = {"condition": target, "form": node.form, "shard_gigabytes": node.shard_gigabytes}
    with job.building(
        kind="export",
        nodes={"export": written},
        parents={"model": artifact},
        name=f"export_{artifact.name.rsplit('-', 1)[0]}",
    ) as building:
        if not building.reused:
            from dress.jobs.exported import write  # torch, transformers, open_clip: seconds

            folder = building.path / MODEL
            folder.mkdir()
            size = node.shard_gigabytes
            facts = write(artifact, folder, target=target, form=node.form, shard_gigabytes=size)
            card = Card(artifact=artifact, target=target, form=node.form, **facts)
            write_text(folder / "README.md", card_of(card))
    if node.push:
        push(building.artifact.path / MODEL, node.push)
    return building.artifact


def push(folder: Path, name: str) -> None:
    """Upload a folder to the hub, private where it is new, with the token in the environment."""
    from huggingface_hub import HfApi  # half a second

    api = HfApi()  # which takes the token and the address from the environment
    try:
        api.create_repo(name, exist_ok=True, private=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message="Export of DRESS")
    except Exception as error:  # the hub's and the network's have no class in common
        told = " ".join(str(error).split())
        raise InputError(
            f"export.push={name} failed ({type(error).__name__}: {told:.200}): the export itself "
            f"is in {folder}; check HF_TOKEN, the name and the network."
        ) from error
    print(f"pushed: {done.commit_url}", flush=True)
