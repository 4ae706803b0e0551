"""The layout as a W&B workspace, by the optional package wandb-workspaces."""

from __future__ import annotations

import re
from typing import Any

from dress.errors import InputError
from dress.evaluation.dashboard.layout import BEFORE, SECTIONS, TURNS, Panel

STEP = "trainer/global_step"


def build_workspace(*, entity: str, project: str, name: str) -> Any:
    """Return the workspace, not saved yet; InputError without the package."""
    try:
        from wandb_workspaces.workspaces import Section, Workspace
    except ImportError as error:
        raise InputError(
            "wandb-workspaces is not installed: pip install wandb-workspaces, then try again."
        ) from error
    sections = [
        Section(name=s.title, panels=[_panel(p) for p in s.panels], is_open=True) for s in SECTIONS
    ]
    return Workspace(entity=entity, project=project, name=name, sections=sections)


def _panel(panel: Panel) -> Any:
    from wandb_workspaces.reports import v2

    match panel.kind:
        case "table":
            (table,) = panel.metrics
            return v2.WeavePanelSummaryTable(table_name=table)
        case "bars":
            return v2.BarPlot(title=panel.title, metrics=_with_before(panel))
        case "turns":
            return v2.LinePlot(title=panel.title, x=TURNS, y=_with_before(panel))
    if any(name.endswith("*") for name in panel.metrics):
        parts = "|".join(re.escape(name).replace(r"\*", ".*") for name in panel.metrics)
        return v2.LinePlot(title=panel.title, x=STEP, metric_regex=f"^({parts})$")
    return v2.LinePlot(title=panel.title, x=STEP, y=list(panel.metrics))


def _with_before(panel: Panel) -> list[str]:
    return [name for metric in panel.metrics for name in (BEFORE + metric, metric)]
