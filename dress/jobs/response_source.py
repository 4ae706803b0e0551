"""Where the responses that a job annotates or scores come from: a model of ours, or a server.

What either of them needs, torch or the SDK of chat servers, is imported when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from dress.artifact import Artifact
from dress.chat.condition import Condition
from dress.feedback.endpoint import named_settings
from dress.feedback.sampler import Sampler
from dress.jobs.job import Job

if TYPE_CHECKING:
    from dress.assistant import Assistant  # imports torch


def is_endpoint(cfg: DictConfig) -> bool:
    """Tell whether responses come from a server (sampler=endpoint)."""
    return cfg.sampler.get("_target_") is not None


def open_assistant(job: Job, artifact: Artifact) -> Assistant:
    """Return a model of ours, on this process's own device."""
    import torch

    from dress.loading import load_artifact
    from dress.modeling.devices import own_device

    torch.set_float32_matmul_precision(job.cfg.matmul_precision)
    assistant = load_artifact(artifact)
    assistant.model.to(own_device(job.cfg.trainer.accelerator))
    return assistant


def open_endpoint(job: Job) -> Sampler:
    condition = Condition(form=job.cfg.condition.form, learned=False)
    return instantiate(job.cfg.sampler, condition=condition, _convert_="all")


def endpoint_nodes(job: Job, targets: Sequence[str]) -> dict[str, Any]:
    """Return what responses of the endpoint are named by, wherever its server is."""
    nodes: dict[str, Any] = {"sampler": named_settings(job.node("sampler"))}
    if set(targets) != {"none"}:
        nodes["condition"] = {"form": job.cfg.condition.form}
    return nodes
