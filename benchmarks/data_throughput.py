"""Photographs to batches of pixels: our stream, the bare decode loop, webdataset, datasets.

    python benchmarks/data_throughput.py --out data_throughput.json

Shards of synthetic photographs (640 x 480, quality 90, 1/f noise) are made in a temporary folder
and read from the page cache. Each way ends in batches of 16 x 224 x 224 x 3 bytes in the main
process: all use the same decoder and the same resizing, and none normalises, which is left to the
tower. `ours` checks every record, `ours, with text` also tokenises and packs the dialogues. The
limit is the decode loop alone, in as many processes, over bytes in memory. The figure is
CPU-seconds of all processes for a sample, so that other work on the machine matters little; ways
alternate, ratios are within a round.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # read when the libraries below are imported
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}

import numpy as np
import torch
import webdataset as wds
from PIL import Image
from torch.utils.data import DataLoader, default_collate

from dress.chat.encoders import InstructionEncoder
from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.data.collate import TreeCollator, stacked_images
from dress.data.rejects import Rejects
from dress.data.shard_writer import ShardWriter
from dress.data.stream import GroupStream, StepLoader, StepStream
from dress.modeling.tokenizer import train_tokenizer
from dress.modeling.vision import open_clip_tower
from dress.types import Dialogue, EncodedGroup, Sample, TokenBatch, Turn
from dress.version import code_version

try:
    import datasets
except ImportError:
    datasets = None

SIZE, BATCH = 224, 16
DISTINCT = 128  # photographs, repeated
QUESTION = "What can be seen in this picture, and where is it?"
ANSWER = "Clouds of many colours, softer towards the left, with a fine grain over all of it."
SHAPE = {"image_size": SIZE, "patch_size": 32, "width": 64, "layers": 1, "head_width": 32}
Run = Callable[[], int]


def photograph(seed: int) -> bytes:
    """Noise whose amplitude falls as 1/f, as in photographs; about 200 kB."""
    rng = np.random.default_rng(seed)
    height, width = 480, 640
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.normal(size=(3, height, width))) / frequency
    planes = np.fft.irfft2(spectrum, s=(height, width))
    planes += 0.6 * planes.mean(axis=0)  # colours go together
    planes = 128 + 48 * (planes - planes.mean()) / planes.std()
    buffer = BytesIO()
    picture = Image.fromarray(planes.clip(0, 255).astype(np.uint8).transpose(1, 2, 0))
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def photographs(folder: Path | None) -> list[bytes]:
    if folder is None:
        return [photograph(seed) for seed in range(DISTINCT)]
    return [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]


def write(directory: Path, images: Sequence[bytes], number: int) -> None:
    with ShardWriter(directory, max_groups=max(1, number // 8)) as writer:
        for n in range(number):
            image = images[n % len(images)] + b"%d" % n  # bytes after the end: no two are the same
            dialogue = Dialogue((Turn(QUESTION, ANSWER),))
            writer.write(Sample(f"sample-{n}", (image,), (dialogue,)))


class Ways:
    """Every way to read all samples once; each returns how many there were."""

    def __init__(self, directory: Path, images: Sequence[bytes], number: int, *, draft: bool):
        self.directory, self.images, self.number = directory, images, number
        tower = open_clip_tower(config=SHAPE, random_init=True, draft=draft)
        self.preprocess, self.at_least = tower.preprocess, SIZE if draft else None
        tokenizer = train_tokenizer([QUESTION, ANSWER], vocab_size=300)
        self.processor = Processor(
            tokenizer=tokenizer,
            template=ChatTemplate(),
            preprocess=tower.preprocess,
            num_image_tokens=tower.num_tokens,
            max_length=512,
            decode_at_least=self.at_least,
        )
        self.urls = sorted(map(str, directory.glob("*.tar")))

    def pixels(self, data: bytes) -> torch.Tensor:
        """Decode and resize without any check: what everybody has to do."""
        image = Image.open(BytesIO(data))
        if self.at_least is not None:
            image.draft(None, (self.at_least, self.at_least))
        return self.preprocess(image)

    def limit(self, workers: int) -> int:
        """Decode in so many processes and throw the pixels away."""

        def work(first: int) -> None:
            for n in range(first, self.number, workers):
                self.pixels(self.images[n % len(self.images)])

        context = multiprocessing.get_context("fork")
        processes = [context.Process(target=work, args=(n,)) for n in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        return self.number

    def ours(self, workers: int) -> int:
        return self._stream(self._encode, _stack, workers)

    def ours_with_text(self, workers: int) -> int:
        collator = TreeCollator(
            pad_token_id=0,
            image_token_id=self.processor.image_token_id,
            num_image_tokens=self.processor.num_image_tokens,
        )
        return self._stream(InstructionEncoder(processor=self.processor), collator, workers)

    def _encode(self, sample: Sample, *, epoch: int) -> EncodedGroup:
        return EncodedGroup(sample.id, (), self.processor.load_images(sample.images)[1])

    def _stream(self, encoder: Any, collator: Any, workers: int) -> int:
        stream = GroupStream(directory=self.directory, seed=0)
        steps = StepStream(
            stream=stream,
            encoder=encoder,
            collator=collator,
            groups_per_step=BATCH,
            stop=len(stream),
        )
        loader = StepLoader(steps=steps, rejects=Rejects(), num_workers=workers)
        return counted(batch.pixels for batches in loader for batch in batches)

    def webdataset(self, workers: int) -> int:
        dataset = wds.WebDataset(self.urls, shardshuffle=False).map(self._plain_row)
        batches = dataset.batched(BATCH, collation_fn=default_collate)
        return counted(wds.WebLoader(batches, batch_size=None, num_workers=workers))

    def _plain_row(self, row: dict[str, bytes]) -> torch.Tensor:
        json.loads(row["json"])
        return self.pixels(row["jpg"])

    def hugging_face(self, workers: int) -> int:
        rows = datasets.load_dataset(
            "webdataset", data_files=self.urls, split="train", streaming=True
        ).cast_column("jpg", datasets.Image(decode=False))
        loader = DataLoader(
            rows, batch_size=BATCH, num_workers=workers, collate_fn=self._plain_batch
        )
        return counted(loader)

    def _plain_batch(self, rows: Sequence[dict[str, Any]]) -> torch.Tensor:
        return default_collate([self.pixels(row["jpg"]["bytes"]) for row in rows])


def _stack(groups: Sequence[EncodedGroup]) -> tuple[TokenBatch, ...]:
    """Batch the pixels alone."""
    none = torch.zeros(0, dtype=torch.int64)
    pixels = stacked_images([image for group in groups for image in group.pixels.values()])
    fields = {field.name: none for field in dataclasses.fields(TokenBatch)}
    names = tuple(group.id for group in groups)
    return (TokenBatch(**fields | {"pixels": pixels, "group_ids": names}),)


def counted(batches: Iterable[torch.Tensor]) -> int:
    total = 0
    for pixels in batches:
        assert pixels.shape[1:] == (SIZE, SIZE, 3)
        total += len(pixels)
    return total


def cpu_seconds() -> float:
    """Of this process and of all that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def busy_seconds() -> float:
    """Of all cores: user, nice, system."""
    fields = Path("/proc/stat").read_text().split(maxsplit=5)
    return sum(map(int, fields[1:4])) / os.sysconf("SC_CLK_TCK")


def measured(run: Run, *, number: int) -> dict[str, float]:
    gc.collect()
    cpu, busy, wall = cpu_seconds(), busy_seconds(), time.perf_counter()
    found = run()
    gc.collect()  # ends worker processes, so that they are counted
    wall = time.perf_counter() - wall
    cpu, busy = cpu_seconds() - cpu, busy_seconds() - busy
    assert found == number, (found, number)
    return {
        "cpu_ms": 1e3 * cpu / number,
        "samples_per_s": number / wall,
        "other_cores": max(0.0, busy - cpu) / wall,
    }


def compared(ways: Ways, *, workers: int, repeats: int) -> dict[str, Any]:
    runs = {
        "limit": ways.limit,
        "ours": ways.ours,
        "ours, with text": ways.ours_with_text,
        "webdataset": ways.webdataset,
    } | ({"datasets": ways.hugging_face} if datasets else {})
    rounds: list[dict[str, dict[str, float]]] = []
    for number in range(repeats + 1):  # the first warms up
        order = list(runs) if number % 2 else list(reversed(runs))
        once = {n: measured(partial(runs[n], workers), number=ways.number) for n in order}
        rounds.append(once)
        print({n: round(once[n]["cpu_ms"], 3) for n in runs}, file=sys.stderr, flush=True)
    rounds = rounds[1:]
    table = {}
    for name in runs:
        figures = {f: [once[name][f] for once in rounds] for f in rounds[0][name]}
        table[name] = {f: statistics.median(values) for f, values in figures.items()}
        of_limit = [once["limit"]["cpu_ms"] / once[name]["cpu_ms"] for once in rounds]
        table[name]["of_limit"] = statistics.median(of_limit)
        table[name]["of_limit_range"] = [min(of_limit), max(of_limit)]
    return table


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(": ")[1] for line in lines if line.startswith("model name")), "?")
    return f"{model}, {os.cpu_count()} cores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--decoders", nargs="+", default=["draft", "full"])
    parser.add_argument("--images", type=Path, help="a folder of .jpg files instead of noise")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    gc.freeze()  # what is imported is not looked through again in what is measured
    images = photographs(given.images)
    results: dict[str, Any] = {
        "code_version": code_version(),
        "date": date.today().isoformat(),
        "machine": machine(),
        "samples": given.samples,
        "repeats": given.repeats,
        "mean_bytes": statistics.mean(map(len, images)),
        "versions": {m.__name__: m.__version__ for m in (torch, wds, datasets) if m},
    }
    with tempfile.TemporaryDirectory(prefix="data_throughput-") as name:
        write(Path(name), images, given.samples)
        os.environ["HF_HOME"] = name
        for decoder in given.decoders:
            ways = Ways(Path(name), images, given.samples, draft=decoder == "draft")
            for workers in given.workers:
                key = f"{decoder}, {workers} worker{'s' * (workers > 1)}"
                results[key] = compared(ways, workers=workers, repeats=given.repeats)
    text = json.dumps(results, indent=2)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
