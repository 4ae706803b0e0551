"""What sources of photographs share, and several of them as one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from dress.chat.images import decode_image
from dress.data.sources.source import Part, Source
from dress.errors import InputError, Reject
from dress.files import is_unicode
from dress.fingerprint import content_hash
from dress.records import Sample

_LONGEST_NAME = 255  # bytes: what file systems take
_MAX_BYTES = 64 * 2**20
_HASH_WHOLE = 2**30  # bytes of photographs above which only names and sizes are hashed


class Photographs(Source):
    """Take rows from several sources in turn; their ids get the name of the source in front."""

    def __init__(self, *, sources: Mapping[str, Source]) -> None:
        if not sources:
            raise InputError("source.sources is empty: name at least one source.")
        self.sources = dict(sources)

    def rows(self, part: Part) -> Iterator[tuple[str, Any]]:
        return _in_turn({name: source.rows(part) for name, source in self.sources.items()})

    def convert(self, part: Part, row: tuple[str, Any]) -> Iterator[Sample | Reject]:
        name, its_row = row
        return (_renamed(name, item) for item in self.sources[name].convert(part, its_row))

    def texts(self) -> Iterator[str]:
        for source in self.sources.values():
            yield from source.texts()

    def inputs(self) -> dict[str, str]:
        return {
            f"{name}/{path}": content
            for name, source in self.sources.items()
            for path, content in source.inputs().items()
        }


def data_root(root: str | Path | None) -> Path:
    """Return the folder of real data, or say that it is missing."""
    if root is None or not Path(root).is_dir():
        raise InputError(
            f"data.root is {str(root)!r}, which is no directory: "
            "give data.root=<the folder that holds the photographs and annotations>."
        )
    return Path(root)


def photograph_path(folder: Path, name: str, *, key: str) -> Path:
    """Return where a photograph lies; a name that leads out of `folder` or is none is a Reject."""
    parts = PurePosixPath(name)
    outside = parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name
    if not name or outside or not is_unicode(name) or len(name.encode()) > _LONGEST_NAME:
        raise Reject("unsafe file name", key=key, where=str(folder), detail=repr(name)[:80])
    return folder / parts


def photograph_paths(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return where photographs lie, each once; what is no name of one is left out."""
    paths: dict[Path, None] = {}
    for name in names:
        with suppress(Reject):
            paths[photograph_path(folder, name, key="")] = None
    return list(paths)


def photograph_bytes(folder: Path, name: str, *, key: str) -> bytes:
    """Read the photograph of this name; see `photograph_path` and `read_photograph`."""
    return read_photograph(photograph_path(folder, name, key=key), key=key)


def read_photograph(path: Path, *, key: str) -> bytes:
    """Read a JPEG, PNG or WebP file and decode it once; what does not decode is a Reject."""
    try:
        if not path.is_file():
            raise Reject("missing image")
        if (size := path.stat().st_size) > _MAX_BYTES:
            raise Reject("image too large", detail=f"{size} bytes")
        data = path.read_bytes()
        decode_image(data, at_least=1)  # JPEG: reads every byte, but decodes an eighth of the size
    except Reject as reject:
        raise reject.at(where=str(path), key=key) from None
    except OSError as error:
        detail = error.strerror or type(error).__name__
        raise Reject("unreadable image", key=key, where=str(path), detail=detail) from None
    return data


def photographs_hash(paths: Sequence[Path]) -> str:
    """Hash the names, sizes and bytes of photographs; of a large set only names and sizes.

    A file that is absent counts as such. Reading tens of GB before every job would cost minutes.
    """
    sizes = {path: path.stat().st_size if path.is_file() else -1 for path in paths}
    whole = sum(sizes.values()) <= _HASH_WHOLE
    digest = hashlib.sha256()
    for path, size in sorted(sizes.items()):
        content = content_hash(path) if whole and size >= 0 else ""
        digest.update(f"{path.name}\0{size}\0{content}\n".encode())
    return digest.hexdigest()


def _in_turn(streams: Mapping[str, Iterator[Any]]) -> Iterator[tuple[str, Any]]:
    """One from each in turn, until all are at their end."""
    left = dict(streams)
    while left:
        for name, stream in list(left.items()):
            try:
                yield name, next(stream)
            except StopIteration:
                del left[name]


def _renamed(name: str, item: Sample | Reject) -> Sample | Reject:
    if isinstance(item, Reject):
        key = f"{name}/{item.key}"
        return Reject(item.reason, key=key, where=item.where, detail=item.detail)
    return replace(item, id=f"{name}/{item.id}")
