"""Annotation split over processes: the union equals the single run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from test_main_job import TINY, Done, Sandbox

from dress.data.shard_index import ShardIndex, read_all
from dress.jobs.respond import stored
from dress.types import Sample

SPLIT = ["experiment=dress_feedback", *TINY, "feedback.chunk=10"]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    box = Sandbox(tmp_path_factory.mktemp("parts"))
    box.prepare()
    return box


def records(done: Done, split: str) -> dict[str, Sample]:
    index = ShardIndex.open(done.artifact.path / split)
    groups = [g for shard, n in enumerate(index.groups) for g in index.read_groups(shard, 0, n)]
    return {group.id: group for group in groups if isinstance(group, Sample)}


@pytest.mark.slow
def test_two_processes_make_what_one_makes(sandbox: Sandbox) -> None:
    whole = sandbox.run_forked(*SPLIT)  # 40 prompts, four chunks
    with ThreadPoolExecutor() as pool:
        parts = [
            pool.submit(sandbox.run_forked, *SPLIT, "feedback.parts=2", f"feedback.part={part}")
            for part in (0, 1)
        ]
        first, second = (part.result() for part in parts)
    assert len(records(first, "train")) < len(records(whole, "train"))
    joined = sandbox.run_forked(*SPLIT, "feedback.parts=2")
    assert "sampling responses" not in joined.output
    assert set(joined.artifact.lineage["parents"]) == {"part_0", "part_1"}
    for split in ("train", "validation"):
        assert records(joined, split) == records(whole, split)
    everything = [records(done, "train") | records(done, "validation") for done in (first, second)]
    assert not set(everything[0]) & set(everything[1])
    assert everything[0] | everything[1] == records(whole, "train") | records(whole, "validation")
    assert joined.artifact.metrics == whole.artifact.metrics


def test_a_part_of_the_prompts_is_of_both_splits(sandbox: Sandbox) -> None:
    sizes = ["experiment=dress_prompts", *TINY, "data.sizes.prompts=400"]
    prompts = sandbox.run_forked(*sizes, "data.validation_share=0.05").artifact
    samples = list(stored(prompts))
    assert len({sample.id for sample in samples}) == 400
    held_out = {sample.id for sample in read_all(prompts.path / "validation")}
    for start in range(0, 400, 100):
        share = sum(sample.id in held_out for sample in samples[start : start + 100])
        assert abs(share - len(held_out) / 4) < 1
    assert samples[0].id in held_out
