"""Addresses of shards: which are remote, what may be shown of them, and byte ranges."""

from __future__ import annotations

import errno
import os
import re
from io import UnsupportedOperation
from urllib.parse import urlsplit, urlunsplit

from dress.errors import InputError

REMOTE = ("http", "https", "s3")
_UNSAFE = re.compile(r"[^!-~]")  # a space, a line's end, other letters than ASCII's
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
_ANSWER = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")


def is_remote(location: str | os.PathLike[str]) -> bool:
    return "://" in os.fspath(location)


def check_url(url: str) -> None:
    """Refuse what is no address of a folder on the web or in S3."""
    scheme, _, rest = url.partition("://")
    if scheme not in REMOTE:
        raise InputError(
            f"{scheme[:40]!r} is no kind of place for shards: give a path or "
            f"{', '.join(f'{known}://' for known in REMOTE)}."
        )
    if _UNSAFE.search(url) or not rest.strip("/") or "#" in url:
        raise InputError(f"{public(url)} is no address of a folder: give one, percent-encoded.")
    bucket = rest.split("/")[0]
    if scheme == "s3" and not (_BUCKET.fullmatch(bucket) and "?" not in rest):
        raise InputError(
            "an address in S3 is s3://BUCKET/FOLDER: the key belongs into the environment, "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
        )


def has_key(url: str) -> bool:
    """Tell whether a URL carries a password or a query, which may be a signature."""
    parts = urlsplit(url)
    return "@" in parts.netloc or bool(parts.query)


def public(location: str | os.PathLike[str]) -> str:
    """Return a path as it is, a URL without user, password and query."""
    place = os.fspath(location)
    if not is_remote(place):
        return place
    scheme, _, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    path, mark, _ = f"{slash}{path}".partition("?")
    shown = f"{scheme}://{host.rpartition('@')[2].partition('?')[0]}{path}{'?...' if mark else ''}"
    return _UNSAFE.sub("?", shown)


def below(location: str | os.PathLike[str], name: str) -> str:
    """Return the place of a file or folder in a folder; the query of a URL is kept."""
    place = os.fspath(location)
    if not is_remote(place):
        return os.path.join(place, name)
    parts = urlsplit(place)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}"))


def asked(begin: int, end: int) -> str:
    """Return the Range header for bytes begin to end (exclusive): RFC 9110, section 14."""
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
