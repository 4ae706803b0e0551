"""A model behind a chat server: where it is, how it is asked, its key from the environment alone.

Annotator, judge and sampler are endpoints; client.py asks them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dress.errors import InputError
from dress.settings import AboveZero, Amount, Positive, Whole, check_values

NO_GUIDANCE = (
    "generation.guidance compares log-probabilities, which a server does not tell: give "
    "generation.guidance=0 with sampler=endpoint."
)
_SAME_REPLIES = frozenset(  # settings that say how a server or people are asked, not the replies
    (
        "api_key_env",
        "base_url",
        "cache_dir",
        "concurrency",
        "folder",
        "host",
        "max_retries",
        "port",
        "price_per_million",
        "requests_per_minute",
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


def named_settings(node: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an artifact is named by of an endpoint's settings: those that change replies."""
    return {key: value for key, value in node.items() if key not in _SAME_REPLIES}


def is_loopback(host: str) -> bool:
    """Tell whether a host, an IPv6 one perhaps in brackets, is this machine."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def api_key(base_url: str, variable: str) -> str:
    """Return the key in the environment variable; a server on this machine needs none."""
    key = os.environ.get(variable, "").strip()
    if not key and not is_loopback(urlsplit(base_url).hostname or ""):
        raise InputError(
            f"the environment variable {variable} is not set: put the key of {base_url} there, or "
            "name another variable in api_key_env."
        )
    return key or NO_KEY


@dataclass(kw_only=True, eq=False)
class Endpoint:
    """What all that ask a server have in common (conf/endpoint.yaml).

    `timeout_s` counts seconds without a byte, `concurrency` requests in flight. Replies are kept in
    `cache_dir`, of several processes too; null keeps none. Prices are for a million tokens.
    """

    base_url: str
    model: str
    timeout_s: AboveZero = 120.0
    max_retries: Whole = 6
    concurrency: Positive = 16
    cache_dir: str | Path | None = None
    api_key_env: str = "OPENAI_API_KEY"
    price_per_million: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_values(type(self), vars(self))
        check_url(self.base_url)
        api_key(self.base_url, self.api_key_env)  # a missing one shows before anything is asked
        price = self.price_per_million
        if price is not None and set(price) != {"prompt", "completion"}:
            raise InputError("price_per_million needs prompt and completion, or leave it null.")


@dataclass(kw_only=True, eq=False)
class JsonEndpoint(Endpoint):
    """One that is asked for JSON, always by the same settings (conf/json_endpoint.yaml).

    Those that are None are not sent.
    """

    temperature: Amount | None = 0.0
    max_tokens: Positive | None = 1024
    seed: int | None = 0

    @property
    def decoding(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "seed": self.seed,
        }
