from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from dress.data.sources.coco import CocoSource
from dress.data.sources.llava_instruct import LlavaInstructSource
from dress.data.sources.lvlm_nlf import LVLMNLFSource
from dress.data.sources.photographs import (
    Photographs,
    photograph_path,
    photograph_paths,
    photographs_hash,
    read_photograph,
)
from dress.data.sources.source import Part, Source
from dress.data.sources.vlsafe import VLSafeSource
from dress.errors import InputError, Reject
from dress.types import Dialogue, Sample, Turn
from tests.data.coco_files import photograph, write_json
from tests.data.nlf_files import nlf_row
from tests.data.released_rows import llava_row


class Few(Source):
    def __init__(self, *names: str) -> None:
        self.names = names

    def rows(self, part: Part) -> Iterator[str]:
        return iter(self.names)

    def convert(self, part: Part, row: str) -> Iterator[Sample | Reject]:
        if row == "bad":
            yield Reject("broken", key=row, where="file")
        else:
            yield Sample(row, (b"x",), (Dialogue((Turn(part),)),))

    def texts(self) -> Iterator[str]:
        return iter(self.names)

    def inputs(self) -> dict[str, str]:
        return {"file": "-".join(self.names)}


def test_sources_take_turns_until_all_are_at_their_end() -> None:
    both = Photographs(sources={"p": Few("a", "bad", "c"), "q": Few("a")})
    found = list(both.samples("prompts"))
    names = [item.key if isinstance(item, Reject) else item.id for item in found]
    assert names == ["p/a", "q/a", "p/bad", "p/c"]
    assert list(both.texts()) == ["a", "bad", "c", "a"]
    assert both.inputs() == {"p/file": "a-bad-c", "q/file": "a"}


def test_no_source_is_a_mistake() -> None:
    with pytest.raises(InputError, match="at least one"):
        Photographs(sources={})


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_three_formats_are_read_unchanged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(photograph(0, kind))
    assert read_photograph(path, key="k") == photograph(0, kind)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("kept", [0.3, 0.7, 0.97])
def test_truncation_is_found(tmp_path: Path, kind: str, kept: float) -> None:
    path, data = tmp_path / "image", photograph(0, kind)
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(Reject) as reject:
        read_photograph(path, key="k")
    assert reject.value.where == str(path)
    assert reject.value.key == "k"


def test_other_reasons(tmp_path: Path) -> None:
    buffer = BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF")
    (tmp_path / "gif.jpg").write_bytes(buffer.getvalue())
    huge = BytesIO()
    Image.new("1", (8000, 8000)).save(huge, "PNG")
    (tmp_path / "huge.png").write_bytes(huge.getvalue())
    reasons = {
        "gif.jpg": "not a JPEG, PNG or WebP image",
        "huge.png": "image too large",
        "none.jpg": "missing image",
        ".": "missing image",
    }
    for name, reason in reasons.items():
        with pytest.raises(Reject) as reject:
            read_photograph(tmp_path / name, key="k")
        assert reject.value.reason == reason


def test_hash_counts_absent_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    absent = photographs_hash([path])
    path.write_bytes(b"")
    assert photographs_hash([path]) != absent


NO_NAMES = ["x" * 300 + ".jpg", "\u00e4" * 150, "a/../../x.jpg", "/etc/passwd", "x\0.jpg", "\ud800"]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_of_a_file_is_a_reject(tmp_path: Path, name: str) -> None:
    with pytest.raises(Reject, match="unsafe file name"):
        photograph_path(tmp_path, name, key="k")
    assert photograph_paths(tmp_path, [name, "a.jpg", name, "a.jpg"]) == [tmp_path / "a.jpg"]
    assert photograph_path(tmp_path, "x" * 251 + ".jpg", key="k").is_file() is False


@pytest.mark.parametrize("name", NO_NAMES)
def test_every_source_goes_on_after_it(tmp_path: Path, name: str) -> None:
    root = str(tmp_path)
    vlsafe = {"image_id": name, "query": "How?", "reference": "No."}
    write_json(tmp_path / "vlsafe.jsonl", vlsafe)
    write_json(tmp_path / "nlf.jsonl", nlf_row(1, image_id=name))
    write_json(tmp_path / "llava.json", [llava_row(1, image=name)])
    (tmp_path / "images").mkdir()
    listed = [{"id": 1, "file_name": name}]
    said = [{"image_id": 1, "caption": "A dog."}]
    write_json(tmp_path / "captions.json", {"images": listed, "annotations": said})
    seen = {"images": listed, "annotations": [], "categories": []}
    write_json(tmp_path / "instances.json", seen)
    coco = {"captions": "captions.json", "instances": "instances.json"}
    sources: list[Source] = [
        VLSafeSource(root=root, images="images", alignment="vlsafe.jsonl"),
        LVLMNLFSource(root=root, files=["nlf.jsonl"]),
        LlavaInstructSource(root=root, file="llava.json", images="images"),
        CocoSource(root=root, images="images", **coco),
    ]
    for source in sources:
        assert source.inputs()
        (reject,) = source.samples("instructions")
        assert isinstance(reject, Reject) and reject.reason == "unsafe file name"
