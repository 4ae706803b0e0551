"""What the SDK raises as one sentence of our own, without headers and without the key."""

from __future__ import annotations

from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

from dress.errors import InputError, Reject
from dress.feedback.endpoint import NO_KEY

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


def _message(error: APIStatusError, secret: str) -> str:
    text = error.body.get("message") if isinstance(error.body, dict) else None
    if not isinstance(text, str):
        return ""
    if secret != NO_KEY:
        text = text.replace(secret, "***")
    return f": {' '.join(text.split())[:_MESSAGE_LENGTH]}"
