"""The pages of docs/: short where they must be, opened and closed alike, and without dead links."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
LOG = sorted((ROOT / "docs/log").glob("*.md"))
PAGES = [*sorted((ROOT / "docs").glob("*.md")), *LOG]
EVERY = [README, ROOT / "CONTRIBUTING.md", *PAGES]
LAST = "## Where to go next"
FENCED = re.compile(r"```.*?```", re.DOTALL)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(text: str) -> set[str]:
    """Name the headings of a page as GitHub does."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the file and the anchor of each link that does not leave the repository."""
    text = FENCED.sub("", path.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            file, _, anchor = target.partition("#")
            yield file, anchor


@pytest.mark.parametrize("path", EVERY, ids=name_of)
def test_every_link_leads_somewhere(path: Path) -> None:
    for file, anchor in links(path):
        target = path.parent / file if file else path
        assert target.exists(), file
        assert not anchor or anchor in anchors(target.read_text()), f"{file}#{anchor}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_a_page_opens_with_what_it_is_for_and_ends_with_where_to_go(path: Path) -> None:
    title, opening, *_ = path.read_text().split("\n\n")
    assert re.fullmatch(r"# .+", title)
    assert re.match(r"[A-Z]", opening) and len(opening) > 60, "a paragraph that says what it is for"
    *_, last = re.findall(r"^## .*$", FENCED.sub("", path.read_text()), re.MULTILINE)
    assert last == LAST and "](" in path.read_text().partition(LAST)[2]


@pytest.mark.parametrize("path", [p for p in EVERY if p not in LOG], ids=name_of)
def test_every_file_that_is_named_exists(path: Path) -> None:
    """The log speaks of the code as it was."""
    folders = "dress|lit_modules|datamodules|conf|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{folders})/[\w/.-]*)`", path.read_text()):
        assert (ROOT / name).exists(), name


def test_the_readme_names_every_page_and_shows_a_small_picture() -> None:
    named = {file for file, _ in links(README)}
    assert {name_of(page) for page in PAGES if page not in LOG} <= named
    assert (ROOT / "docs/answers.png").stat().st_size < 200_000 and "docs/answers.png" in named


def test_the_results_are_a_summary_and_the_log_names_its_pages() -> None:
    assert (ROOT / "docs/results.md").read_text().count("\n") <= 150
    index = ROOT / "docs/log/README.md"
    assert {file for file, _ in links(index)} >= {page.name for page in LOG if page != index}


def test_links_and_headings_are_read(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A & B: c-d\n```\n# no heading [x](y)\n```\n[a](b.md#c) [d](#e) [f](http://g)"
    )
    assert anchors(page.read_text()) == {"a--b-c-d"}
    assert list(links(page)) == [("b.md", "c"), ("", "e")]


def test_the_performance_page_is_made_from_its_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks/speed"))
    import page

    monkeypatch.setattr(
        "sys.argv", ["page.py", str(ROOT / "docs/results/speed"), str(tmp_path / "p")]
    )
    page.main()
    assert (tmp_path / "p").read_text() == (ROOT / "docs/performance.md").read_text()
