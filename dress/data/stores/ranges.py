"""Byte ranges as HTTP has them (RFC 9110, section 14), which S3 shares."""

from __future__ import annotations

import errno
import re
from io import UnsupportedOperation

_ANSWER = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def asked(begin: int, end: int) -> str:
    """Return the Range header for bytes begin to end (exclusive)."""
    return f"bytes={begin}-{end - 1}"


def end_of_answer(status: int, header: str, length: int | None, *, begin: int, end: int) -> int:
    """Return where the bytes of an answer with status 206 or 200 have to end.

    `header` is its Content-Range. Raises UnsupportedOperation where the answer is another part of
    the file than the one asked for: 200 is the whole file, which helps only at its beginning.
    """
    found = _ANSWER.fullmatch(header)
    if status == 206 and found and int(found[1]) == begin:
        return int(found[2]) + 1 if found[3] == "*" else min(end, int(found[3]))
    if status == 200 and begin == 0:
        return min(end, length or 0)
    raise UnsupportedOperation(errno.EOPNOTSUPP, "the server ignores byte ranges")


def check_whole(data: bytes, *, begin: int, stop: int) -> bytes:
    if len(data) < stop - begin:
        raise OSError(errno.EIO, f"{len(data)} of {stop - begin} bytes arrived")
    return data
