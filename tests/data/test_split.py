"""Which groups validate: by the hash of the image, and in a small set at least one image."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from dress.data.rejects import Rejects
from dress.errors import InputError, Reject
from dress.jobs.shards import write_split
from dress.types import Dialogue, Sample, Turn


def samples(count: int, groups_per_image: int = 1) -> list[Sample]:
    return [
        Sample(f"{image}-{n}", (b"\xff\xd8\xff%d" % image,), (Dialogue((Turn("What?", "It."),)),))
        for image in range(count)
        for n in range(groups_per_image)
    ]


def split(directory: Path, items: list[Sample], share: float) -> dict[str, int]:
    return write_split(items, directory, validation_share=share, rejects=Rejects())


def place(sample: Sample) -> float:
    return int(hashlib.sha256(sample.images[0]).hexdigest()[:16], 16) / 2**64


@pytest.mark.parametrize("count", [2, 3, 6, 50])
def test_a_small_set_has_an_image_to_validate_on(tmp_path: Path, count: int) -> None:
    items = samples(count, groups_per_image=2)
    expected = max(1, sum(place(item) < 1e-9 for item in items[::2]))
    counts = split(tmp_path, items, 1e-9)
    assert counts == {"train": 2 * (count - expected), "validation": 2 * expected}


def test_otherwise_the_hash_decides(tmp_path: Path) -> None:
    for name, count in (("a", 100), ("b", 300)):
        items = samples(count)
        validation = sum(place(item) < 0.3 for item in items)
        expected = {"train": count - validation, "validation": validation}
        assert split(tmp_path / name, items, 0.3) == expected


def test_no_validation_is_an_error_where_none_can_be(tmp_path: Path) -> None:
    for name, items, share in (("a", samples(1), 0.5), ("b", samples(9), 0.0)):
        with pytest.raises(InputError, match="split is empty"):
            split(tmp_path / name, items, share)


def test_rejects_are_counted(tmp_path: Path) -> None:
    rejects = Rejects(max_rejects=1)
    items = [*samples(5), Reject("broken", key="k", where="f")]
    write_split(items, tmp_path, validation_share=0.5, rejects=rejects)
    assert (rejects.count, rejects.groups_seen) == (1, 6)
