"""Finished shards of a training and a validation split, by the place where they lie."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Protocol

from dress.data.reading import explained
from dress.data.stores.store import open_store
from dress.errors import InputError

LINEAGE = "lineage.json"
_MAX_LINEAGE = 2**20  # bytes


class ShardSet(Protocol):
    """An artifact of shards, or a copy of one behind a URL, with the folders of its splits."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def location(self) -> str:
        """A path or a URL, which may hold a key: show it only by `public`."""
        ...


@dataclass(frozen=True)
class RemoteShards:
    """A copy of an artifact, known by what its lineage says."""

    location: str
    name: str
    fingerprint: str

    @classmethod
    def open(cls, url: str) -> RemoteShards:
        """Read who it is; raise InputError where that fails or it is no artifact of shards."""
        store = open_store(url)
        where = store.where(LINEAGE)
        try:
            lineage = json.loads(store.read(LINEAGE, 0, _MAX_LINEAGE))
            kind, name, fingerprint = (lineage[k] for k in ("kind", "name", "fingerprint"))
        except FileNotFoundError:
            raise InputError(
                f"{where} does not exist: give the address of a copy of an artifact of shards."
            ) from None
        except OSError as error:
            raise InputError(f"{where} cannot be read ({explained(error)}).") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{where} is damaged: copy the artifact again.") from None
        if kind != "shards" or not isinstance(name, str) or not isinstance(fingerprint, str):
            raise InputError(f"{where} describes no shards: give the address of some.")
        return cls(location=url, name=name, fingerprint=fingerprint)
