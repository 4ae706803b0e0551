"""The bytes of one group in a shard to a Sample; whatever is odd about them is a Reject.

Members are slices of the bytes read, so none can be larger than these or lead anywhere else;
nothing is unpacked, and no compression, link, device, sparse file or extended header is followed.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator

from dress.data.schema import from_json, parse_json
from dress.data.shard_writer import MAX_GROUP_BYTES, MAX_MEMBER_BYTES, group_key
from dress.errors import Reject
from dress.types import Sample

# webdataset reads these when it is imported and when it opens a URL: no switch from outside
for _name in [name for name in os.environ if name.startswith(("WDS_", "GOPEN_", "USE_AIS_FOR"))]:
    del os.environ[_name]

import webdataset.utils  # noqa: E402
from webdataset.tariterators import base_plus_ext  # noqa: E402

webdataset.utils.enforce_security = True  # no pickled member is ever decoded, no pipe opened

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
_KINDS = {
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.DIRTYPE: "a folder",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


def check_size(size: int) -> None:
    if size > MAX_GROUP_BYTES:
        raise Reject("group too large", detail=f"{size} bytes")


def read_group(data: bytes, *, where: str) -> Sample:
    """Return the one group whose members are exactly `data`; raise Reject naming `where`."""
    key, members = _members(data, where=where)
    record = parse_json(members.pop("json"), where=where, key=key)
    numbers = sorted(members, key=int)
    if numbers != [str(number) for number in range(len(members))]:
        raise Reject("image missing", key=key, where=where, detail=f"numbers {', '.join(numbers)}")
    images = [members[number] for number in numbers]
    sample = from_json(record, images, where=where, key=key)
    if group_key(sample.id) != key:
        raise Reject("id differs from member name", key=key, where=where, detail=sample.id)
    return sample


def _members(data: bytes, *, where: str) -> tuple[str, dict[str, bytes]]:
    """Split the bytes of one group into its record, under "json", and images, under "0", "1"."""
    members: dict[str, bytes] = {}
    only = ""
    for file, content in _plain_files(data, where=where):
        key, suffix = base_plus_ext(file)
        if key is None or "/" in key or "\\" in key:
            raise Reject("unsafe member name", where=where, key=file)
        only = only or key
        if key != only:
            raise Reject("members of two groups", where=where, key=only, detail=file)
        name = _member_name(suffix, where=where, key=key)
        if name in members:
            raise Reject("member twice", where=where, key=key, detail=file)
        if len(content) > MAX_MEMBER_BYTES:
            raise Reject("member too large", where=where, key=key, detail=f"{len(content)} bytes")
        members[name] = content
    if "json" not in members:
        raise Reject("record missing", where=where, key=only)
    return only, members


def _plain_files(data: bytes, *, where: str) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of each member; each header stands alone, none refers to another."""
    begin = 0
    while begin < len(data):
        try:
            block = data[begin : begin + tarfile.BLOCKSIZE]
            info = tarfile.TarInfo.frombuf(block, encoding="utf-8", errors="backslashreplace")
        except (tarfile.HeaderError, ValueError) as error:
            raise Reject("damaged tar", where=where, detail=f"byte {begin}: {error}") from None
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _KINDS.get(info.type, "an extended header")
            raise Reject("not a plain file", where=where, key=info.name, detail=kind)
        start, stop = begin + tarfile.BLOCKSIZE, begin + tarfile.BLOCKSIZE + info.size
        begin = start - (-info.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        if not start <= stop <= begin <= len(data):
            raise Reject("damaged tar", where=where, key=info.name, detail=f"{info.size} bytes")
        yield info.name, data[start:stop]


def _member_name(suffix: str, *, where: str, key: str) -> str:
    number, _, extension = suffix.rpartition(".")
    if suffix == "json":
        return "json"
    if extension not in IMAGE_SUFFIXES or not (number == "" or number.isdecimal()):
        raise Reject("unknown suffix", where=where, key=key, detail=repr(suffix)[:80])
    return number or "0"
