"""job=annotate with an annotator behind a chat server."""

from __future__ import annotations

from pathlib import Path

import pytest
from own_data import half_written, run_job

from dress.artifact import Artifact
from dress.errors import InputError
from tests.data.coco_files import write_coco
from tests.feedback.llm_server import Answer, LLMServer, judged

SECRET = "sk-this-must-be-nowhere-0123456789"


@pytest.fixture
def photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    write_coco(tmp_path / "data")
    return tmp_path


def annotate(tmp_path: Path, *overrides: str) -> Artifact:
    return run_job(
        tmp_path,
        "experiment=dress_feedback",
        "data=photographs",
        "source._target_=dress.data.sources.coco.CocoSource",
        *(f"~source.{key}" for key in ("vlsafe_images", "vlsafe_limit", "alignment")),
        "~source.image_fallback",
        "annotator=llm",
        "annotator.model=judge",
        *overrides,
    )


def test_the_job_asks_once_and_keeps_replies_and_figures(photographs: Path) -> None:
    with LLMServer() as server:
        artifact = annotate(photographs, f"annotator.base_url={server.url}")
        responses = artifact.metrics["feedback/responses"]
        assert responses == 9 and artifact.metrics["annotator/requests"] == len(server.bodies) == 9
        assert 1 <= artifact.metrics["feedback/honesty"] <= 4
        again = annotate(photographs, f"annotator.base_url={server.url}", "fresh=true")
        assert again.metrics["annotator/cached"] == 9 and len(server.bodies) == 9
    files = [path for path in photographs.rglob("*") if path.is_file()]
    assert len([path for path in files if path.parent.parent.name == "replies"]) == 9
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert set(server.keys) == {f"Bearer {SECRET}"}
    same = annotate(  # found: no server is there any more
        photographs,
        "annotator.base_url=http://127.0.0.1:1/v1",
        "annotator.concurrency=2",
        "annotator.timeout_s=3",
        "annotator.max_retries=0",
        "annotator.price_per_million={prompt: 1, completion: 1}",
        "annotator.api_key_env=OTHER",
        f"annotator.cache_dir={photographs / 'elsewhere'}",
    )
    assert same.path == artifact.path
    assert "annotator" in artifact.config and "base_url" not in artifact.config["annotator"]


def test_an_unreadable_reply_ends_the_run_and_names_the_group(photographs: Path) -> None:
    with (
        LLMServer(usual=lambda _: Answer(judged(7))) as server,
        pytest.raises(InputError, match=r"coco-candidates-\d.*annotator: reply breaks the schema"),
    ):
        annotate(photographs, f"annotator.base_url={server.url}")
    assert not half_written(photographs)


@pytest.mark.parametrize("key", ["base_url", "model"])
def test_the_mandatory_settings(key: str, photographs: Path) -> None:
    given = {"base_url": "http://localhost/v1", "model": "m"}
    overrides = [
        f"annotator.{name}={'???' if name == key else value}" for name, value in given.items()
    ]
    with pytest.raises(InputError, match=rf"annotator\.{key} is not set: give annotator\.{key}="):
        annotate(photographs, *overrides)
