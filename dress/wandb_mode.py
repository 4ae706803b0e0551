"""Whether W&B is used: what the command line says counts first, then W&B's own variables."""

from __future__ import annotations

import os
from typing import Literal

from dress.errors import InputError
from dress.settings import checked

Choice = Literal["auto", "online", "offline", "disabled"]
Mode = Literal["online", "offline", "shared", "disabled"]
_MODES: dict[str, Mode] = {
    "online": "online",
    "offline": "offline",
    "shared": "shared",
    "disabled": "disabled",
    "run": "online",  # W&B's older words
    "dryrun": "offline",
}
_TRUE = ("1", "true", "yes", "on")


@checked
def wandb_mode(mode: Choice) -> Mode:
    """Say how W&B runs where `mode` was chosen: auto leaves it to W&B's own variables.

    Raises InputError where WANDB_MODE decides and is no mode of W&B's.
    """
    if mode != "auto":
        return _MODES[mode]
    if os.environ.get("WANDB_DISABLED", "").lower() in _TRUE:
        return "disabled"
    if not (said := os.environ.get("WANDB_MODE")):
        return "online" if os.environ.get("WANDB_API_KEY") else "offline"
    if said not in _MODES:
        raise InputError(
            f"WANDB_MODE is {said!r}: set it to online, offline or disabled, or give logger=local."
        )
    return _MODES[said]
