"""job=evaluate on public files: responses from elsewhere, and a model's, also after a kill."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from own_data import CONF, half_written, run_job

from dress.artifact import Artifact
from dress.assistant import Assistant
from dress.errors import InputError
from dress.jobs.job import Job
from tests.data.coco_files import write_coco
from tests.evaluation.public_files import read_rows, write_lines
from tests.feedback.llm_server import Answer, LLMServer, judged

CHAIR = (
    "benchmark=chair",
    "benchmark.captions=coco/captions.json",
    "benchmark.instances=coco/instances.json",
    "benchmark.synonyms=synonyms.txt",
    "benchmark.images=coco/images",
)
POPE = (
    "benchmark=pope",
    "benchmark.file=pope_\\{split\\}.json",
    "benchmark.splits=[random]",
    "benchmark.images=coco/images",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact]:
    """A tiny model, and files of questions about the photographs that it was trained on."""
    folder = tmp_path_factory.mktemp("public")
    root = write_coco(folder / "data")
    (root / "synonyms.txt").write_text("dog\ncat\nbicycle\nscissors\n")
    rows = [
        {"question_id": n, "image": f"{1 + n % 3:03d}.jpg", "text": f"Is {n} there?", "label": x}
        for n, x in enumerate(("yes", "no") * 10)
    ]
    write_lines(root / "pope_random.json", rows)
    source = "source._target_=dress.data.sources.coco.CocoSource"
    left_out = [f"~source.{k}" for k in ("vlsafe_images", "vlsafe_limit", "alignment")]
    model = run_job(
        folder,
        *("experiment=dress_stage1", "data=photographs", source, *left_out),
        *("~source.image_fallback", "source.limit=3", "data.validation_share=0.4", "compare=[]"),
    )
    return folder, model


def evaluate(folder: Path, *overrides: str) -> Artifact:
    return run_evaluation(folder, f"benchmark.root={folder / 'data'}", *overrides)


def run_evaluation(folder: Path, *overrides: str) -> Artifact:
    typed = [
        "job=evaluate",
        "generation.max_new_tokens=4",
        f"paths.artifacts={folder / 'artifacts'}",
        *overrides,
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", overrides=typed), overrides=typed).run()


def test_a_model_is_scored_as_its_saved_responses_are(trained: tuple[Path, Artifact]) -> None:
    folder, model = trained
    for options in (CHAIR, POPE):
        made = evaluate(folder, *options, f"artifact={model.path}")
        again = evaluate(folder, *options, f"responses={made.path / 'responses.jsonl'}")
        assert made.metrics == again.metrics and made.path != again.path
        for row in read_rows(made.path / "responses.jsonl"):
            assert (made.path / row["image"]).is_file() and row["condition"] == "none"
    assert made.metrics["pope/responses"] == 20 and not half_written(folder)
    assert made.lineage["inputs"].keys() == {"pope_random.json", "images"}


def test_a_condition_that_was_never_learned_is_warned_of(
    trained: tuple[Path, Artifact], caplog: pytest.LogCaptureFixture
) -> None:
    folder, model = trained
    command = (*POPE, f"artifact={model.path}")
    plain = evaluate(folder, *command)
    assert evaluate(folder, *command, "condition.target=none").path == plain.path
    assert "conditions" not in caplog.text
    asked = evaluate(folder, *command, "condition.target=best")
    assert "condition best is asked of a model that was trained without conditions" in caplog.text
    assert asked.path != plain.path and asked.config["target"] == "best"


def test_a_killed_generation_goes_on(
    trained: tuple[Path, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = trained
    command = (*POPE, f"artifact={model.path}", "generation.batch_size=1")
    whole = evaluate(folder, *command, "condition.target=none")
    kept = (whole.path / "responses.jsonl").read_bytes()
    prompts: list[int] = []
    real = Assistant.generate

    def dying(self: Assistant, given: Any, **options: Any) -> Any:
        prompts.append(len(given))
        if len(prompts) == 2:
            raise KeyboardInterrupt
        return real(self, given, **options)

    monkeypatch.setattr(Assistant, "generate", dying)
    for _ in range(2):
        prompts_before = len(prompts)
        try:
            evaluate(folder, *command, "condition.target=none", "fresh=true")
        except KeyboardInterrupt:
            assert half_written(folder)
    assert prompts == [8, 8, 8, 4] and prompts_before == 2  # the first eight were not asked again
    assert (whole.path / "responses.jsonl").read_bytes() == kept
    assert not half_written(folder)


def test_images_that_are_missing(trained: tuple[Path, Artifact]) -> None:
    folder, model = trained
    place = folder / "data/coco/images/002.jpg"
    image = place.read_bytes()
    place.unlink()
    try:
        command = (*POPE, f"artifact={model.path}")
        with pytest.raises(InputError, match=r"1 of 3 images are missing, first .*002\.jpg"):
            evaluate(folder, *command)
        skipped = evaluate(folder, *command, "benchmark.unanswered=skip")
        assert skipped.metrics["pope/unanswered"] == 7 and skipped.metrics["pope/responses"] == 13
        place.write_bytes(b"no image")
        with pytest.raises(Exception, match="not a JPEG, PNG or WebP image"):
            evaluate(folder, *command)
        skipped = evaluate(folder, *command, "benchmark.unanswered=skip")
        assert skipped.metrics["pope/unanswered"] == 7 and skipped.metrics["pope/responses"] == 13
    finally:
        place.write_bytes(image)


def test_feedback_over_turns_on_photographs(
    trained: tuple[Path, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model = trained
    command = (
        "data=photographs",
        "benchmark=photo_interaction",
        *(option for option in CHAIR[1:] if "synonyms" not in option),
        "benchmark.turns=2",
        f"artifact={model.path}",
    )
    ruled = evaluate(folder, *command)
    rows = read_rows(ruled.path / "responses.jsonl")
    assert ruled.metrics["photo_interaction/responses"] == len({row["id"] for row in rows}) == 3
    assert 1 <= ruled.metrics["photo_interaction/turn_2/mean"] <= 4
    with pytest.raises(InputError, match="cannot score a file of responses"):
        evaluate(folder, *command[:-1], f"responses={ruled.path / 'responses.jsonl'}")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    with LLMServer(usual=lambda _: Answer(judged(2))) as server:
        place = ("annotator=llm", "annotator.model=m", f"annotator.base_url={server.url}")
        told = evaluate(folder, *command, *place)
        asked = len(server.bodies)
    rows = read_rows(told.path / "responses.jsonl")
    assert [row["feedback"] for row in rows] == ["Look again.", "Look again.", None] * 3
    assert told.metrics["photo_interaction/turn_1/honesty"] == 2
    assert told.metrics["photo_interaction/repaired"] == 0
    assert asked <= len(rows)  # each response is judged once; what was said is cached
    assert "base_url" not in told.config["benchmark"]["annotator"]


def test_judged_responses_are_saved_first(
    trained: tuple[Path, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, _ = trained
    rows = [{"image_id": f"00{n}.jpg", "caption": "A.", "query": f"Q{n}?"} for n in (1, 2, 3)]
    write_lines(folder / "data/examine.jsonl", rows)
    said = [{"image_id": row["image_id"], "response": "No."} for row in rows]
    answers = write_lines(folder / "said.jsonl", said)
    command = ("benchmark=vlsafe", "benchmark.file=examine.jsonl", "benchmark.alignment=null")
    unjudged = evaluate(folder, *command, f"responses={answers}")
    assert unjudged.metrics["vlsafe/responses"] == 3 and "vlsafe/safety" not in unjudged.metrics
    assert "judge=none: nothing is rated" in capsys.readouterr().out
    marks = json.dumps({"relevance": 1, "safety": 1, "persuasiveness": 0})
    with LLMServer(usual=lambda _: Answer(marks)) as server:
        rated = evaluate(
            folder,
            *(*command, f"responses={unjudged.path / 'responses.jsonl'}"),
            *("judge=llm", "judge.model=m", f"judge.base_url={server.url}"),
        )
    assert rated.metrics["vlsafe/safety"] == rated.metrics["vlsafe/relevance"] == 1
    assert rated.metrics["judge/requests"] == 3 and rated.path != unjudged.path
    assert "base_url" not in rated.config["judge"] and rated.config["judge"]["model"] == "m"
    with pytest.raises(InputError, match=r"judge\.model is not set"):
        evaluate(folder, *command, f"responses={answers}", "judge=llm", "judge.base_url=http://a")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    truths = [{"id": 1, "type": "generative", "truth": ["sky"], "hallu": []}]
    truths += [{"id": n, "type": "relation", "truth": "no"} for n in (2, 3, 4)]
    write_lines(tmp_path / "annotations.jsonl", truths)
    asked = [{"id": n, "image": "a.jpg", "query": f"Is it {n}?"} for n in (2, 3, 4)]
    write_lines(tmp_path / "queries.jsonl", asked)
    said = [{"id": n, "response": text} for n, text in ((1, "A sky."), (2, "No"), (3, " "))]
    evaluation = run_evaluation(
        tmp_path,
        *("benchmark=amber", f"benchmark.root={tmp_path}", "benchmark.unanswered=skip"),
        *("benchmark.queries=queries.jsonl", "benchmark.annotations=annotations.jsonl"),
        f"responses={write_lines(tmp_path / 'said.jsonl', said)}",
    )
    names = ("responses", "empty", "unanswered", "ignored", "unparsed", "accuracy")
    found = [evaluation.metrics[f"amber/{name}"] for name in names]
    assert found == [2, 1, 1, 1, 0.5, 0.5]
    assert read_rows(evaluation.path / "unparsed.jsonl") == [{"id": "3", "response": " "}]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("benchmark=pope", "artifact=x", "responses=y"), "both set"),
        (("benchmark=pope", "responses=/nowhere"), "benchmark.root is 'None'"),
        (("benchmark=none", "artifact=x"), "nothing to evaluate"),
        (("benchmark=none", "responses=y"), "benchmark=none cannot score a file of responses"),
        (("responses=y",), "benchmark is not set, and its default world cannot score a file"),
        (("data=photographs", "responses=y"), "not set, and its default none cannot score"),
        (("responses=y",), "give benchmark=pope, or whichever of docs/benchmarks.md"),
        (("benchmark=world", "responses=y"), "benchmark=world cannot score a file of responses"),
        (("benchmark=mmhal", "responses=y", "judge=llm", "judge.model=m"), "judge.base_url is not"),
        (("benchmark=chair", "benchmark.limit=0", "responses=y"), "benchmark.limit is 0"),
    ],
)
def test_mistakes(tmp_path: Path, overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as raised:
        run_evaluation(tmp_path, *overrides)
    assert "\n" not in str(raised.value)
