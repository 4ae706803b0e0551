"""How fast the chat page answers, to how many at once, and what memory it takes.

    python benchmarks/chat_page.py http://127.0.0.1:7860 --answers 1000 --pid PID

It speaks to a page of job=chat as a browser does, and prints one line per measurement.
"""

from __future__ import annotations

import argparse
import json
import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any
from uuid import uuid4

LIMIT_S = 600
_ANSWER = re.compile(r'class=\\"answer\\">.*<p>[^…<]')


@dataclass
class Tab:
    """One browser's tab on a page: it calls the page's methods by their names."""

    address: str
    state: Any = None  # as the browser would store it
    name: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        with urllib.request.urlopen(f"{self.address}/config", timeout=LIMIT_S) as reply:
            config = json.load(reply)
        self.methods = {d["api_name"]: d for d in reversed(config["dependencies"])}
        shown = [(c["id"], c["type"], c["props"]) for c in config["components"]]
        self.values = {number: props.get("value") for number, _, props in shown}
        self.names = {(kind, props.get("label")): number for number, kind, props in shown}

    def events(self, method: str) -> Iterator[dict[str, Any]]:
        """Call a method and yield what the page sends, the last with all that is shown."""
        self.values[self.names["browserstate", None]] = self.state
        called = self.methods[method]
        data = {
            "data": [self.values[number] for number in called["inputs"]],
            "fn_index": called["id"],
            "session_hash": self.name,
        }
        join = urllib.request.Request(
            f"{self.address}/gradio_api/queue/join",
            json.dumps(data).encode(),
            {"content-type": "application/json"},
        )
        urllib.request.urlopen(join, timeout=LIMIT_S).close()
        where = f"{self.address}/gradio_api/queue/data?session_hash={self.name}"
        with urllib.request.urlopen(where, timeout=LIMIT_S) as stream:
            for line in stream:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])

    def call(self, method: str) -> str:
        """Call a method to its end, take its state over, and return all it showed last."""
        shown: list[Any] = []
        for event in self.events(method):
            if event["msg"] in ("process_generating", "process_completed"):
                shown = event["output"].get("data") or shown
                self._store(shown)
        return json.dumps(shown)

    def _store(self, shown: list[Any]) -> None:
        if shown and isinstance(shown[0], dict) and "session" in shown[0]:
            self.state = shown[0]

    def draw(self) -> None:
        self.call("_draw")

    def ask(self, text: str) -> list[float]:
        """Ask, and return the seconds until each text that is shown, then until it is kept."""
        began, seconds = time.monotonic(), list[float]()
        self.values[self.names["textbox", "Your message (Enter sends)"]] = text
        for event in self.events("_send"):
            if event["msg"] not in ("process_generating", "process_completed"):
                continue
            shown = event["output"].get("data") or []
            self._store(shown)
            if _ANSWER.search(json.dumps(shown, ensure_ascii=False)):
                seconds.append(time.monotonic() - began)
        return [*seconds, time.monotonic() - began]

    def judge(self, **ratings: int) -> bool:
        """Rate the answer; tell whether the page confirmed it."""
        for aspect, rating in ratings.items():
            self.values[self.names["radio", aspect.capitalize()]] = rating
        return ">saved<" in self.call("_judge")


def memory(pid: int) -> float:
    """Return the resident memory of a process that is no file's, in MB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("address")
    parser.add_argument("--answers", type=int, default=100)
    parser.add_argument("--pid", type=int, required=True, help="of the page, for its memory")
    given = parser.parse_args()
    tab = Tab(given.address)
    asked = []
    for _ in range(10):
        tab.draw()
        asked.append(tab.ask("Describe the picture."))
    for name, number in (("first token", 0), ("whole answer", -1)):
        seconds = [times[number] for times in asked]
        print(f"{name}: median {median(seconds):.2f} s, worst {max(seconds):.2f} s", flush=True)
    tabs = [Tab(given.address) for _ in range(8)]
    for other in tabs:
        other.draw()
    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        eight = list(pool.map(lambda other: other.ask("Describe the picture.")[-1], tabs))
    print(f"eight at once: {len(eight)} answered in {time.monotonic() - began:.2f} s", flush=True)
    for number in range(given.answers):
        if number % 5 == 0:
            tab.draw()
        tab.ask("Describe the picture.")
        assert tab.judge(helpfulness=4, honesty=1, harmlessness=2)
        if number % 100 == 99:
            print(f"{number + 1} answers: {memory(given.pid):.0f} MB", flush=True)


if __name__ == "__main__":
    main()
