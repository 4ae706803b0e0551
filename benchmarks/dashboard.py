"""The dashboard of runs: as a picture from their artifacts, or as a workspace in W&B.

    python benchmarks/dashboard.py picture artifacts/dress_stage2-<id> artifacts/dress_stage3-<id> \
        --out docs/dashboard.png
    python benchmarks/dashboard.py workspace --entity NAME --project dress

The second needs network, WANDB_API_KEY and `pip install wandb-workspaces`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dress.errors import InputError
from dress.reporting.dashboard import build_workspace


def picture(artifacts: list[str], title: str, out: Path) -> None:
    from dress.reporting.dashboard_picture import draw_dashboard  # matplotlib: a second
    from dress.reporting.runs import open_runs

    canvas = draw_dashboard(open_runs(artifacts), title=title)
    try:
        canvas.savefig(out, format="png", metadata={"Software": None})
    except OSError as error:
        raise InputError(f"cannot write {out} ({error.strerror}): give another --out.") from error
    print(out)


def workspace(entity: str, project: str, title: str) -> None:
    made = build_workspace(entity=entity, project=project, name=title)
    try:
        made.save()
    except Exception as error:  # of the network, the key or the project: W&B has many kinds
        why = " ".join(str(error).split())
        raise InputError(f"W&B did not take the workspace ({why}): check WANDB_API_KEY.") from error
    print(made.url)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    drawing = commands.add_parser("picture")
    drawing.add_argument("artifacts", nargs="+", help="folders of trained models")
    drawing.add_argument("--out", type=Path, default=Path("docs/dashboard.png"))
    online = commands.add_parser("workspace")
    online.add_argument("--entity", required=True)
    online.add_argument("--project", default="dress")
    for command in (drawing, online):
        command.add_argument("--title", default="DRESS")
    given = parser.parse_args(words)
    try:
        if given.command == "picture":
            picture(given.artifacts, given.title, given.out)
        else:
            workspace(given.entity, given.project, given.title)
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
