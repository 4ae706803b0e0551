"""What resuming costs: time and bytes to the first batch, memory over an epoch, opening an index.

    python benchmarks/resume_time.py --groups 1000000 --shards 100000 --out resume_time.json

Shards of tiny records are made in a temporary folder (about 1 KiB for each group). Everything is
measured in a process of its own; files come from the page cache, so this is the cost of the code.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from dress.data.rejects import Rejects
from dress.data.shard_index import ShardIndex
from dress.data.shard_writer import INDEX_NAME, ShardWriter, offsets_path
from dress.data.stream import GroupStream, StepLoader, StepStream
from dress.types import Dialogue, EncodedGroup, Sample, TokenBatch, Turn
from dress.version import code_version

GROUPS_PER_SHARD = 1000
GROUPS_PER_STEP = 10
POINTS = 40  # at which memory is read


def encode(sample: Sample, *, epoch: int) -> EncodedGroup:
    return EncodedGroup(sample.id, (), {})


def collate(groups: object) -> tuple[TokenBatch, ...]:
    return ()


def copies(folder: Path, *, shards: int, groups: int) -> Path:
    """Write one shard of so many groups and copy it, with an index of all."""
    with ShardWriter(folder, max_groups=groups) as writer:
        for number in range(groups):
            turns = (Turn(user=f"What is {number}?", model="A number."),)
            writer.write(Sample(f"group-{number}", (), (Dialogue(turns),)))
    (entry,) = json.loads((folder / INDEX_NAME).read_text())["shards"]
    first = folder / entry["file"]
    entries = [entry]
    for number in range(1, shards):
        shard = folder / f"shard-{number:06d}.tar"
        shutil.copyfile(first, shard)
        shutil.copyfile(offsets_path(first), offsets_path(shard))
        entries.append(entry | {"file": shard.name})
    index = {"schema": 1, "groups": shards * groups, "shards": entries}
    (folder / INDEX_NAME).write_text(json.dumps(index))
    return folder


def bytes_read() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def first_batch(folder: Path, group: int) -> dict[str, float]:
    """Open shards and make the step that begins at a group."""
    began, before = time.perf_counter(), bytes_read()
    stream = GroupStream(directory=folder, seed=0)
    opened = bytes_read()
    steps = StepStream(
        stream=stream,
        encoder=encode,  # type: ignore[arg-type]
        collator=collate,
        groups_per_step=GROUPS_PER_STEP,
        start_step=group // GROUPS_PER_STEP,
        stop=len(stream),
    )
    next(iter(StepLoader(steps=steps, rejects=Rejects())))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "index_bytes": opened - before, "data_bytes": bytes_read() - opened}


def memory(folder: Path) -> dict[str, float]:
    """Read an epoch; fit a line to the resident memory after its first tenth."""
    stream = GroupStream(directory=folder, seed=0)
    every = max(1, len(stream) // POINTS)
    places, resident = [], []
    began = time.perf_counter()
    for index in range(len(stream)):
        stream.fetch(index)
        if (index + 1) % every == 0:
            places.append(index + 1)
            resident.append(resident_bytes())
    seconds = time.perf_counter() - began
    late = slice(len(places) // 10, None)
    slope = float(np.polyfit(places[late], resident[late], 1)[0])
    return {
        "bytes_per_group": slope,
        "first_mb": resident[0] / 1e6,
        "last_mb": resident[-1] / 1e6,
        "groups_per_second": len(stream) / seconds,
    }


def opening(folder: Path) -> dict[str, float]:
    began = time.perf_counter()
    index = ShardIndex.open(folder)
    return {"seconds": time.perf_counter() - began, "shards": len(index.files)}


def measured(what: str, folder: Path, group: int = 0) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, str(folder), str(group)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def all_results(groups: int, shards: int) -> dict[str, Any]:
    results: dict[str, Any] = {
        "code_version": code_version(),
        "date": date.today().isoformat(),
        "groups": groups,
    }
    with tempfile.TemporaryDirectory(prefix="resume_time-") as name:
        many = copies(Path(name) / "a", shards=groups // GROUPS_PER_SHARD, groups=GROUPS_PER_SHARD)
        for group in (10, groups * 9 // 10, 10, groups * 9 // 10):  # again, all in the cache
            results[f"first batch at {group}"] = measured("first_batch", many, group)
        results["memory"] = measured("memory", many)
        shutil.rmtree(many)
        results["opening"] = measured("opening", copies(Path(name) / "b", shards=shards, groups=1))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--groups", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        what, folder, group = given.measure
        if what == "first_batch":
            print(json.dumps(first_batch(Path(folder), int(group))))
        else:
            print(json.dumps({"memory": memory, "opening": opening}[what](Path(folder))))
        return
    results = all_results(given.groups, given.shards)
    text = json.dumps(results, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
