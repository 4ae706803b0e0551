"""verify=<dir> and stats=<dir> as they are typed, on shards of every released format."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from own_data import CONF, run_job

from dress.artifact import Artifact
from dress.data.shard_index import splits_of, verify
from tests.data.released_rows import llava_row, preference_row, vlfeedback_row, write_rows
from tests.processes import Process

ROWS = {
    "llava_instruct": (llava_row, "llava_instruct_150k.json", "train2017", "instructions"),
    "llava_preference": (preference_row, "llava_7b_v1_preference.json", "train2017", "candidates"),
    "vlfeedback": (vlfeedback_row, "vlfeedback_80k.jsonl", "merged_images", "candidates"),
}


def shards(tmp_path: Path, data: str, count: int = 12) -> Artifact:
    row, name, images, part = ROWS[data]
    write_rows(tmp_path / "data", [row(n) for n in range(count)], name=name, images=images)
    experiment = f"experiment=dress_{part}"
    return run_job(tmp_path, experiment, f"data={data}", "data.max_rejects=0")


def typed(tmp_path: Path, *words: str) -> tuple[int | None, str, str]:
    command = ["job=shards", *words, f"paths.artifacts={tmp_path / 'artifacts'}"]
    process = Process(CONF.parent / "run.py", command, environment=os.environ)
    output, errors = process.communicate(120)
    return process.returncode, output, errors


@pytest.mark.parametrize("data", ROWS)
def test_a_released_format_becomes_shards_that_are_whole(tmp_path: Path, data: str) -> None:
    artifact = shards(tmp_path, data)
    assert sum(artifact.metrics[f"shards/{s}"] for s in ("train", "validation")) == 12
    assert sum(verify(path) for path in splits_of(artifact.path).values()) == 12


def test_what_is_printed_and_how_it_ends(tmp_path: Path) -> None:
    artifact = shards(tmp_path, "vlfeedback")
    code, output, errors = typed(tmp_path, f"verify={artifact.path}")
    assert code == 0, errors
    train, validation = (int(artifact.metrics[f"shards/{s}"]) for s in ("train", "validation"))
    expected = f"{artifact.path} is whole: {train} train and {validation} validation groups"
    assert expected in output
    shard = artifact.path / "train/shard-000000.tar"
    data = bytearray(shard.read_bytes())
    data[600] ^= 255
    shard.write_bytes(data)
    code, _, errors = typed(tmp_path, f"verify={artifact.path}")
    assert code == 1
    assert errors == f"error: {shard} was altered: build the shards again.\n"


def test_a_page_shows_groups_with_their_images(tmp_path: Path) -> None:
    artifact = shards(tmp_path, "vlfeedback")
    page = run_job(
        tmp_path, "job=shards", "data=vlfeedback", f"stats={artifact.path}", "shards.pictures=5"
    )
    text = (page.path / "shards.txt").read_text()
    # three of four responses are rated; helpfulness 1, 5 and 3 become 1, 4 and 2
    rows = {line.split("  ")[0]: line.split()[1:] for line in text.splitlines() if line}
    assert sum(map(int, rows["dialogues"])) == 36
    assert rows["helpfulness"] == ["12", "12", "0", "12", "2.33"]
    assert rows["harmlessness"] == ["0", "0", "0", "24", "4.00"]
    html = (page.path / "shards.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 5
    assert html.count("A good one.") == 5 and "helpfulness 4: Helpfulness of b." in html
    assert "://" not in html and "<script" not in html
    again = run_job(
        tmp_path, "job=shards", "data=vlfeedback", f"stats={artifact.path}", "shards.pictures=5"
    )
    assert again.path == page.path


def test_texts_of_the_data_are_escaped(tmp_path: Path) -> None:
    row = vlfeedback_row(1, prompt="<img src=x onerror=alert(1)>")
    rows = [vlfeedback_row(2), row]
    write_rows(tmp_path / "data", rows, name="vlfeedback_80k.jsonl", images="merged_images")
    artifact = run_job(tmp_path, "experiment=dress_candidates", "data=vlfeedback")
    page = run_job(tmp_path, "job=shards", "data=vlfeedback", f"stats={artifact.path}")
    html = (page.path / "shards.html").read_text()
    assert "<img src=x" not in html and "&lt;img src=x" in html
