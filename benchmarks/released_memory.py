"""Measure the memory that import and export of a released LLaVA model take beside its weights.

    python benchmarks/released_memory.py DIR

imports the model in DIR and writes all its weights anew. Peaks are of anonymous memory (RssAnon,
sampled each millisecond), without what the libraries take before; pages of files are not counted.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from pathlib import Path

from dress.modeling.build import build_model
from dress.modeling.hub.llava_writer import write_model
from dress.modeling.hub.released import described
from dress.modeling.tokenizer import load_tokenizer

PARTS = {"vision", "projector", "language"}
GB = 1e9


def anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no RssAnon")


class Peak:
    """The largest value seen while a block runs."""

    def __enter__(self) -> Peak:
        self.bytes, self._ended = anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._ended.is_set():
            self.bytes = max(self.bytes, anonymous())
            time.sleep(0.001)

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def specification(folder: str) -> dict[str, object]:
    found = described(folder)
    common = {"name": None, "random_init": False}
    config = json.loads((Path(folder) / "config.json").read_text())
    dtype = config.get("dtype") or config.get("torch_dtype") or "float32"
    return {
        "name": folder,
        "random_init": False,
        "vision": {**common, "pretrained": None, **found["vision"]},
        "projector": {"kind": "mlp", **found["projector"]},
        "language": {**common, "dtype": dtype, **found["language"]},
    }


def main(folder: str) -> None:
    weights = sum(file.stat().st_size for file in Path(folder).glob("*.safetensors"))
    spec, tokenizer = specification(folder), load_tokenizer(folder)
    before = anonymous()
    started = time.monotonic()
    with Peak() as loading:
        model = build_model(spec, tokenizer=tokenizer)
    loaded = time.monotonic()
    with tempfile.TemporaryDirectory() as out, Peak() as writing:
        write_model(model, Path(out), base=folder, changed=PARTS, shard_size="5GB")
    print(f"weights {weights / GB:.2f} GB")
    for name, peak, seconds in (
        ("import", loading, loaded - started),
        ("export", writing, time.monotonic() - loaded),
    ):
        taken = peak.bytes - before
        print(f"{name}: {taken / GB:.2f} GB, {taken / weights:.2f} times, {seconds:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1])
