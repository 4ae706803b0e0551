"""The report itself: everything that is shown, rendered to HTML and to Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dress.reporting.columns import Column, CombineOf, columns_of
from dress.reporting.comparison import Figures, metric_figures, type_figures
from dress.reporting.gallery import gallery
from dress.reporting.panels import (
    Panel,
    calibration_panels,
    gain_panels,
    headline_panels,
    interaction_panels,
    loss_panels,
)
from dress.reporting.rendering import environment
from dress.reporting.runs import making_of
from dress.reporting.selection import Selection, ancestry, tree
from dress.reporting.tables import (
    HEADLINE_TITLE,
    INTERACTION_TITLE,
    OTHER_TITLE,
    Table,
    gain_table,
    is_headline,
    make_table,
    metric_tables,
)
from dress.version import code_version

GAINS = (
    "Change from the first column; right is better, so that the sign of what is marked ↓ is turned."
)
HTML, MARKDOWN = "report.html", "report.md"


@dataclass(frozen=True)
class Section:
    """A heading, what stands below it, and whether it is folded away at first."""

    title: str
    tables: Sequence[Table]
    caption: str  # of the panels
    panels: Sequence[Panel]
    folded: bool = False


def render(
    selection: Selection,
    *,
    title: str,
    expected: Sequence[str],
    examples: int,
    combine_of: CombineOf,
) -> dict[str, str]:
    """Return the text of each file of a report, `report.html` and `report.md`, by its name."""
    nodes = ancestry(selection.artifacts)
    artifacts = [node.artifact for node in nodes.values() if node.artifact]
    makings = [making_of(artifact) for artifact in artifacts]
    columns = columns_of(selection.evaluations, nodes, expected=expected, combine_of=combine_of)
    measured = any(not column.missing for column in columns)
    metrics = metric_figures(columns) if measured else []
    shown = {
        "title": title,
        "code_version": code_version(),
        "sections": sections(columns, metrics) if measured else [],
        "notes": notes(columns, metrics) if measured else [],
        "losses": [*loss_panels(makings), *calibration_panels(artifacts)],
        "gallery": gallery(columns, count=examples),
        "lineage": tree([artifact.name for artifact in selection.artifacts], nodes),
        "makings": makings,
    }
    return {
        HTML: environment(autoescape=True).get_template(f"{HTML}.jinja").render(shown),
        MARKDOWN: environment(autoescape=False).get_template(f"{MARKDOWN}.jinja").render(shown),
    }


def sections(columns: Sequence[Column], metrics: Sequence[Figures]) -> list[Section]:
    """Lay out what was measured; a section without a table is left out."""
    labels = [column.label for column in columns]
    types = type_figures(columns)
    tables = {table.title: table for table in metric_tables(columns, metrics)}
    gains = gain_table(columns)
    headline = tables.pop(HEADLINE_TITLE, None)
    interaction, other = tables.pop(INTERACTION_TITLE, None), tables.pop(OTHER_TITLE, None)
    found = [
        Section(
            HEADLINE_TITLE,
            _some(headline, gains),
            "",
            headline_panels(*_of_world(columns, metrics)),
        ),
        Section("By question type", _types(columns, types), GAINS, gain_panels(labels, types)),
        Section(INTERACTION_TITLE, _some(interaction), "", interaction_panels(labels, metrics)),
        *(Section(title, [table], "", []) for title, table in tables.items()),
        Section(OTHER_TITLE, _some(other), "", [], folded=True),
    ]
    return [section for section in found if section.tables]


def _some(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def _of_world(
    columns: Sequence[Column], metrics: Sequence[Figures]
) -> tuple[list[str], list[Figures]]:
    """Leave out the columns that are about other benchmarks."""
    pairs = [
        (column.label, part)
        for column, part in zip(columns, metrics, strict=True)
        if column.missing or any(map(is_headline, part))
    ]
    return [label for label, _ in pairs], [part for _, part in pairs]


def _types(columns: Sequence[Column], figures: Sequence[Figures]) -> list[Table]:
    names = sorted({name for part in figures for name in part})
    return [make_table("By question type", columns, figures, names)] if names else []


def notes(columns: Sequence[Column], metrics: Sequence[Figures]) -> list[str]:
    """Say what the reader of the tables must know, and what is absent."""
    found = [
        "Differences are from the first column that has the figure. Intervals are 95 %, by "
        "bootstrap over clusters (scenes or images); a difference is marked where its interval "
        "excludes 0. p is two-sided and not corrected for the number of comparisons."
    ]
    pairs = {f.difference.clusters for part in metrics for f in part.values() if f.difference}
    if pairs:
        count = " to ".join(str(n) for n in sorted({min(pairs), max(pairs)}))
        found.append(
            f"Differences and relative gains are over what both were asked: {count} clusters."
        )
    if absent := [column.label for column in columns if column.missing]:
        found.append(f"Missing: {', '.join(absent)}.")
    if older := [c.label for c in columns if not all(e.reproduced for e in c.suites.values())]:
        found.append(
            f"No significance where {', '.join(older)} takes part: its responses have no labels "
            "that give its metrics again, as in evaluations on benchmarks of your own, and in "
            "older ones: evaluate those with fresh=true."
        )
    return found
