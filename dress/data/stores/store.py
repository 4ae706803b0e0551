"""Where a folder of shards lies: on this machine, or behind http(s):// or s3://."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from dress.errors import InputError

REMOTE = ("http", "https", "s3")
_UNSAFE = re.compile(r"[^!-~]")  # a space, a line's end, other letters than ASCII's
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")


class Store(Protocol):
    """A folder of files that are read in parts."""

    def read(self, name: str, begin: int, end: int) -> bytes:
        """Return bytes begin to end (exclusive) of a file, fewer where it is shorter.

        Raises OSError where every attempt failed.
        """
        ...

    def sizes(self) -> Mapping[str, int] | None:
        """Return the bytes of every file; None where that is not told at once."""
        ...

    def where(self, name: str) -> str:
        """Name a file in messages, without any key."""
        ...


def open_store(location: str | os.PathLike[str]) -> Store:
    """Return the store for a path or URL; raise InputError for one of another kind."""
    from dress.data.stores.local import LocalStore

    place = os.fspath(location)
    if not is_remote(place):
        return LocalStore(place)
    check_url(place)
    try:
        if urlsplit(place).scheme == "s3":
            from dress.data.stores.s3 import S3Store

            return S3Store(place)
        from dress.data.stores.http import HttpStore

        return HttpStore(place)
    except ImportError as error:
        raise InputError(
            f"{public(place)} needs the package {error.name}: pip install 'dress[remote]'."
        ) from error


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
