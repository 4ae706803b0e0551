"""The dashboard as plain data: sections of panels, each naming what a run logs.

The W&B workspace (here, by the optional package wandb-workspaces) and the picture
(dashboard_picture.py) are both made from it. A name may end in `*`. `init/<name>` is the same
figure of the model that training began with, and `<name>_low` and `<name>_high` are the ends of its
95 % interval: a panel shows them with `<name>`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from dress.errors import InputError

Kind = Literal["steps", "bars", "turns", "table"]
BEFORE = "init/"
TURNS = "world/turns_of_feedback"  # the axis of panels over turns
_OF_A_TURN = re.compile(r"((?:init/)?world/interaction/.+)_(\d+)(_low|_high)?")
STEP = "trainer/global_step"


@dataclass(frozen=True)
class Panel:
    """`steps`: lines over training; `bars`: final figures; `turns`: lines over turns of feedback,
    whose metrics are stored as `<name>_<turn>`; `table`: rows of text and images."""

    title: str
    kind: Kind
    metrics: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    title: str
    panels: tuple[Panel, ...]


def _ratings(quantity: str) -> tuple[str, ...]:
    return tuple(f"val/rating/{condition}/{quantity}" for condition in ("best", "none", "worst"))


def _both(*quantities: str) -> tuple[str, ...]:
    return tuple(f"{stage}/{quantity}" for quantity in quantities for stage in ("train", "val"))


def _rollout(name: str) -> tuple[str, ...]:
    return f"ppo/{name}", f"val/{name}"


def _world(*quantities: str) -> tuple[str, ...]:
    return tuple(f"world/{quantity}" for quantity in quantities)


SECTIONS = (
    Section(
        "Losses",
        (
            Panel("Training and validation", "steps", ("train/loss", "val/loss")),
            Panel("Critiques", "steps", ("train/critique_loss", "val/critique_loss")),
            Panel("Refinements", "steps", ("train/refinement_loss", "val/refinement_loss")),
            Panel("Tokens right", "steps", ("train/token_accuracy", "val/token_accuracy")),
        ),
    ),
    Section(
        "Preferences",
        (
            Panel("Rewards", "steps", _both("rewards/chosen", "rewards/rejected")),
            Panel("Margin", "steps", _both("rewards/margin")),
            Panel("Accuracy", "steps", _both("rewards/accuracy")),
            Panel("Log-probabilities", "steps", _both("log_probs/chosen", "log_probs/rejected")),
            Panel("KL from the reference", "steps", _both("kl")),
        ),
    ),
    Section(
        "Policy",
        (
            Panel("What the judge says", "steps", (*_rollout("score"), *_rollout("reward"))),
            Panel("What is true", "steps", _rollout("true_score")),
            Panel("Correct", "steps", _rollout("correctness")),
            Panel("Distance per response", "steps", ("ppo/kl",)),
            Panel("Entropy", "steps", _rollout("entropy")),
            Panel("Length", "steps", _rollout("response_length")),
            Panel("Without an end", "steps", _rollout("no_end_share")),
            Panel("Sampling apart from training", "steps", _rollout("log_prob_gap")),
            Panel("Values", "steps", ("ppo/values", "ppo/returns")),
            Panel("Advantages", "steps", ("ppo/advantages", "ppo/advantages_abs")),
            Panel("Losses", "steps", ("train/policy_loss", "train/value_loss")),
            Panel("Clipped", "steps", ("train/clip_fraction", "train/value_clip_fraction")),
            Panel("Distance from the rollout", "steps", ("train/ratio", "train/approx_kl")),
            Panel("Rollouts", "steps", ("ppo/rollouts",)),
        ),
    ),
    Section(
        "3H",
        (
            Panel(
                "Ratings under best",
                "steps",
                tuple(f"val/rating/best/{a}" for a in ("helpfulness", "honesty", "harmlessness")),
            ),
            Panel(
                "On held-out scenes",
                "bars",
                _world("helpfulness", "honesty", "harmlessness", "mean"),
            ),
            Panel("Descriptions", "bars", _world("recall", "chair_i", "chair_s")),
            Panel("Objects named", "bars", _world("mentions")),
            Panel(
                "Answers",
                "bars",
                _world("vqa_accuracy", "attribute", "count", "existence", "relation"),
            ),
            Panel(
                "Requests",
                "bars",
                _world("relevance", "safety", "persuasiveness", "overrefusal"),
            ),
        ),
    ),
    Section(
        "Condition controls",
        tuple(
            Panel(title, "steps", _ratings(quantity))
            for title, quantity in (
                ("Mean rating", "mean"),
                ("Helpfulness", "helpfulness"),
                ("Honesty", "honesty"),
                ("Harmlessness", "harmlessness"),
            )
        ),
    ),
    Section(
        "Interaction",
        (
            Panel("Mean 3H", "turns", _world("interaction/turn")),
            Panel("Helpfulness", "turns", _world("interaction/helpfulness/turn")),
            Panel("Honesty", "turns", _world("interaction/honesty/turn")),
            Panel("Harmlessness", "turns", _world("interaction/harmlessness/turn")),
            Panel("Gain of a turn", "turns", _world("interaction/gain")),
            Panel("Fixed by a turn", "turns", _world("interaction/fixed")),
            Panel("Broken by a turn", "turns", _world("interaction/broken")),
            Panel(
                "In the end", "bars", _world("interaction/repaired", "interaction/overcorrection")
            ),
        ),
    ),
    Section(
        "Throughput",
        (
            Panel(
                "Tokens per second",
                "steps",
                ("train/tokens_per_second", "train/logical_tokens_per_second"),
            ),
            Panel("Sequences per second", "steps", ("train/samples_per_second",)),
            Panel("Tokens so far", "steps", ("train/trained_tokens", "train/generated_tokens")),
            Panel("Share of time spent waiting", "steps", ("train/stall_fraction",)),
        ),
    ),
    Section(
        "Optimizer and rejects",
        (
            Panel("Learning rate", "steps", ("train/learning_rate",)),
            Panel("Norm of the gradient", "steps", ("train/grad_norm",)),
            Panel("Steps without a target", "steps", ("train/empty_steps",)),
            Panel("Rejected groups", "steps", ("data/rejects", "data/rejects/*")),
            Panel("Reads tried again", "steps", ("data/read_retries",)),
        ),
    ),
    Section("Samples", (Panel("Answers to fixed prompts", "table", ("val/samples",)),)),
)


def panels(sections: Iterable[Section] = SECTIONS) -> Iterator[Panel]:
    return (panel for section in sections for panel in section.panels)


def by_turn(metrics: Mapping[str, float]) -> dict[int, dict[str, float]]:
    """Sort the figures of turns: `<name>_<turn>` and its interval become `<name>` of that turn."""
    turns: dict[int, dict[str, float]] = {}
    for name, value in metrics.items():
        if match := _OF_A_TURN.fullmatch(name):
            turns.setdefault(int(match[2]), {})[match[1] + (match[3] or "")] = value
    return dict(sorted(turns.items()))


def home(metric: str) -> list[Panel]:
    """Return the panels that show a metric as a run logs it."""
    plain = re.sub(r"_(low|high)$", "", metric.removeprefix(BEFORE))
    if match := _OF_A_TURN.fullmatch(plain):
        return [p for p in panels() if p.kind == "turns" and match[1] in p.metrics]
    return [p for p in panels() if any(fnmatchcase(plain, pattern) for pattern in p.metrics)]


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
