"""What has to be there before a page is served: the extra, and secrets in the environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec

from dress.errors import InputError
from dress.feedback.endpoint import is_loopback

TOKEN, USERS = "DRESS_CHAT_TOKEN", "DRESS_CHAT_USERS"  # environment variables
SHORTEST_TOKEN = 16
_TOKEN = re.compile(rf"[A-Za-z0-9_-]{{{SHORTEST_TOKEN},}}")  # what a cookie holds as it is


def check_extra() -> None:
    missing = [name for name in ("gradio", "krippendorff") if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the page needs {missing[0]}, which is missing: pip install -e '.[chat]'."
        )


def token_for(host: str, environment: Mapping[str, str]) -> str | None:
    """Return the secret that a page for others needs; InputError where it is missing or unfit."""
    token = environment.get(TOKEN)
    if token is None and is_loopback(host):
        return None
    if token is None or not _TOKEN.fullmatch(token):
        raise InputError(
            f"for chat.host={host} the environment variable {TOKEN} has to hold a secret of at "
            f"least {SHORTEST_TOKEN} of A-Z, a-z, 0-9, _ and -: set it, and open the page with "
            "?token=it."
        )
    return token


def users(environment: Mapping[str, str]) -> dict[str, str]:
    """Read the passwords by name from `name:password,...`; without any, a name is enough."""
    pairs = [pair.partition(":") for pair in environment.get(USERS, "").split(",") if pair]
    if not all(name.strip() and password for name, _, password in pairs):
        raise InputError(f"the environment variable {USERS} is no list of name:password.")
    return {name.strip(): password for name, _, password in pairs}
