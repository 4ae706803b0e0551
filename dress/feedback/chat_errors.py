"""What the SDK raises as one sentence of our own, without headers and without the key."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from dress.errors import InputError, Reject
from dress.feedback.endpoint import NO_KEY

SDK_LIMIT_S = 120.0  # a longer Retry-After makes openai.AsyncOpenAI give up at once
LONGEST_WAIT_S = 3600.0
_MESSAGE_LENGTH = 200


def explained(
    error: APIError, *, base_url: str, model: str, api_key_env: str, secret: str
) -> InputError | Reject:
    """Tell a mistake in the settings, which ends the run, from a request that failed."""
    if isinstance(error, APITimeoutError):
        return Reject("no answer in time", detail=base_url)
    if isinstance(error, APIConnectionError):
        if type(error.__cause__).__name__ == "ConnectError":  # nobody listens there
            return InputError(f"cannot reach {base_url}: start the server or correct base_url.")
        return Reject("connection lost", detail=base_url)
    if not isinstance(error, APIStatusError):
        return Reject("no chat completion", detail=base_url)
    status, said = error.status_code, _message(error, secret)
    if status in (401, 403):
        return InputError(
            f"{base_url} refuses the key (HTTP {status}{said}): correct the environment variable "
            f"{api_key_env}."
        )
    if status == 404:
        return InputError(
            f"{base_url} has no chat completions of {model!r} (HTTP 404{said}): correct base_url "
            "or model."
        )
    return Reject(f"HTTP {status}", detail=f"{base_url}{said}")


def long_wait(error: APIError) -> float | None:
    """Return the seconds to wait where the SDK gave up only because they were too many."""
    if not isinstance(error, APIStatusError):
        return None
    if error.status_code not in (408, 409, 429) and error.status_code < 500:
        return None
    seconds = _retry_after(error.response.headers.get("retry-after", ""))
    return seconds if SDK_LIMIT_S < seconds <= LONGEST_WAIT_S else None


def _retry_after(text: str) -> float:
    """Read a number of seconds or a date; nan where the text is neither."""
    try:
        return float(text)
    except ValueError:
        pass
    try:
        return (parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):
        return math.nan


def _message(error: APIStatusError, secret: str) -> str:
    text = error.body.get("message") if isinstance(error.body, dict) else None
    if not isinstance(text, str):
        return ""
    if secret != NO_KEY:
        text = text.replace(secret, "***")
    return f": {' '.join(text.split())[:_MESSAGE_LENGTH]}"
