"""Every way in which a picture comes shows the same: as file, as path, as PIL image, in a page."""

from __future__ import annotations

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dress.assistant import read_image
from dress.chat.images import as_rgb, as_shown, decode_image, thumbnail
from dress.data.sources.photographs import read_photograph
from dress.errors import Reject
from dress.feedback.rubric import messages
from dress.reporting.rendering import picture_of
from dress.types import ASPECTS, Dialogue, Sample, Turn
from tests.chat.test_images import corner, encoded, png
from tests.data.coco_files import photograph

RED, BLUE = (255, 0, 0), (0, 0, 255)
STEPS = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257  # upper byte 0 to 255
GREY = np.repeat((STEPS >> 8).astype(np.uint8)[..., None], 3, axis=-1)


def animation() -> bytes:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    return encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)


def sixteen_bits() -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in STEPS)
    return png(16, 16, depth=16, colour=0, rows=rows)


def see_through() -> bytes:
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    image.paste((*BLUE, 255), (0, 0, 4, 8))
    return encoded(image, "PNG")


FILES = {
    "jpeg": photograph(0),
    "grey": encoded(Image.new("L", (8, 8), 77), "JPEG"),
    "cmyk": encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG"),
    "palette": encoded(Image.new("RGB", (8, 8), RED).convert("P"), "PNG"),
    "bilevel": encoded(Image.new("1", (8, 8), 1), "PNG"),
    "transparent": see_through(),
    "16 bits": sixteen_bits(),
    "animated": animation(),
    **{f"turned {n}": corner("JPEG", n) for n in range(2, 9)},
    "turned PNG": corner("PNG", 6),
    "turned WebP": corner("WEBP", 6),
}


def array(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("name", FILES)
def test_a_pil_image_shows_as_its_file_does(tmp_path: Path, name: str) -> None:
    data = FILES[name]
    (tmp_path / "picture").write_bytes(data)
    expected = array(decode_image(data))
    with Image.open(tmp_path / "picture") as opened:
        size, mode, exif = opened.size, opened.mode, opened.getexif()
        assert np.array_equal(array(decode_image(read_image(opened))), expected)
        assert np.array_equal(array(as_rgb(opened)), expected)
        assert (opened.size, opened.mode, opened.getexif()) == (size, mode, exif)  # not touched
    for path in (tmp_path / "picture", str(tmp_path / "picture")):
        assert read_image(path) == data
    assert read_image(data) == data


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bits_in_any_mode_keep_the_upper_byte(mode: str) -> None:
    kind = {"I": np.int32, "I;16B": ">u2"}.get(mode, "<u2")
    image = Image.frombytes(mode, (16, 16), STEPS.astype(kind).tobytes())
    assert np.array_equal(array(decode_image(image)), GREY)


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("F", (STEPS >> 8) / 255),  # from 0 to 1
        ("F", STEPS >> 8),
        ("F", STEPS),
        ("I", STEPS >> 8),
    ],
)
def test_wider_pixels_are_scaled_by_their_largest(mode: str, values: np.ndarray) -> None:
    image = Image.fromarray(values.astype({"F": np.float32, "I": np.int32}[mode]))
    assert image.mode == mode
    assert np.array_equal(array(decode_image(image)), GREY)


def test_floats_out_of_range_are_cut() -> None:
    values = np.array([[-1.0, np.nan], [0.5, 1.0]], dtype=np.float32)
    shown = array(decode_image(Image.fromarray(values)))
    assert shown[..., 0].tolist() == [[0, 0], [128, 255]]


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBX", "YCbCr", "LAB", "HSV", "CMYK"])
def test_no_mode_is_refused(mode: str) -> None:
    assert decode_image(Image.new(mode, (4, 4))).mode == "RGB"


def test_the_size_of_a_pil_image_is_bounded_before_a_pixel() -> None:
    huge = png(8000, 8000, depth=8, colour=2, rows=b"")  # no pixel to be had
    with Image.open(BytesIO(huge)) as opened, pytest.raises(Reject, match="image too large"):
        read_image(opened)


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    half = photograph(0)[:700]
    with Image.open(BytesIO(half)) as opened, pytest.raises(Reject, match="unreadable image"):
        read_image(opened)
    with pytest.raises(Reject, match=r"absent\.jpg, key absent\.jpg: missing image"):
        read_image(tmp_path / "absent.jpg")
    (tmp_path / "half.jpg").write_bytes(half)
    with pytest.raises(Reject, match="unreadable image"):
        read_photograph(tmp_path / "half.jpg", key="k")


def halves(data: bytes) -> bool:
    """Tell whether the upper left quarter is white and the rest is black, wider than high."""
    shown = np.asarray(Image.open(BytesIO(data)).convert("L"))
    white = shown[:4, :8] > 200
    return shown.shape == (8, 16) and bool(white.all()) and bool((shown[4:] < 55).all())


def test_pages_show_pictures_upright() -> None:
    turned = corner("JPEG", 6)
    assert not halves(turned)
    uri = picture_of(turned)
    assert uri is not None
    assert halves(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,")))
    assert halves(thumbnail(turned, 192))
    for broken in (b"", b"no image", turned[:300]):
        assert picture_of(broken) is None


@pytest.mark.parametrize("name", FILES)
def test_a_judge_is_sent_what_the_model_sees(name: str) -> None:
    data = FILES[name]
    dialogue = Dialogue((Turn("Q?", "R."),))
    _, user = messages(Sample("s", (data,), (dialogue,)), dialogue, ASPECTS, show="image")
    head, sent = user["content"][1]["image_url"]["url"].split(",")
    file = base64.b64decode(sent)
    # what any reader shows that knows neither orientation nor 16 bits nor the first of several
    plain = Image.open(BytesIO(file))
    assert plain.mode in ("RGB", "L") and getattr(plain, "n_frames", 1) == 1
    assert np.array_equal(np.asarray(plain.convert("RGB")), array(decode_image(data)))
    assert (file == data) == (name in ("jpeg", "grey")) and file == as_shown(data)
    assert head == f"data:image/{'jpeg' if file == data else 'png'};base64"


def test_a_judge_is_not_asked_about_what_is_no_image() -> None:
    dialogue = Dialogue((Turn("Q?", "R."),))
    sample = Sample("s", (photograph(0)[:700],), (dialogue,))
    with pytest.raises(Reject, match="unreadable image"):
        messages(sample, dialogue, ASPECTS, show="image")
