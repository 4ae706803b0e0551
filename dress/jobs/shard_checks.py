"""job=shards verify=<dir> and stats=<dir>: are shards whole, and what do they hold?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from dress.artifact import MARKER, Artifact
from dress.data.shard_index import ShardIndex, read_all, splits_of, verify
from dress.files import write_text
from dress.jobs.job import Job
from dress.progress import Bar
from dress.reporting.shards_page import ShardStatistics

PAGE, TEXT = "shards.html", "shards.txt"


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
    directory, count = Path(job.cfg.stats), int(job.cfg.shards.pictures)
    splits = splits_of(directory)
    indices = {name: ShardIndex.open(path) for name, path in splits.items()}
    inputs = {name: index.fingerprint for name, index in indices.items()}
    with job.building(
        kind="statistics", nodes={"pictures": count}, parents={}, inputs=inputs, name="shards"
    ) as building:
        if not building.reused:
            total = sum(map(len, indices.values()))
            _describe(directory, splits, building.path, total=total, count=count)
    assert building.artifact is not None
    print((building.artifact.path / TEXT).read_text(encoding="utf-8"), flush=True)
    print(f"page: {building.artifact.path / PAGE}", flush=True)
    return building.artifact


def _describe(
    directory: Path, splits: Mapping[str, Path], out: Path, *, total: int, count: int
) -> None:
    from dress.reporting.shards_page import Chosen, choose, shards_page

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
