"""Where a chat server is, and its key, which only the environment holds."""

from __future__ import annotations

import os
from ipaddress import ip_address
from urllib.parse import urlsplit

from dress.errors import InputError

SAME_REPLIES = frozenset(  # settings that say how a server is asked, not what it replies
    (
        "api_key_env",
        "base_url",
        "cache_dir",
        "concurrency",
        "max_retries",
        "price_per_million",
        "timeout_s",
    )
)
NO_KEY = "none"  # what a server on this machine gets where the environment has no key


def check_url(base_url: str) -> None:
    """Refuse what is no address, and an address that carries a secret."""
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"base_url is {base_url!r}: give one such as http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise InputError(
            f"the base_url of {parts.hostname} holds more than scheme, host and path: put the key "
            "into the environment variable that api_key_env names."
        )


def is_loopback(base_url: str) -> bool:
    host = urlsplit(base_url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def api_key(base_url: str, variable: str) -> str:
    """Return the key in the environment variable; a server on this machine needs none."""
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(base_url):
        raise InputError(
            f"the environment variable {variable} is not set: put the key of {base_url} there, or "
            "name another variable in api_key_env."
        )
    return key or NO_KEY
