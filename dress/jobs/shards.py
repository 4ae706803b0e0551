"""job=shards: a part of a source to WebDataset shards, split by image into train and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.data.rejects import Reject, Rejects
from dress.data.shards import ShardWriter
from dress.data.sources.source import Source
from dress.errors import InputError
from dress.jobs.job import Job
from dress.jobs.progress import progress
from dress.jobs.shard_checks import describe_shards, verify_shards
from dress.types import Sample

SPLITS = ("train", "validation")
_SMALL = 200  # groups below which the hash may by chance leave no image for validation


def run(job: Job) -> Artifact | None:
    if job.cfg.verify is not None and not job.is_parent:
        verify_shards(job)
        return None
    if job.cfg.stats is not None and not job.is_parent:
        return describe_shards(job)
    return build(job)


def build(job: Job) -> Artifact:
    source: Source = instantiate(job.cfg.source, _convert_="all")
    # files count by their content, wherever they lie
    described_source = {k: v for k, v in job.node("source").items() if k != "root"}
    if "sizes" in described_source:
        described_source["sizes"] = described_source["sizes"].get(job.cfg.part)
    nodes = {
        "source": described_source,
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
            print(described(counts, rejects), flush=True)
            building.write_metrics({f"shards/{split}": n for split, n in counts.items()})
    assert building.artifact is not None
    return building.artifact


def write_split(
    samples: Iterable[Sample | Reject],
    directory: Path,
    *,
    validation_share: float,
    rejects: Rejects,
) -> dict[str, int]:
    """Write `directory/train` and `directory/validation`; return the number of groups of each."""
    usable = _usable(samples, rejects)
    head = list(islice(usable, _SMALL))
    share = _widened(validation_share, head) if len(head) < _SMALL else validation_share
    counts = dict.fromkeys(SPLITS, 0)
    with ExitStack() as stack:
        writers = {s: stack.enter_context(ShardWriter(directory / s)) for s in SPLITS}
        for sample in chain(head, usable):
            split = split_of(sample, share)
            writers[split].write(sample)
            counts[split] += 1
        for split, count in counts.items():
            if count == 0:
                raise InputError(
                    f"the {split} split is empty: the source gives too few samples (or all were "
                    "rejected); enlarge it or change data.validation_share."
                )
    return counts


def described(counts: Mapping[str, int], rejects: Rejects) -> str:
    groups = " and ".join(f"{count} {split}" for split, count in counts.items())
    if not rejects.count:
        return f"{groups} groups"
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejects.by_reason.items())
    return f"{groups} groups, {rejects.count} rejected ({reasons}; first {rejects.first})"


def _usable(samples: Iterable[Sample | Reject], rejects: Rejects) -> Iterator[Sample]:
    for sample in samples:
        rejects.seen()
        if isinstance(sample, Reject):
            rejects.add(sample.where, sample.key, sample.reason, sample.detail)
        else:
            yield sample


def _widened(validation_share: float, samples: Sequence[Sample]) -> float:
    """Return a share that includes at least one image, unless none or only one image is there."""
    places = sorted({_place(sample) for sample in samples})
    if validation_share <= 0 or len(places) < 2:
        return validation_share
    return max(validation_share, places[1] if places[0] >= validation_share else 0.0)


def split_of(sample: Sample, validation_share: float) -> str:
    """Choose by the hash of the first image, so that no image stands on both sides."""
    return "validation" if _place(sample) < validation_share else "train"


def _place(sample: Sample) -> float:
    """Hash the first image to a number from 0 to 1."""
    key = sample.images[0] if sample.images else sample.id.encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big") / 2**64
