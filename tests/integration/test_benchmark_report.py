"""job=report on files of responses: whose figures these are, and whether two files differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from own_data import CONF

from dress.artifact import Artifact
from dress.jobs.job import Job
from dress.jobs.report import combine_of
from dress.reporting.columns import columns_of
from dress.reporting.comparison import metric_figures
from tests.evaluation.public_files import write_lines

IMAGES, EACH = 80, 3  # questions about one image stand and fall together
RESAMPLES = 20000


def run(folder: Path, *overrides: str) -> Artifact:
    typed = [f"paths.artifacts={folder / 'artifacts'}", *overrides]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return Job(cfg=compose("run", overrides=typed), overrides=typed).run()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """POPE's questions with random answers: a good model, and a better one where it fails."""
    made = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(3)
    truth = rng.random((IMAGES, EACH)) < 0.5
    wrong = np.repeat(rng.random((IMAGES, 1)) < 0.4, EACH, axis=1) ^ (rng.random(truth.shape) < 0.1)
    mended = wrong & (rng.random(truth.shape) < 0.7)
    np.savez(made / "answers.npz", right=~wrong, better=~mended)
    write_lines(
        made / "pope_random.json",
        (
            {"question_id": n, "image": f"{n // EACH}.jpg", "text": f"Is {n} there?", "label": word}
            for n, word in enumerate(np.where(truth.ravel(), "yes", "no").tolist())
        ),
    )
    for name, wrongly in (("good", wrong), ("better", mended)):
        said = np.where((truth ^ wrongly).ravel(), "Yes", "No").tolist()
        rows = ({"question_id": n, "answer": word} for n, word in enumerate(said))
        write_lines(made / f"{name}.jsonl", rows)
    return made


@pytest.fixture(scope="module")
def evaluations(folder: Path) -> list[Artifact]:
    pope = ("job=evaluate", "benchmark=pope", "benchmark.splits=[random]")
    files = (f"benchmark.root={folder}", "benchmark.file=pope_\\{split\\}.json")
    return [
        run(folder, *pope, *files, f"responses={folder / name}.jsonl")
        for name in ("good", "better")
    ]


def test_the_paired_test_of_two_artifacts(folder: Path, evaluations: list[Artifact]) -> None:
    columns = columns_of(evaluations, {}, expected=(), combine_of=combine_of)
    found = metric_figures(columns)[1]["pope/accuracy"].difference
    with np.load(folder / "answers.npz") as answers:
        right, better = answers["right"], answers["better"]
    changes = (better.astype(float) - right).mean(axis=1)  # of each image
    drawn = np.random.default_rng(11).choice(changes, size=(RESAMPLES, IMAGES)).mean(axis=1)
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert found is not None and found.clusters == IMAGES
    assert found.value == pytest.approx(better.mean() - right.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)
    # flipping whole images at random hardly ever makes such a difference
    signs = np.random.default_rng(12).choice([-1, 1], size=(RESAMPLES, IMAGES))
    flipped = (signs * changes).mean(axis=1)
    assert (np.abs(flipped) >= abs(found.value)).mean() < 0.01 and found.p < 0.01
    # by questions alone the interval would be too narrow
    each = (better.astype(float) - right).ravel()
    naive = np.random.default_rng(13).choice(each, size=(2000, each.size)).mean(axis=1)
    assert found.high - found.low > 1.2 * np.subtract(*np.percentile(naive, [97.5, 2.5]))


def test_the_page_names_the_benchmark(folder: Path, evaluations: list[Artifact]) -> None:
    given = ",".join(str(evaluation.path) for evaluation in evaluations)
    report = run(folder, "job=report", f"report.artifacts=[{given}]")
    text = (report.path / "report.md").read_text()
    (row,) = (line for line in text.splitlines() if line.startswith("| accuracy "))
    assert "p < 0.001" in row or "p = 0.00" in row
    assert r"| pope | pope\_good | pope\_better |" in text
    assert "| responses | 240 | 240; +0 |" in text  # a count and no share


def test_each_benchmark_has_a_table_and_its_own_first_column(
    folder: Path, evaluations: list[Artifact]
) -> None:
    (folder / "mme").mkdir()
    (folder / "mme/count.txt").write_text("a.jpg\tIs it?\tYes\na.jpg\tIs it not?\tNo\n")
    said = [
        {"subtask": "count", "image": "a.jpg", "question": question, "answer": "Yes"}
        for question in ("Is it?", "Is it not?")
    ]
    other = run(
        folder,
        *("job=evaluate", "benchmark=mme", f"benchmark.root={folder}"),
        *("benchmark.subtasks=[count]", f"responses={write_lines(folder / 'yes.jsonl', said)}"),
    )
    given = ",".join(str(evaluation.path) for evaluation in (other, *evaluations))
    report = run(folder, "job=report", f"report.artifacts=[{given}]")
    text = (report.path / "report.md").read_text()
    assert r"| mme | mme\_yes |" in text and r"| pope | pope\_good | pope\_better |" in text
    (_, row) = (
        line for line in text.splitlines() if line.startswith(("| accuracy ", "| count/acc "))
    )
    assert row.startswith("| accuracy ") and "p < 0.001" in row and "| - |" not in row
    page = (report.path / "report.html").read_text()
    assert "Differences are from the first column" in page and "<h2>pope</h2>" in page


def test_files_of_responses_are_not_taken_for_one_model(
    folder: Path, evaluations: list[Artifact]
) -> None:
    rows = [{"image_id": f"{n}.jpg", "caption": "A.", "query": f"Q{n}?"} for n in range(3)]
    write_lines(folder / "examine.jsonl", rows)
    said = [{"image_id": row["image_id"], "response": "No."} for row in rows]
    other = run(
        folder,
        *("job=evaluate", "benchmark=vlsafe", f"benchmark.root={folder}"),
        *("benchmark.file=examine.jsonl", "benchmark.alignment=null"),
        f"responses={write_lines(folder / 'said.jsonl', said)}",
    )
    columns = columns_of([*evaluations, other], {}, expected=(), combine_of=combine_of)
    assert [len(column.suites) for column in columns] == [1, 1, 1]
