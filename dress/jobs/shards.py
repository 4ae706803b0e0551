"""job=shards: a part of a source to WebDataset shards, split by image into train and validation."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.data.rejects import Reject, Rejects
from dress.data.shards import ShardWriter
from dress.data.sources.source import Source
from dress.errors import InputError
from dress.jobs.job import Job
from dress.jobs.progress import progress
from dress.types import Sample

SPLITS = ("train", "validation")


def run(job: Job) -> Artifact:
    source: Source = instantiate(job.cfg.source, _convert_="all")
    nodes = {
        "source": job.node("source"),
        "part": job.cfg.part,
        "validation_share": job.cfg.data.validation_share,
    }
    with job.building(kind="shards", nodes=nodes, parents={}, inputs=source.inputs()) as building:
        if not building.reused:
            rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
            counts = write_split(
                progress(source.samples(job.cfg.part), f"shards of {job.cfg.part}"),
                building.path,
                validation_share=job.cfg.data.validation_share,
                rejects=rejects,
            )
            print(f"{counts} groups, rejects: {rejects.summary()}")
            building.write_metrics({f"shards/{split}": n for split, n in counts.items()})
    assert building.artifact is not None
    return building.artifact


def write_split(samples, directory: Path, *, validation_share: float, rejects: Rejects):
    """Write `directory/train` and `directory/validation`; return the number of groups of each."""
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        writers = {s: stack.enter_context(ShardWriter(directory / s)) for s in SPLITS}
        for sample in samples:
            rejects.seen()
            if isinstance(sample, Reject):
                rejects.add(sample.where, sample.key, sample.reason, sample.detail)
                continue
            split = split_of(sample, validation_share)
            writers[split].write(sample)
            counts[split] += 1
        for split, count in counts.items():
            if count == 0:
                raise InputError(
                    f"the {split} split is empty: the source gives too few samples (or all were "
                    "rejected); enlarge it or change data.validation_share."
                )
    return counts


def split_of(sample: Sample, validation_share: float) -> str:
    """Choose by the hash of the first image, so that no image stands on both sides."""
    key = sample.images[0] if sample.images else sample.id.encode()
    bucket = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64
    return "validation" if bucket < validation_share else "train"
