"""job=shards: a part of a source to WebDataset shards, split by image into train and validation."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import Artifact
from dress.data.conversion import Items, converted
from dress.data.overlap import overlaps, read_evaluation_set
from dress.data.rejects import Rejects
from dress.data.shard_index import read_all
from dress.data.sources.source import Source
from dress.data.split import SPLITS, SplitWriter
from dress.errors import Reject
from dress.jobs.job import Job
from dress.jobs.shard_checks import describe_shards, verify_shards
from dress.progress import Bar
from dress.types import Sample

JOURNAL = "conversion.json"
SAVE_EVERY_S = 5.0

logger = logging.getLogger(__name__)


def run(job: Job) -> Artifact | None:
    if job.cfg.verify is not None and not job.is_parent:
        verify_shards(job)
        return None
    if job.cfg.stats is not None and not job.is_parent:
        return describe_shards(job)
    return build(job)


def build(job: Job) -> Artifact:
    evaluations = [read_evaluation_set(Path(path)) for path in job.cfg.shards.evaluation_sets]
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
    with job.building(
        kind="shards", nodes=nodes, parents={}, inputs=source.inputs(), keep_partial=True
    ) as building:
        if not building.reused:
            counts = convert(job, source, building.path, journal=building.scratch / JOURNAL)
            building.write_metrics({f"shards/{split}": n for split, n in counts.items()})
    assert building.artifact is not None
    if evaluations:
        path = building.artifact.path
        stored = chain.from_iterable(read_all(path / split) for split in SPLITS)
        for overlap in overlaps(stored, evaluations):
            logger.warning("warning: of %s %s", path.name, overlap)
    return building.artifact


def convert(job: Job, source: Source, directory: Path, *, journal: Path) -> dict[str, int]:
    """Write both splits, going on where the journal says that an earlier process stopped."""
    rejects = Rejects(max_rejects=job.cfg.data.max_rejects)
    share = job.cfg.data.validation_share
    writer = SplitWriter(
        directory,
        validation_share=share,
        rejects=rejects,
        journal=journal,
        save_every_s=SAVE_EVERY_S,
    )
    if writer.next_row:
        print(f"{writer.next_row} rows were converted before", flush=True)
    rows = converted(source, job.cfg.part, workers=job.cfg.shards.workers, first=writer.next_row)
    counts = writer.write(_shown(rows, f"shards of {job.cfg.part}", rejects))
    print(described(counts, rejects), flush=True)
    return counts


def _shown(rows: Iterable[Items], title: str, rejects: Rejects) -> Iterator[Items]:
    with Bar(title) as shown:
        for row in rows:
            yield row
            shown.update(len(row), f"{rejects.count} rejected" if rejects.count else None)


def write_split(
    samples: Iterable[Sample | Reject],
    directory: Path,
    *,
    validation_share: float,
    rejects: Rejects,
) -> dict[str, int]:
    """Write `directory/train` and `directory/validation`; return the number of groups of each."""
    writer = SplitWriter(directory, validation_share=validation_share, rejects=rejects)
    return writer.write((sample,) for sample in samples)


def described(counts: Mapping[str, int], rejects: Rejects) -> str:
    groups = " and ".join(f"{count} {split}" for split, count in counts.items())
    if not rejects.count:
        return f"{groups} groups"
    reasons = ", ".join(f"{count} {reason}" for reason, count in rejects.by_reason.items())
    return f"{groups} groups, {rejects.count} rejected ({reasons}; first {rejects.first})"
