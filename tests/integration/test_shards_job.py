"""job=shards as a user runs it: in processes, again, after an interruption, beside evaluations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from own_data import half_written, run_job

from dress.artifact import Artifact
from dress.data.shard_index import read_all
from dress.errors import InputError
from dress.fingerprint import content_hash
from tests.data.coco_files import shared_data
from tests.data.nlf_files import nlf_row, write_nlf
from tests.data.released_rows import llava_row, vlfeedback_row, write_rows

LLAVA = ("experiment=dress_instructions", "data=llava_instruct", "data.max_rejects=0")


def write(tmp_path: Path, count: int = 60) -> Path:
    rows = [llava_row(number) for number in range(count)]
    return write_rows(tmp_path / "data", rows, name="llava_instruct_150k.json", images="train2017")


def payload(artifact: Artifact) -> dict[str, bytes]:
    files = (
        path for split in ("train", "validation") for path in (artifact.path / split).iterdir()
    )
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in files}


def test_workers_change_neither_the_name_nor_a_byte(tmp_path: Path) -> None:
    write(tmp_path)
    alone = run_job(tmp_path, *LLAVA)
    before = payload(alone)
    together = run_job(tmp_path, *LLAVA, "shards.workers=2", "fresh=true")
    assert together.path == alone.path
    assert payload(together) == before
    assert sum(alone.metrics.values()) == 60


def test_an_interrupted_conversion_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, 300)
    whole = run_job(tmp_path / "other", *LLAVA, f"data.root={tmp_path / 'data'}")
    monkeypatch.setattr("dress.jobs.shards.SAVE_EVERY_S", 0.0)

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("dress.data.split.SplitWriter._check_filled", stop)
        with pytest.raises(KeyboardInterrupt):
            run_job(tmp_path, *LLAVA)
    assert half_written(tmp_path) == [f"{whole.path.name}.partial"]
    capsys.readouterr()
    artifact = run_job(tmp_path, *LLAVA)
    assert "resuming" in (out := capsys.readouterr().out) and "rows were converted before" in out
    assert payload(artifact) == payload(whole)
    assert not half_written(tmp_path) and not (artifact.path / "scratch").exists()
    assert run_job(tmp_path, *LLAVA).path == artifact.path
    assert "exists (fresh=true builds it again)" in capsys.readouterr().out


def test_rejects_are_reported_by_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, 30)
    rows = [*json.loads(path.read_text()), llava_row(1, image=None), llava_row(2, image="no.jpg")]
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=r"1 of 31 groups were rejected.*row 31, key llava-"):
        run_job(tmp_path, *LLAVA)
    run_job(tmp_path, *LLAVA, "data.max_rejects=2")
    assert "2 rejected (1 image markers, 1 missing image; first " in capsys.readouterr().out


def test_what_evaluations_share_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [vlfeedback_row(n, prompt=f"What is {n}?") for n in range(12)]
    write_rows(tmp_path / "data", rows, name="vlfeedback_80k.jsonl", images="merged_images")
    held = tmp_path / "held_out.jsonl"
    held.write_text('{"image": "3.jpg", "text": "Else?"}\n{"image": "x.jpg", "text": "what is 4?"}')
    typed = ["experiment=dress_prompts", "data=vlfeedback", f"shards.evaluation_sets=[{held}]"]
    for _ in range(2):  # also where the shards exist already
        caplog.clear()
        artifact = run_job(tmp_path, *typed)
        (record,) = caplog.records
        assert record.getMessage().startswith(
            f"warning: of {artifact.path.name} 2 groups share something with held_out.jsonl: "
            "1 an image, 1 a question, first vlfeedback-prompts-00000"
        )


@pytest.mark.parametrize(
    ("photographs", "requests"), [(12, 20), pytest.param(72, 600, marks=pytest.mark.slow)]
)
def test_annotated_photographs_to_lvlm_nlf_and_back_are_the_same_shards(
    tmp_path: Path, photographs: int, requests: int
) -> None:
    """Real rows: COCO's photographs, at last all that are there, and VLSafe's first requests."""
    last = run_job(
        tmp_path,
        "experiment=dress_feedback",
        "data=photographs",
        f"data.root={shared_data()}",
        "source.image_fallback=true",
        f"data.limit={photographs}",
        f"data.vlsafe_limit={requests}",
    )
    written: list[Artifact] = []
    for _ in range(2):
        last = run_job(
            tmp_path,
            "experiment=dress_feedback",
            "data=lvlm_nlf",
            f"data.root={last.path / 'lvlm_nlf'}",
            "data.files=[honesty_nlf.jsonl,harmlessness_nlf.jsonl,helpfulness_nlf.jsonl]",
        )
        written.append(last)
    first, second = written
    assert payload(first) == payload(second)
    groups = sum(1 for split in ("train", "validation") for _ in read_all(first.path / split))
    assert groups == 3 * (photographs * 3 + requests * 2)  # an aspect of a dialogue is a row


def test_shards_to_lvlm_nlf_and_back_are_the_same_shards(tmp_path: Path) -> None:
    """As released: three files of which each judges one aspect, images by name, some in two."""
    odd: list[dict[str, Any]] = [
        {"image_id": "both.jpg"},
        {"caption": ["One.", "Two."]},
        {"caption": ""},
        {"caption": None},
        {"interaction": nlf_row(3)["interaction"][:1]},
        {"interaction": [nlf_row(3)["interaction"][0] | {"user": " Why?\n", "rating": " 3 "}]},
    ]
    for place, name in enumerate(("hallucination", "harmlessness", "helpfulness")):
        changes = odd + [{}] * (20 - len(odd))
        rows = [nlf_row(20 * place + n, **change) for n, change in enumerate(changes)]
        write_nlf(tmp_path / "data", rows, f"LVLM_NLF/{name}_nlf.jsonl")
    first = run_job(
        tmp_path, "experiment=dress_feedback", "data=lvlm_nlf", "data.files=[LVLM_NLF/*_nlf.jsonl]"
    )
    written = [f"{name}_nlf.jsonl" for name in ("honesty", "harmlessness", "helpfulness")]
    second = run_job(
        tmp_path,
        "experiment=dress_feedback",
        "data=lvlm_nlf",
        f"data.root={first.path / 'lvlm_nlf'}",
        f"data.files=[{','.join(written)}]",
    )
    assert second.path != first.path
    assert payload(second) == payload(first)
    assert sum(1 for split in ("train", "validation") for _ in read_all(first.path / split)) == 60
    for name in (*written, "images"):
        assert content_hash(first.path / "lvlm_nlf" / name) == content_hash(
            second.path / "lvlm_nlf" / name
        )
