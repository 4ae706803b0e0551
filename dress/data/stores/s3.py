"""A folder in S3, or in any store with its interface (AWS_ENDPOINT_URL).

Keys come from where Amazon's own tools look: the environment, ~/.aws, the machine's role.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from io import UnsupportedOperation

from aiohttp import ClientError
from botocore.exceptions import BotoCoreError, NoCredentialsError
from fsspec.asyn import sync
from s3fs import S3FileSystem

from dress.data.reading import with_retries
from dress.data.stores.addresses import asked, below, check_whole, end_of_answer

TIMEOUT_S = 30.0  # to connect, and without a byte
_CODE = r"\w{1,60}"


class S3Store:
    def __init__(self, url: str) -> None:
        self._url = url
        self._opened: dict[int, S3FileSystem] = {}  # by process: connections survive no fork

    def read(self, name: str, begin: int, end: int) -> bytes:
        url = below(self._url, name)

        def read() -> bytes:
            files = self._files()
            try:
                return sync(files.loop, _fetch, files, url, begin, end)
            except UnsupportedOperation:
                raise
            except (BotoCoreError, ClientError, OSError) as error:
                if (translated := _translated(error)) is None:
                    return b""
                raise translated from None

        return with_retries(read, url)

    def sizes(self) -> Mapping[str, int] | None:
        return None

    def where(self, name: str) -> str:
        return below(self._url, name)

    def _files(self) -> S3FileSystem:
        process = os.getpid()
        if process not in self._opened:
            once = {"retries": {"total_max_attempts": 1}}  # `with_retries` counts and shows them
            files = S3FileSystem(
                config_kwargs={"connect_timeout": TIMEOUT_S, "read_timeout": TIMEOUT_S, **once},
                skip_instance_cache=True,
            )
            files.retries = 1
            self._opened[process] = files
        return self._opened[process]


async def _fetch(files: S3FileSystem, url: str, begin: int, end: int) -> bytes:
    bucket, key, _ = files.split_path(url)
    answer = await files._call_s3("get_object", Bucket=bucket, Key=key, Range=asked(begin, end))
    async with answer["Body"] as body:
        status = answer["ResponseMetadata"]["HTTPStatusCode"]
        answered, length = answer.get("ContentRange", ""), answer.get("ContentLength")
        stop = end_of_answer(status, answered, length, begin=begin, end=end)
        data = await body.read(end - begin)
    return check_whole(data, begin=begin, stop=stop)


def _translated(error: Exception) -> OSError | None:
    """Return the error to raise, without words of the server; None where the file is shorter."""
    if isinstance(error, NoCredentialsError):
        return PermissionError(errno.EACCES, "no key found")
    response = getattr(error.__cause__, "response", None) or {}
    code = str(response.get("Error", {}).get("Code", ""))
    if code in ("416", "InvalidRange"):
        return None
    if isinstance(error, OSError) and error.errno and not response:
        return error  # of the system, or our own
    text = f"S3: {code if re.fullmatch(_CODE, code) else type(error).__name__}"
    for kind in (FileNotFoundError, PermissionError):
        if isinstance(error, kind):
            return kind(error.errno or errno.EACCES, text)
    return OSError(errno.EIO, text)
