"""People as an annotator: answers are served as a queue until enough have judged each."""

from __future__ import annotations

from pathlib import Path

from dress.settings import Positive, Whole, checked


class HumanAnnotator:
    @checked
    def __init__(
        self,
        *,
        overlap: Positive,
        folder: str,
        host: str,
        port: Whole,
        requests_per_minute: Positive,
    ) -> None:
        self.overlap, self.folder = overlap, Path(folder)
        self.host, self.port, self.requests_per_minute = host, port, requests_per_minute
