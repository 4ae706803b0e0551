"""Where the responses that a job annotates or scores come from: a model of ours, or a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from dress.chat.condition import Condition
from dress.feedback.endpoint import SAME_REPLIES
from dress.feedback.endpoint_sampler import EndpointSampler
from dress.jobs.job import Job


def is_endpoint(cfg: DictConfig) -> bool:
    """Tell whether responses come from a server (sampler=endpoint)."""
    return cfg.sampler.get("_target_") is not None


def open_endpoint(job: Job) -> EndpointSampler:
    condition = Condition(form=job.cfg.condition.form, learned=False)
    return instantiate(job.cfg.sampler, condition=condition, _convert_="all")


def endpoint_nodes(job: Job, targets: Sequence[str]) -> dict[str, Any]:
    """Return what responses of the endpoint are named by, wherever its server is."""
    node = {k: v for k, v in job.node("sampler").items() if k not in SAME_REPLIES}
    shown = {"form": job.cfg.condition.form} if set(targets) != {"none"} else None
    return {"sampler": node} | ({"condition": shown} if shown else {})
