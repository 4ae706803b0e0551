"""Log-probabilities under the reference of all that DPO is going to read, as an artifact."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from datamodules.base import ShardDataModule
from dress.artifact import Artifact, Parent
from dress.data.shard_set import ShardSet
from dress.data.stores.addresses import below
from dress.data.stream import GroupStream, Step, StepStream
from dress.jobs.backend import device
from dress.jobs.data_sets import cache
from dress.jobs.job import Job
from dress.jobs.progress import Bar
from dress.jobs.resolved import resolved_model, resolved_template
from dress.modeling.lvlm import LVLM
from dress.modeling.reference import ReferenceLogProbs
from dress.objectives.functional import target_log_probs
from dress.types import TokenBatch


def reference_log_probs(
    job: Job, model: LVLM, datamodule: ShardDataModule, *, init: Artifact | None, data: ShardSet
) -> ReferenceLogProbs:
    """Open what an earlier run has computed with this model on these data, or compute it now."""
    parents: dict[str, Parent] = {"data": data}
    if init:
        parents["init"] = init
    with job.building(
        kind="reference", nodes=_nodes(job, init), parents=parents, name="dress_reference"
    ) as building:
        if building.reused:
            return ReferenceLogProbs.load(building.path)
        found = compute(job, model, datamodule, data)
        found.save(building.path)
    return found


def _nodes(job: Job, init: Artifact | None) -> dict[str, object]:
    """Name what decides the reference and how its texts become tokens."""
    model = {k: v for k, v in resolved_model(job).items() if k != "trainable"}
    return {
        "model": model,
        "template": resolved_template(job),
        "encoder": job.node("datamodule")["encoder"],
        "precision": job.cfg.trainer.precision,
        "seed": None if init else job.cfg.seed,  # of random weights
    }


@torch.no_grad()
def compute(
    job: Job, model: LVLM, datamodule: ShardDataModule, data: ShardSet
) -> ReferenceLogProbs:
    """Run the model, as it is before training, over both splits."""
    place, was_training = device(job.cfg.trainer), model.training
    half = torch.autocast(
        place.type, dtype=torch.bfloat16, enabled=job.cfg.trainer.precision == "bf16-mixed"
    )
    found = ReferenceLogProbs()
    model.eval().to(place)
    for steps in _splits(job, datamodule, data):
        assert steps.stop is not None
        with Bar("reference log-probabilities", total=steps.stop) as bar:
            for step in steps:
                assert isinstance(step, Step)  # made in this process
                for batch in (b.to(place) for b in step.batches):
                    with half:
                        found.add(batch, log_probs(model, batch))
                bar.update(step.groups)
    model.train(was_training)
    return found


def log_probs(model: LVLM, batch: TokenBatch) -> torch.Tensor:
    (found,) = model(batch, target_log_probs)
    return found


def _splits(job: Job, datamodule: ShardDataModule, data: ShardSet) -> Iterator[StepStream]:
    for split in ("train", "validation"):
        stream = GroupStream(
            directory=below(data.location, split), seed=0, shuffle=False, cache=cache(job.cfg)
        )
        yield StepStream(
            stream=stream,
            encoder=datamodule.encoder,
            collator=datamodule.collator,
            groups_per_step=datamodule.groups_per_step,
            stop=len(stream),
        )
