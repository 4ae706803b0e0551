"""job=shards: a part of a source to WebDataset shards, split by image into train and validation.

verify=<dir> asks whether shards are whole instead, stats=<dir> what they hold.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from hydra.utils import instantiate

from dress.artifact import MARKER, Artifact
from dress.data.conversion import Items, Workers, converted
from dress.data.overlap import overlaps, read_evaluation_set
from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex, read_all, splits_of, verify
from dress.data.sources.source import Source
from dress.data.split import SPLITS, SplitWriter
from dress.errors import Reject
from dress.files import write_text
from dress.jobs.job import Job
from dress.progress import Bar
from dress.reporting.shards_page import Chosen, ShardStatistics, choose, shards_page
from dress.settings import Whole
from dress.types import Sample

JOURNAL = "conversion.json"
PAGE, TEXT = "shards.html", "shards.txt"
SAVE_EVERY_S = 5.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Working:
    """How shards are made and looked at (conf/shards)."""

    workers: Workers
    evaluation_sets: Sequence[str]
    pictures: Whole


def run(job: Job) -> Artifact | None:
    if job.cfg.verify is not None and not job.is_parent:
        verify_shards(job)
        return None
    if job.cfg.stats is not None and not job.is_parent:
        return describe_shards(job)
    return build(job)


def build(job: Job) -> Artifact:
    sets = Working(**job.node("shards")).evaluation_sets
    evaluations = [read_evaluation_set(Path(path)) for path in sets]
    source: Source = instantiate(job.cfg.source, _convert_="all")
    # files count by their content, wherever they lie
    described_source = {k: v for k, v in job.node("source").items() if k != "root"}
    if "sizes" in described_source:
        described_source["sizes"] = described_source["sizes"].get(job.cfg.part)
    if job.cfg.part != "questions":
        described_source.pop("held_out_seed", None)
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
    workers = Working(**job.node("shards")).workers
    rows = converted(source, job.cfg.part, workers=workers, first=writer.next_row)
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


def verify_shards(job: Job) -> None:
    """Check every group; print one line, or raise InputError at the first fault."""
    directory = Path(job.cfg.verify)
    if (directory / MARKER).exists():
        Artifact.open(directory)
    splits = splits_of(directory)
    total = sum(len(ShardIndex.open(path)) for path in splits.values())
    with Bar(f"verifying {directory}", total) as shown:
        counts = {name: verify(path, on_group=shown.update) for name, path in splits.items()}
    groups = " and ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{directory} is whole: {groups} groups", flush=True)


def describe_shards(job: Job) -> Artifact:
    """Build an artifact that holds the tables as text and a page of groups with their images."""
    directory, count = Path(job.cfg.stats), Working(**job.node("shards")).pictures
    splits = splits_of(directory)
    indices = {name: ShardIndex.open(path) for name, path in splits.items()}
    inputs = {name: index.fingerprint for name, index in indices.items()}
    with job.building(
        kind="statistics", nodes={"pictures": count}, parents={}, inputs=inputs, name="shards"
    ) as building:
        if not building.reused:
            total = sum(map(len, indices.values()))
            _describe(directory, splits, building.path, total=total, count=count)
    print((building.artifact.path / TEXT).read_text(encoding="utf-8"), flush=True)
    print(f"page: {building.artifact.path / PAGE}", flush=True)
    return building.artifact


def _describe(
    directory: Path, splits: Mapping[str, Path], out: Path, *, total: int, count: int
) -> None:
    statistics, chosen = ShardStatistics(), Chosen()
    with Bar(f"reading {directory}", total) as shown:
        for name, path in splits.items():
            for sample in read_all(path):
                statistics.add(name, sample)
                choose(chosen, name, sample, count=count)
                shown.update()
    tables = statistics.tables()
    write_text(out / TEXT, "\n\n".join(map(str, tables)) + "\n")
    write_text(out / PAGE, shards_page(str(directory), tables, chosen))
