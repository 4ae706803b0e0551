"""A folder on a web server that answers byte ranges."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import NoReturn

import aiohttp
from fsspec.asyn import sync
from fsspec.implementations.http import HTTPFileSystem

from dress.data.reading import with_retries
from dress.data.stores.addresses import asked, below, check_whole, end_of_answer, public

TIMEOUT_S = 30.0  # to connect, and without a byte
TOTAL_S = 600.0  # for one range
_PASSING = {408, 425, 429}  # beside 5xx


class HttpStore:
    """Read ranges over connections that fsspec keeps; a proxy or .netrc counts as usual."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: dict[int, HTTPFileSystem] = {}  # by process: connections survive no fork

    def read(self, name: str, begin: int, end: int) -> bytes:
        url = below(self._url, name)

        def read() -> bytes:
            files = self._files()
            try:
                return sync(files.loop, _fetch, files, url, begin, end)
            except TimeoutError:
                raise OSError(errno.ETIMEDOUT, "no answer in time") from None
            except aiohttp.ClientError as error:  # its text may hold the whole URL
                raise OSError(errno.EIO, f"connection failed, {type(error).__name__}") from None

        return with_retries(read, public(url))

    def sizes(self) -> Mapping[str, int] | None:
        return None

    def where(self, name: str) -> str:
        return public(below(self._url, name))

    def _files(self) -> HTTPFileSystem:
        process = os.getpid()
        if process not in self._opened:
            timeout = aiohttp.ClientTimeout(
                total=TOTAL_S, sock_connect=TIMEOUT_S, sock_read=TIMEOUT_S
            )
            self._opened[process] = HTTPFileSystem(
                encoded=True,
                client_kwargs={"timeout": timeout, "trust_env": True},
                skip_instance_cache=True,
            )
        return self._opened[process]


async def _fetch(files: HTTPFileSystem, url: str, begin: int, end: int) -> bytes:
    session = await files.set_session()
    headers = {"Range": asked(begin, end), "Accept-Encoding": "identity"}
    async with session.get(files.encode_url(url), headers=headers) as response:
        if response.status == 416:  # the file ends before `begin`
            return b""
        if response.status not in (200, 206):
            _refused(response.status)
        answered = response.headers.get("Content-Range", "")
        length = response.content_length
        stop = end_of_answer(response.status, answered, length, begin=begin, end=end)
        parts, left = [], end - begin
        while left and (part := await response.content.read(left)):
            parts.append(part)
            left -= len(part)
    return check_whole(b"".join(parts), begin=begin, stop=stop)


def _refused(status: int) -> NoReturn:
    text = f"HTTP {status}"
    if status >= 500 or status in _PASSING:
        raise OSError(errno.EAGAIN, text)
    if status in (404, 410):
        raise FileNotFoundError(errno.ENOENT, text)
    raise PermissionError(errno.EACCES, text)
