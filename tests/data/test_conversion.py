"""Conversion in several processes, and after a kill: the same bytes as without either."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dress.data import conversion
from dress.data.conversion import CHUNK, converted
from dress.data.shard_index import verify
from dress.data.sources.llava_prompts import LlavaPromptsSource
from dress.errors import InputError, Reject
from dress.files import read_json
from dress.types import Sample
from tests.data import numbered
from tests.data.numbered import Numbered, convert
from tests.data.released_rows import llava_row, message, prompt_row, write_rows
from tests.processes import Process


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "journal.json"
    }


@pytest.mark.parametrize("count", [0, 1, CHUNK, 3 * CHUNK + 5])
def test_rows_come_in_order_whoever_converts_them(count: int) -> None:
    source = Numbered(count)
    expected = [tuple(source.convert("prompts", row)) for row in range(count)]
    for workers, first in ((0, 0), (0, 7), (1, 7), (3, 0)):
        found = list(converted(source, "prompts", workers=workers, first=first))
        assert [[str(i) for i in row] for row in found] == [
            [str(i) for i in row] for row in expected[first:]
        ], (workers, first)


@pytest.mark.parametrize("cpus", [1, 3])
@pytest.mark.parametrize("count", [0, 39, 40, 41, 150])
def test_further_processes_take_over_where_rows_are_many(
    count: int, cpus: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    def watched(*args: Any, workers: int, first: int) -> Iterator[conversion.Items]:
        started.append(workers)
        return in_processes(*args, workers=workers, first=first)

    in_processes = conversion._in_processes
    monkeypatch.setattr(conversion, "FEW", 40)
    monkeypatch.setattr(conversion, "MOST", 2)
    monkeypatch.setattr(conversion, "_cpus", lambda: cpus)
    monkeypatch.setattr(conversion, "_in_processes", watched)
    source = Numbered(count)
    for first in (0, 7):
        found = list(converted(source, "prompts", workers="auto", first=first))
        expected = list(converted(source, "prompts", workers=0, first=first))
        assert [list(map(str, row)) for row in found] == [list(map(str, row)) for row in expected]
    assert started == [2] * sum(count > 40 + first for first in (0, 7) if cpus > 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_no_shard_can_hold_is_a_reject_of_its_row(tmp_path: Path, workers: int) -> None:
    rows = [
        prompt_row(1, conversations=[message("human", "Who \udc00?"), message("gpt", "He.")]),
        prompt_row(2),
        llava_row(3, conversations=[message("human", "Why \ud83d?"), message("gpt", "So.")]),
    ]
    write_rows(tmp_path, rows, name="rows.json", images="images")
    source = LlavaPromptsSource(root=str(tmp_path), file="rows.json", images="images")
    items = [item for row in converted(source, "prompts", workers=workers) for item in row]
    assert [str(item) for item in items if isinstance(item, Reject)] == [
        f"part prompts, key ppo-prompts-000000{number}: invalid record (dialogues[0][0].user holds "
        "half a surrogate pair)"
        for number in (1, 3)
    ]
    assert [item.id for item in items if isinstance(item, Sample)] == ["ppo-prompts-0000002"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_in_a_process_is_the_users_sentence(workers: int) -> None:
    with pytest.raises(InputError, match="row 40 is broken"):
        list(converted(Numbered(100, fault=40), "prompts", workers=workers))
    with pytest.raises((KeyError, RuntimeError), match="40"):
        list(converted(Numbered(100, bug=40), "prompts", workers=workers))


def test_a_process_that_dies_ends_the_conversion() -> None:
    with pytest.raises(InputError, match="ended from outside"):
        list(converted(Numbered(200, end=70), "prompts", workers=2))


def test_shards_have_the_same_bytes_whatever_the_workers(tmp_path: Path) -> None:
    counted = {convert(tmp_path / str(w), Numbered(900), workers=w) for w in (0, 3)}
    assert len(counted) == 1
    assert contents(tmp_path / "0") == contents(tmp_path / "3")
    assert len(contents(tmp_path / "0")) == 2 * 3  # one shard, its offsets and the index of each
    assert {verify(tmp_path / "0" / split) for split in ("train", "validation")} != {0}


@pytest.mark.parametrize("save_every_s", [0.0, 0.005, 1e9])
def test_what_stops_anywhere_goes_on_to_the_same_bytes(tmp_path: Path, save_every_s: float) -> None:
    count = 1700  # as many groups: a finished shard of 1,000, and unfinished ones
    expected = convert(tmp_path / "whole", Numbered(count))
    rng = random.Random(save_every_s)
    for stop in sorted(rng.sample(range(count), 4)):
        with pytest.raises(KeyError):
            convert(tmp_path / "parts", Numbered(count, bug=stop), save_every_s=save_every_s)
    found = convert(tmp_path / "parts", Numbered(count), save_every_s=save_every_s)
    assert found == expected
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert (tmp_path / "parts/journal.json").exists() == (save_every_s < 1)


def test_a_finished_shard_is_kept(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        convert(tmp_path, Numbered(1700, bug=1650))
    shard = tmp_path / "train/shard-000000.tar"
    before = shard.stat().st_mtime_ns
    convert(tmp_path, Numbered(1700))
    assert shard.stat().st_mtime_ns == before


def test_kill_9_at_any_time_loses_nothing(tmp_path: Path) -> None:
    expected = convert(tmp_path / "whole", Numbered(1700), save_every_s=1e9)
    script, command = Path(numbered.__file__), [str(tmp_path / "killed")]
    rng, journal = random.Random(0), tmp_path / "killed/journal.json"
    for reached in (250, 700, 1300):
        process = Process(script, command, environment=os.environ)
        while read_json(journal).get("next_row", 0) < reached:
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        (tmp_path / "killed/.journal.json.1.tmp").write_text("{")  # as if killed while writing it
    output, errors = Process(script, command, environment=os.environ).communicate(120)
    assert output.strip() == expected, errors
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
