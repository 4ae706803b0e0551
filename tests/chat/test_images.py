"""Every kind of image is shown as it is meant, or is a reject with a reason."""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from dress.chat.images import ImageKey, decode_image
from dress.errors import Reject
from tests.chat.tiny_chat import make_processor, picture

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encoded(image: Image.Image, file_format: str, **options: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> np.ndarray:
    image = decode_image(data, max_pixels=50_000_000)
    assert image.mode == "RGB"
    return np.asarray(image)


def reason(data: bytes, *, max_pixels: int = 50_000_000) -> str:
    with pytest.raises(Reject) as reject:
        decode_image(data, max_pixels=max_pixels)
    return reject.value.reason


def png(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    """Write a PNG by hand: header, one data chunk, end."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert pixels(encoded(cyan, "JPEG")).reshape(-1, 3).tolist() == [[0, 255, 255]] * 256


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_keep_the_upper_eight(colour: int, channels: int) -> None:
    values = np.linspace(0, 65535, 6 * 4 * channels).astype(">u2").reshape(6, 4, channels)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    shown = pixels(png(4, 6, depth=16, colour=colour, rows=rows))
    expected = (values >> 8).astype(np.uint8)
    expected = expected[..., :3] if channels >= 3 else np.repeat(expected[..., :1], 3, axis=-1)
    assert np.array_equal(shown, expected)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA"])
def test_other_modes_become_rgb(mode: str) -> None:
    shown = pixels(encoded(Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode), "PNG"))
    assert (shown == 255).all() and shown.shape == (4, 4, 3)


@pytest.mark.parametrize("file_format", ["WEBP", "PNG"])
def test_of_an_animation_the_first_picture_counts(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:], **lossless)
    assert Image.open(BytesIO(data)).n_frames == 3
    assert pixels(data).reshape(-1, 3).tolist() == [list(RED)] * 64


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "EPS"])
def test_other_formats_are_not_opened(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN)]
    assert reason(encoded(frames[0], file_format)) == "not a JPEG, PNG or WebP image"
    if file_format == "GIF":
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert reason(data) == "not a JPEG, PNG or WebP image"


def test_no_program_is_started_for_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Pillow would hand PostScript to `gs`
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    data = encoded(Image.new("RGB", (8, 8)), "EPS")
    assert reason(data) == "not a JPEG, PNG or WebP image"
    assert not (tmp_path / "started").exists()


def corner(file_format: str, orientation: int) -> bytes:
    """A white upper left quarter, 16 wide and 8 high, stored as the orientation says."""
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 255
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 100}, "WEBP": {"lossless": True}, "PNG": {}}[file_format]
    return encoded(Image.fromarray(np.ascontiguousarray(stored)), file_format, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_rotated_images_are_turned_upright(file_format: str, orientation: int) -> None:
    shown = pixels(corner(file_format, orientation))
    assert shown.shape == (8, 16, 3)
    assert (shown[:4, :8] > 250).all() and (shown[4:] < 5).all() and (shown[:, 8:] < 5).all()


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0garbage",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\xff" * 10,
        b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x09\0\0\0\x50",
    ],
)
@pytest.mark.filterwarnings("error")
def test_damaged_exif_is_ignored(exif: bytes) -> None:
    data = encoded(Image.new("RGB", (16, 8), RED), "JPEG", exif=exif)
    assert pixels(data).shape == (8, 16, 3)


def test_exif_that_cannot_be_applied_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image: Image.Image) -> Image.Image:
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(ImageOps, "exif_transpose", fail)
    assert pixels(corner("PNG", 6)).shape == (16, 8, 3)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "not a JPEG, PNG or WebP image"),
        (b"no image", "not a JPEG, PNG or WebP image"),
        (b"\xff\xd8\xff" + bytes(500), "not a JPEG, PNG or WebP image"),
        (picture()[:200], "unreadable image"),
        (picture()[:-200], "unreadable image"),
        (picture(file_format="PNG")[:-40], "unreadable image"),
        (picture(file_format="WEBP")[:-100], "unreadable image"),
        (picture(size=(64, 64))[:2000] + b"\xff\xd8" + bytes(400), "unreadable image"),
    ],
)
def test_truncated_and_corrupt_images(data: bytes, expected: str) -> None:
    assert reason(data) == expected


def test_damage_inside_a_whole_jpeg_is_used_as_the_decoder_shows_it() -> None:
    # libjpeg conceals it; only the hash of the shard tells
    data = bytearray(picture(size=(64, 64)))
    middle = len(data) // 2
    data[middle : middle + 30] = bytes(30)
    shown = pixels(bytes(data))
    assert shown.shape == (64, 64, 3)
    assert not np.array_equal(shown, pixels(picture(size=(64, 64))))


@pytest.mark.parametrize("side", [8_000, 10_000, 30_000, 2**31 - 1])
@pytest.mark.filterwarnings("error")
def test_a_bomb_is_judged_by_its_header(side: int) -> None:
    bomb = png(side, side, depth=8, colour=2, rows=bytes(1000))
    assert len(bomb) < 200 and reason(bomb) == "image too large"


def test_the_bound_itself_is_allowed() -> None:
    data = picture(size=(20, 10))
    assert decode_image(data, max_pixels=200).size == (20, 10)
    assert reason(data, max_pixels=199) == "image too large"


def test_compressed_text_beside_the_pixels_is_bounded() -> None:
    text = zlib.compress(bytes(100_000_000))
    body = b"zTXt" + b"a\0\0" + text
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    data = picture(file_format="PNG")
    assert reason(data[:33] + chunk + data[33:]) == "unreadable image"


def test_more_images_than_fit_are_rejected_before_any_is_decoded() -> None:
    processor = make_processor(max_length=20, num_image_tokens=4)
    with pytest.raises(Reject, match="too many images") as reject:
        processor.load_images([b"never decoded"] * 5)
    assert reject.value.detail == "5 images of 4 tokens, max_length is 20"
    names, _ = processor.load_images([picture()] * 4)
    assert len(names) == 4


def test_a_jpeg_may_be_decoded_smaller_but_never_too_small() -> None:
    left_red = Image.new("RGB", (100, 80), BLUE)
    left_red.paste(RED, (0, 0, 50, 80))
    data = encoded(left_red, "JPEG", quality=95, subsampling=0)
    sizes = {at: decode_image(data, at_least=at).size for at in (81, 80, 41, 40, 21, 20, 10, 1)}
    assert sizes == {
        **dict.fromkeys((81, 80, 41), (100, 80)),  # half would be 50 x 40
        **dict.fromkeys((40, 21), (50, 40)),
        20: (25, 20),
        **dict.fromkeys((10, 1), (13, 10)),
    }
    small = np.asarray(decode_image(data, at_least=20)).astype(int)
    assert np.abs(small[:, :12] - RED).max() < 8 and np.abs(small[:, 13:] - BLUE).max() < 8


def test_a_smaller_decode_is_upright_bounded_and_of_jpegs_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    rotated = encoded(Image.new("RGB", (100, 80)), "JPEG", exif=exif)
    assert decode_image(rotated, at_least=20).size == (20, 25)
    assert decode_image(encoded(Image.new("RGB", (100, 80)), "PNG"), at_least=20).size == (100, 80)
    cmyk = decode_image(encoded(Image.new("CMYK", (100, 80)), "JPEG"), at_least=20)
    assert (cmyk.mode, cmyk.size) == ("RGB", (25, 20))
    with pytest.raises(Reject, match="image too large"):
        decode_image(rotated, at_least=20, max_pixels=7999)
    sizes: list[tuple[int, int]] = []

    def preprocess(image: Image.Image) -> torch.Tensor:
        sizes.append(image.size)
        return torch.zeros(3, 8, 8)

    make_processor(preprocess=preprocess, decode_at_least=40).load_images([rotated])
    assert sizes == [(40, 50)]


def test_images_have_the_same_key_where_every_byte_is_the_same() -> None:
    data = picture(size=(64, 64))
    first = bytes([data[0] ^ 1]) + data[1:]  # differs where the hash does not look
    assert ImageKey(data) == ImageKey(bytes(bytearray(data)))
    assert ImageKey(first) != ImageKey(data) and hash(ImageKey(first)) == hash(ImageKey(data))
    assert len({ImageKey(data), ImageKey(first), ImageKey(data + b"x"), ImageKey(data)}) == 3
