"""Bad data ends a job with one sentence that names the place, and leaves nothing half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from own_data import half_written, run_job

from dress.errors import InputError
from tests.data.coco_files import IMAGES, write_coco
from tests.data.nlf_files import nlf_row, write_nlf
from tests.data.test_source_vlsafe import ROWS
from tests.processes import Process

PROJECT = Path(__file__).parents[2]
STAGE_2 = "experiment=dress_stage2"


def sentence(tmp_path: Path, *overrides: str) -> str:
    """Return the one sentence that a run ends with."""
    with pytest.raises(Exception) as caught:
        run_job(tmp_path, STAGE_2, *overrides)
    error: BaseException | None = caught.value
    while error and not isinstance(error, InputError):  # Hydra wraps what a constructor raises
        error = error.__cause__
    assert error, caught.value
    text = str(error)
    assert "\n" not in text and text.endswith(".")
    assert not half_written(tmp_path)
    return text


def photographs(tmp_path: Path, images: dict[int, Any] | None = None) -> Path:
    root = write_coco(tmp_path / "data", images)
    (root / "vlsafe").mkdir()
    rows = "\n".join(map(json.dumps, ROWS))
    (root / "vlsafe/harmlessnss_alignment.jsonl").write_text(rows)
    return root


def of_photographs(tmp_path: Path, *overrides: str) -> str:
    return sentence(tmp_path, "data=photographs", "source.image_fallback=true", *overrides)


def of_dialogues(tmp_path: Path, rows: list[dict[str, Any]], *overrides: str) -> str:
    write_nlf(tmp_path / "data", rows)
    return sentence(tmp_path, "data=lvlm_nlf", *overrides)


@pytest.mark.parametrize("data", ["photographs", "lvlm_nlf"])
@pytest.mark.parametrize("root", ["null", "/nowhere"])
def test_a_missing_root(tmp_path: Path, data: str, root: str) -> None:
    assert "give data.root=" in sentence(tmp_path, f"data={data}", f"data.root={root}")


@pytest.mark.parametrize("name", ["captions", "instances"])
def test_annotations_that_are_not_json(tmp_path: Path, name: str) -> None:
    path = photographs(tmp_path) / f"coco/{name}.json"
    path.write_text('{"images": [}')
    text = of_photographs(tmp_path)
    assert str(path) in text and "not JSON, line 1, column 13" in text


def test_a_line_that_is_not_json(tmp_path: Path) -> None:
    path = photographs(tmp_path) / "vlsafe/harmlessnss_alignment.jsonl"
    path.write_text(path.read_text() + "\n{")
    assert f"{path}, line 3, is not a JSON object" in of_photographs(tmp_path)
    path = write_nlf(tmp_path / "data", [nlf_row(0)])
    path.write_text(path.read_text() + "nonsense")
    assert f"{path}, line 2, is not a JSON object" in sentence(tmp_path, "data=lvlm_nlf")


def test_a_missing_photograph(tmp_path: Path) -> None:
    path = photographs(tmp_path) / "coco/images/002.jpg"
    path.unlink()
    text = of_photographs(tmp_path)
    assert f"{path}, key coco/coco-candidates-2: missing image" in text
    assert "data.max_rejects" in text


def test_a_truncated_photograph(tmp_path: Path) -> None:
    path = photographs(tmp_path) / "coco/images/002.jpg"
    path.write_bytes(path.read_bytes()[:500])
    assert f"{path}, key coco/coco-candidates-2: unreadable image" in of_photographs(tmp_path)


def test_absent_photographs_of_vlsafe(tmp_path: Path) -> None:
    photographs(tmp_path)
    text = sentence(tmp_path, "data=photographs")
    assert "001.jpg" in text and "missing image" in text


def test_one_reject_may_be_allowed(tmp_path: Path) -> None:
    (photographs(tmp_path) / "coco/images/002.jpg").unlink()
    fallback = ["data=photographs", "source.image_fallback=true"]
    artifact = run_job(tmp_path, STAGE_2, *fallback, "data.max_rejects=1")
    assert artifact.metrics["val/loss"] > 0


def test_an_empty_split(tmp_path: Path) -> None:
    path = photographs(tmp_path) / "coco/captions.json"
    text = of_photographs(tmp_path, "data.validation_share=0")
    assert "the validation split is empty" in text
    text = of_photographs(tmp_path, "data.validation_share=1")
    assert "the train split is empty" in text
    path.write_text(json.dumps({"images": [], "annotations": []}))
    assert f"{path} lists no images" in of_photographs(tmp_path)


def test_one_image_alone_cannot_be_split(tmp_path: Path) -> None:
    photographs(tmp_path, {1: IMAGES[1]})
    assert "split is empty" in of_photographs(tmp_path)


def test_a_rating_of_seven(tmp_path: Path) -> None:
    rows = [nlf_row(number) for number in range(6)]
    rows[3]["interaction"][1]["rating"] = 7
    text = of_dialogues(tmp_path, rows)
    assert "nlf.jsonl, line 4" in text
    assert "interaction[1].rating is 7, not a whole number from 1 to 4" in text


def test_a_text_longer_than_the_context(tmp_path: Path) -> None:
    rows = [nlf_row(number) for number in range(6)]
    rows[2]["interaction"][0]["user"] = "word " * 3000
    text = of_dialogues(tmp_path, rows)
    assert "nlf.jsonl-candidates-000003" in text
    assert "too long (max_length is 512 tokens)" in text


def test_the_command_line_prints_it_and_ends_with_1(tmp_path: Path) -> None:
    artifacts = tmp_path / "artifacts"
    command = [STAGE_2, "data=lvlm_nlf", "init_from=random", "logger=local"]
    process = Process(
        PROJECT / "run.py", [*command, f"paths.artifacts={artifacts}"], environment=os.environ
    )
    _, errors = process.communicate(120)
    assert process.returncode == 1
    (line,) = errors.strip().splitlines()
    assert line.startswith("error: data.root is 'None'")
    assert [path.name for path in artifacts.iterdir()] == ["hydra"]
