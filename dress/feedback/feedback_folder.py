"""A folder of sessions, which `data=lvlm_nlf` and `data=llava_preference` read as it lies.

`sessions.jsonl` holds every event, `images/` the pictures by their content, `lvlm_nlf.jsonl` and
`llava_preference.json` what was judged and compared. The last two are written anew from the first.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from dress.chat.images import as_shown
from dress.data.shard_writer import image_suffix
from dress.data.sources.lvlm_nlf import SESSIONS
from dress.data.sources.photographs import photograph_bytes
from dress.errors import InputError
from dress.feedback.conversations import Asked, Conversation, Event, Judged, event_of
from dress.files import naming, replacing, write_text

IMAGES, NLF, PREFERENCES = "images", "lvlm_nlf.jsonl", "llava_preference.json"
NOTHING = Conversation()  # of a session that is not there
MOST_BYTES = 20 * 2**20  # of a picture that is given


class FeedbackFolder:
    """Several threads and processes may write at once: whoever writes takes in the others' events.

    What `add` returned from is on the disk. A line that a crash cut short was never confirmed, and
    is removed by who writes next.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.conversations: dict[str, Conversation] = defaultdict(Conversation)
        self._rows: dict[str, tuple[str, str]] = {}  # by session, of the two files
        self._place = (0, 0)  # the file that was read, and how far
        self._thread_lock = threading.RLock()
        try:
            (root / IMAGES).mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._write_views()
        except OSError as error:
            raise InputError(
                f"cannot write to {root} ({error.strerror}): set chat.feedback to a folder that "
                "you may write to."
            ) from error

    def add(self, *events: Event) -> None:
        """Write events that are new and what comes of them.

        OSError names the file where the disk is full.
        """
        with self._locked():
            known = self.conversations
            events = tuple(e for e in events if not known.get(e.session, NOTHING).holds(e))
            try:
                for event in events:
                    if isinstance(event, Asked) and not event.parent and not self._has(event.image):
                        raise InputError("give a picture first.")
                    self._take(event)
                self._append(events)
            except BaseException:
                self._place = (0, 0)  # some were taken in, and are not on the disk: read all anew
                raise
            self._write_views()

    def add_image(self, data: bytes) -> str:
        """Keep a picture that can be shown; return its name. Reject where it cannot."""
        if len(data) > MOST_BYTES:
            raise InputError(f"the picture has more than {MOST_BYTES // 2**20} MB: give another.")
        shown = as_shown(data)
        name = f"{hashlib.sha256(shown).hexdigest()[:32]}.{image_suffix(shown, '')}"
        if not self._has(name):
            with replacing(self.root / IMAGES / name) as temporary:
                temporary.write_bytes(shown)
        return name

    def image(self, name: str) -> bytes:
        return photograph_bytes(self.root / IMAGES, name, key=name)

    def session(self, name: str) -> Conversation:
        """Return a copy of a session as it is now, with what other processes wrote."""
        with self._locked():
            known = self.conversations.get(name, NOTHING)
            return Conversation(**{field: dict(held) for field, held in vars(known).items()})

    def judgements(self) -> list[Judged]:
        """Return what was judged in all sessions as they are now."""
        with self._locked():
            return [j for known in self.conversations.values() for j in known.judged.values()]

    def forget(self, chosen: Callable[[str], bool]) -> int:
        """Delete sessions, and pictures that no other session names; return how many sessions."""
        with self._locked():
            gone = [name for name in self.conversations if chosen(name)]
            if gone:
                images = self._images(gone)
                lines = (self.root / SESSIONS).read_bytes().splitlines(keepends=True)
                kept = [line for line in lines if _record(line).get("session") not in gone]
                with replacing(self.root / SESSIONS) as temporary:
                    temporary.write_bytes(b"".join(kept))
                self._catch_up()
                for name in filter(self._has, images - self._images(self.conversations)):
                    (self.root / IMAGES / name).unlink()
                self._write_views()
        return len(gone)

    def _has(self, image: str) -> bool:
        return Path(image).name == image and (self.root / IMAGES / image).is_file()

    def _images(self, sessions: Iterable[str]) -> set[str]:
        return {t.image for name in sessions for t in self.conversations[name].turns.values()}

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with self._thread_lock, FileLock(self.root / ".lock"):
            self._catch_up()
            yield

    def _catch_up(self) -> None:
        """Take in what was appended since, by whomever; nobody else writes meanwhile."""
        path = self.root / SESSIONS
        if not path.exists():
            return
        with path.open("rb+") as file:
            number, done = os.fstat(file.fileno()).st_ino, self._place[1]
            if number != self._place[0] or os.fstat(file.fileno()).st_size < done:
                self.conversations.clear()
                self._rows.clear()
                done = 0
            file.seek(done)
            whole, _, torn = file.read().rpartition(b"\n")
            done += len(whole) + bool(whole)
            if torn:
                file.truncate(done)
        lines = whole.split(b"\n")
        for line_number, line in enumerate(lines, start=1):
            try:
                if (event := event_of(_record(line))) is not None:
                    self._take(event)
            except ValueError as error:
                line_number += path.read_bytes()[:done].count(b"\n") - len(lines)
                raise InputError(
                    f"{path}:{line_number} is no event of a session ({error}): delete that line."
                ) from None
        self._place = (number, done)

    def _take(self, event: Event) -> None:
        self.conversations[event.session].add(event)
        self._rows.pop(event.session, None)

    def _append(self, events: Collection[Event]) -> None:
        path, time = self.root / SESSIONS, datetime.now(UTC).isoformat(timespec="milliseconds")
        text = "".join(
            json.dumps(
                {"event": type(e).__name__.lower(), "time": time, **asdict(e)}, ensure_ascii=False
            )
            + "\n"
            for e in events
        )
        with naming(path), path.open("ab", buffering=0) as file:
            before, data = file.tell(), text.encode()
            try:
                if file.write(data) != len(data):
                    file.write(data[file.tell() - before :])  # says why there is no room
                os.fsync(file.fileno())
            except BaseException:
                file.truncate(before)
                raise
            self._place = (os.fstat(file.fileno()).st_ino, before + len(data))

    def _write_views(self) -> None:
        for name, conversation in self.conversations.items():
            if name not in self._rows:
                rows = conversation.nlf_rows(), conversation.preference_rows()
                nlf, pairs = (
                    "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in part) for part in rows
                )
                self._rows[name] = (nlf, pairs)
        for number, file in enumerate((NLF, PREFERENCES)):
            text = "".join(rows[number] for rows in self._rows.values())
            path = self.root / file
            if (path.read_bytes() if path.exists() else b"") != text.encode():
                write_text(path, text)


def _record(line: bytes) -> Mapping[str, Any]:
    record = json.loads(line) if line.strip() else {}
    if not isinstance(record, dict):
        raise InputError("not an object")
    return record
