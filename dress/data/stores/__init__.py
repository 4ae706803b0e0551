"""Folders of shards by their path or URL."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from dress.data.stores.store import LocalStore, Store, check_url, is_remote, public
from dress.errors import InputError


def open_store(location: str | os.PathLike[str]) -> Store:
    """Return the store for a path or URL; raise InputError for one of another kind."""
    place = os.fspath(location)
    if not is_remote(place):
        return LocalStore(place)
    check_url(place)
    try:
        if urlsplit(place).scheme == "s3":
            from dress.data.stores.s3 import S3Store  # s3fs: an extra, and a second

            return S3Store(place)
        from dress.data.stores.http import HttpStore  # aiohttp: an extra, and half a second

        return HttpStore(place)
    except ImportError as error:
        raise InputError(
            f"{public(place)} needs the package {error.name}: pip install 'dress[remote]'."
        ) from error
