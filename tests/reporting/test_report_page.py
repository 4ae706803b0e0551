"""A page from hand-made artifacts: right numbers, nothing foreign, nothing that runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from dress.artifact import Artifact, Building
from dress.errors import InputError
from dress.evaluation.benchmark import Ratios
from dress.files import append_line
from dress.jobs.job import Job
from dress.jobs.report import combine_of
from dress.reporting.columns import Evaluation
from dress.reporting.page import render
from dress.reporting.runs import timed
from dress.reporting.selection import Line, Node, ancestry, select, tree
from tests.reporting.report_store import Store, row_of

CONF = Path(__file__).resolve().parents[2] / "conf"
WORLD = "dress.evaluation.benchmarks.world.WorldBenchmark"
INTERACTION = "dress.evaluation.benchmarks.interaction.interaction"


def mean(ratios: Ratios) -> dict[str, float]:
    return {"world/mean": ratios["mean"]}


def two_arms(root: Path, *, labels: bool = True) -> list[Artifact]:
    store = Store(root)
    first = store.model("dress_stage1")
    second = store.model("dress_stage2", init=first)
    return [
        store.evaluation(second, "best", [1, 1, 1, 0] * 25),
        store.evaluation(first, "none", [1, 0, 0, 0] * 25, labels=labels),
    ]


def files(root: Path, *, expected: tuple[str, ...] = (), paths: tuple[str, ...] = ()) -> list[str]:
    rendered = render(
        select(paths, root),
        title="A & B",
        expected=expected,
        examples=4,
        combine_of=lambda _: mean,
    )
    return [rendered["report.html"], rendered["report.md"]]


class Reader(HTMLParser):
    """Collect tags with their attributes, and the text of table cells row by row."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        return next(row[1:] for row in self.rows if row[0] == name)


def test_the_headline_has_values_intervals_and_a_paired_difference(tmp_path: Path) -> None:
    two_arms(tmp_path)
    page = Reader(files(tmp_path)[0])
    assert page.row("Headline") == ["dress_stage1 none", "dress_stage2 best"]
    first, second = page.row("mean")
    assert first == "0.250 [0.125, 0.375]"
    # half of the scenes change from wrong to right: 0.5 +- 1.96 * sqrt(0.25 / 100)
    found = re.fullmatch(
        r"0\.750 \[0\.625, 0\.875\]\+0\.500 \[\+(0\.4\d\d), \+(0\.[56]\d\d)\] \* p < 0\.001", second
    )
    assert found
    assert float(found[1]) == pytest.approx(0.402, abs=0.015)
    assert float(found[2]) == pytest.approx(0.598, abs=0.015)
    assert page.row("count")[0].startswith("0.250 [")


def test_responses_are_text_and_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    two_arms(tmp_path)
    html, markdown = files(tmp_path)
    page = Reader(html)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "A &amp; B" in html and "A &amp; B" in markdown
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "iframe", "object")]
    places = [value for _, a in page.tags for key, value in a.items() if key in ("src", "href")]
    assert len(places) >= 4 and all(place and place.startswith("data:") for place in places)
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert "<script" not in markdown and r"\| \`x\` \*\*y\*\*" in markdown


def test_pictures_are_small_and_described(tmp_path: Path) -> None:
    two_arms(tmp_path)
    images = [attributes for tag, attributes in Reader(files(tmp_path)[0]).tags if tag == "img"]
    kinds = [str(image["src"]).split(";")[0] for image in images]
    assert kinds.count("data:image/jpeg") == 4  # as many examples as asked for
    assert kinds.count("data:image/svg+xml") == 4  # headline, question types, two losses
    assert all(len(str(image["alt"])) > 10 for image in images)


def test_time_tokens_and_lineage(tmp_path: Path) -> None:
    evaluations = two_arms(tmp_path)
    page = Reader(files(tmp_path)[0])
    model = evaluations[0].lineage["parents"]["model"]["name"]
    # 5 s for each of three lines; 5 * (200 + 201 + 202) tokens
    assert page.row(model) == ["model", "15 s", "30", "3.02 k", "-"]
    names = [row[0] for row in page.rows if len(row) == 4]
    place = names.index(f"model {model}")
    assert names[place - 1] == evaluations[0].name
    assert names[place + 1].startswith("init dress_stage1-")


def test_a_shared_parent_is_spelt_out_once_and_a_lost_one_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path)
    root = store.model("dress_stage0")
    first = store.model("dress_stage1", init=root)
    twice = [store.evaluation(first, target, [1]) for target in ("none", "best")]
    shutil.rmtree(root.path)
    nodes = ancestry(twice)
    lines = [(line.depth, line.role, line.node.name, line.repeated) for line in lines_of(nodes)]
    assert lines == [
        (0, "", twice[0].name, False),
        (1, "model", first.name, False),
        (2, "init", root.name, False),
        (0, "", twice[1].name, False),
        (1, "model", first.name, True),
    ]
    assert nodes[root.name].artifact is None
    assert "not found beside its child" in files(tmp_path)[0]


def lines_of(nodes: Mapping[str, Node]) -> list[Line]:
    return tree([node.name for node in nodes.values() if node.kind == "evaluation"], nodes)


def test_the_turns_of_a_dialogue_are_one_example_and_count_once(tmp_path: Path) -> None:
    def fill(building: Building) -> None:
        (building.path / "images").mkdir()
        building.write_metrics({"world/interaction/turn_0": 0.25, "world/interaction/turn_1": 0.5})
        row = row_of(0, 1, labels=True) | {"labels": {"turn_0": [1, 4], "turn_1": [2, 4]}}
        for turn, feedback in enumerate(("Look again.", None)):
            words = {"turn": turn, "response": f"try {turn}", "feedback": feedback}
            append_line(building.path / "responses.jsonl", row | words)

    store = Store(tmp_path)
    model = store.model("dress_stage3")
    config = {"target": "best", "benchmark": {"_target_": "dress.toy.Interaction"}}
    store.make("interaction_dress_stage3", "evaluation", fill, config, model=model)
    html, markdown = files(tmp_path)
    assert [Reader(html).row(f"turn_{turn}") for turn in (0, 1)] == [["0.250"], ["0.500"]]
    assert "try 0 / Feedback: Look again. / try 1" in markdown
    assert html.index("try 0") < html.index("Look again.") < html.index("try 1")
    evaluation = Evaluation(select((), tmp_path).evaluations[0], None)
    assert evaluation.counts is not None
    assert evaluation.counts.sums().sums.tolist() == [[[1, 4], [2, 4]]]


def test_an_interrupted_history_counts_each_step_once_and_no_pause() -> None:
    lines = [
        {"step": 10, "time": 100.0},
        {"step": 20, "time": 104.0},
        {"step": 30, "time": 108.0},
        {"resumed_at": 20, "time": 1000.0},
        {"step": 30, "time": 1005.0},
    ]
    # the first line is taken to have lasted as long as the second
    assert [(line["step"], line["seconds"]) for line in timed(lines)] == [(10, 4), (20, 4), (30, 5)]


def test_a_missing_arm_is_marked_and_order_is_that_of_expectation(tmp_path: Path) -> None:
    two_arms(tmp_path)
    html, markdown = files(tmp_path, expected=("dress_stage2 best", "sft_continued none"))
    page = Reader(html)
    labels = ["dress_stage2 best", "sft_continued none", "dress_stage1 none"]
    assert page.row("Headline") == labels
    assert page.row("mean")[1] == "missing" and "-0.500 [" in page.row("mean")[2]
    assert "Missing: sft_continued none." in html
    assert "| missing |" in markdown


def test_rows_without_labels_leave_out_significance(tmp_path: Path) -> None:
    two_arms(tmp_path, labels=False)
    html, _ = files(tmp_path)
    assert Reader(html).row("mean")[1] == "0.750 [0.625, 0.875]+0.500"
    assert "No significance where dress_stage1 none takes part" in html


def test_the_markdown_tables_parse(tmp_path: Path) -> None:
    two_arms(tmp_path)
    lines = files(tmp_path)[1].splitlines()
    tables, current = [], []
    for line in [*lines, ""]:
        if line.startswith("|"):
            assert line.endswith("|")
            current.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
        elif current:
            tables, current = [*tables, current], []
    assert len(tables) == 4  # headline, question types, time, lineage
    for head, rule, *body in tables:
        assert body and set(rule) == {"---"}
        assert {len(row) for row in (head, rule, *body)} == {len(head)}
    assert tables[0][2][:2] == ["mean", "0.250 [0.125, 0.375]"]


def test_a_model_stands_for_its_evaluations(tmp_path: Path) -> None:
    evaluation, _ = two_arms(tmp_path)
    model = evaluation.lineage["parents"]["model"]["name"]
    page = Reader(files(tmp_path, paths=(str(tmp_path / model),))[0])
    assert page.row("Headline") == ["dress_stage2 best"]


@pytest.fixture
def configurations() -> Iterator[None]:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def report(root: Path, *overrides: str) -> Artifact:
    typed = ["job=report", f"paths.artifacts={root}", *overrides]
    return Job(cfg=compose("run", typed), overrides=typed).run()


@pytest.mark.usefixtures("configurations")
def test_the_job_writes_an_artifact_and_copies_it(tmp_path: Path) -> None:
    evaluations = two_arms(tmp_path / "store")
    artifact = report(tmp_path / "store", f"report.out={tmp_path}/out", "report.title=Mine")
    assert artifact.lineage["kind"] == "report"
    assert set(artifact.lineage["parents"]) == {evaluation.name for evaluation in evaluations}
    for name in ("report.html", "report.md"):
        text = (artifact.path / name).read_text()
        assert "Mine" in text and (tmp_path / "out" / name).read_text() == text
    assert report(tmp_path / "store", "report.title=Mine").path == artifact.path


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("report.title=x", "holds no evaluation: run experiment=dress_stage2"),
        ("report.artifacts=[/nowhere]", "/nowhere does not exist"),
        ("report.artifacts=/nowhere", "report.artifacts is '/nowhere': give a list"),
        ("report.examples=-1", "report.examples is -1: give a whole number"),
    ],
)
@pytest.mark.usefixtures("configurations")
def test_a_mistake_is_one_sentence(tmp_path: Path, overrides: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        report(tmp_path, overrides)
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_only_a_class_among_the_benchmarks_is_ever_called(tmp_path: Path) -> None:
    def found(target: str) -> object:
        config = {"benchmark": {"_target_": target, "scenes": 1}}
        return combine_of(Artifact(path=tmp_path, config=config, lineage={}))

    assert found(WORLD) is not None and found(INTERACTION) is not None
    for target in ("os.system", f"{WORLD}.examples", f"{WORLD[:-14]}random._os.system", "toy.Toy"):
        assert found(target) is None
    assert found(INTERACTION.replace(".interaction.", ".faulty_first.")) is None
