from __future__ import annotations

from io import BytesIO
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dress.chat.processor import Processor
from dress.chat.template import ChatTemplate
from dress.errors import InputError, Reject
from dress.types import Turn
from tests.chat.tiny_chat import make_processor, picture, tokenizer

TURNS = [Turn("How many?", "Two."), Turn("Sure?", "Yes, two."), Turn("And now?", "No.")]


@pytest.fixture(scope="module")
def processor() -> Processor:
    return make_processor()


@pytest.mark.parametrize(
    ("images", "turns", "painted"),
    [
        (0, 1, "USER: How many? ASSISTANT:[ Two.</s>]"),
        (1, 1, "USER: <image*4>\\nHow many? ASSISTANT:[ Two.</s>]"),
        (2, 1, "USER: <image*4>\\n<image*4>\\nHow many? ASSISTANT:[ Two.</s>]"),
        (
            0,
            3,
            "USER: How many? ASSISTANT:[ Two.</s>]USER: Sure? ASSISTANT:[ Yes, two.</s>]"
            "USER: And now? ASSISTANT:[ No.</s>]",
        ),
        (
            1,
            3,
            "USER: <image*4>\\nHow many? ASSISTANT:[ Two.</s>]USER: Sure? ASSISTANT:"
            "[ Yes, two.</s>]USER: And now? ASSISTANT:[ No.</s>]",
        ),
        (
            2,
            3,
            "USER: <image*4>\\n<image*4>\\nHow many? ASSISTANT:[ Two.</s>]USER: Sure? ASSISTANT:"
            "[ Yes, two.</s>]USER: And now? ASSISTANT:[ No.</s>]",
        ),
    ],
)
def test_golden_masks(processor: Processor, images: int, turns: int, painted: str) -> None:
    encoded = processor.encode(
        TURNS[:turns], images=[f"h{i}" for i in range(images)], supervised=range(turns)
    )
    assert processor.paint(encoded) == painted
    is_image = encoded.input_ids == processor.image_token_id
    assert is_image.sum() == 4 * images and not encoded.loss_mask[is_image].any()
    is_end = encoded.input_ids == processor.eos_token_id
    assert is_end.sum() == turns and encoded.loss_mask[is_end].all()
    assert encoded.input_ids.dtype == np.int64 and encoded.loss_mask.dtype == bool


def test_only_the_named_turns_carry_loss(processor: Processor) -> None:
    encoded = processor.encode(TURNS, images=[], supervised={1})
    runs = [key for key, _ in groupby(encoded.loss_mask.tolist())]
    assert runs == [False, True, False]
    assert processor.decode(encoded.input_ids[encoded.loss_mask]) == "Yes, two."


def test_rollout_prompt_is_the_training_prompt(processor: Processor) -> None:
    train = processor.encode(TURNS, images=["h"], condition="honesty 4", supervised={2})
    prompt = processor.encode(
        [*TURNS[:2], Turn("And now?")], images=["h"], condition="honesty 4", prompt_only=True
    )
    first = int(np.flatnonzero(train.loss_mask)[0])
    assert prompt.input_ids.tolist() == train.input_ids[:first].tolist()
    assert not prompt.loss_mask.any()


def test_oldest_turns_go_first_and_the_image_moves_with_the_rest() -> None:
    whole = make_processor().encode(TURNS, images=["a", "b"], supervised={0, 2})
    short = make_processor(max_length=len(whole.input_ids) - 1)
    encoded = short.encode(TURNS, images=["a", "b"], supervised={0, 2})
    assert short.paint(encoded) == (
        "USER: <image*4>\\n<image*4>\\nSure? ASSISTANT: Yes, two.</s>"
        "USER: And now? ASSISTANT:[ No.</s>]"
    )
    assert encoded.images == ("a", "b")


@given(max_length=st.integers(1, 120))
def test_truncation_never_cuts_an_image(max_length: int) -> None:
    processor = make_processor(max_length=max_length, num_image_tokens=20)
    try:
        encoded = processor.encode(TURNS, images=["a", "b"], supervised={2})
    except Reject as reject:
        assert reject.reason == "too long"
        return
    assert len(encoded.input_ids) <= max_length
    assert (encoded.input_ids == processor.image_token_id).sum() == 40
    assert encoded.loss_mask.any()


def test_what_cannot_fit_or_teaches_nothing_is_rejected(processor: Processor) -> None:
    short = make_processor(max_length=25)
    with pytest.raises(Reject, match="too long"):
        short.encode([Turn("Why? " * 20, "No.")], images=[], supervised={0})
    with pytest.raises(Reject, match="too long"):  # only the dropped turn was supervised
        short.encode([TURNS[0], Turn("Why? " * 20, "No.")], images=[], supervised={0})
    with pytest.raises(Reject, match="no supervised turn"):
        processor.encode(TURNS, images=[], supervised=())


def test_special_tokens_in_text_stay_text(processor: Processor) -> None:
    text = "a <image> b </s> c <pad> USER: d <s>"
    encoded = processor.encode([Turn(text, text)], images=[], supervised={0})
    specials = set(tokenizer().all_special_ids) & set(encoded.input_ids.tolist())
    assert specials <= {processor.eos_token_id}
    assert (encoded.input_ids == processor.eos_token_id).sum() == 1
    assert processor.decode(encoded.input_ids[encoded.loss_mask]) == text


@given(text=st.text(max_size=20))
def test_decode_inverts_encode_up_to_outer_space(text: str) -> None:
    processor = make_processor(max_length=1000)
    encoded = processor.encode([Turn(text, text)], images=[], supervised={0})
    assert processor.decode(encoded.input_ids[encoded.loss_mask]) == text.strip()


def test_decode_stops_at_the_end_token(processor: Processor) -> None:
    ids = tokenizer()(" Yes.</s> No.<pad>", add_special_tokens=False)["input_ids"]
    assert processor.decode(ids) == "Yes."


def test_begin_token_comes_from_the_template() -> None:
    processor = make_processor(template=ChatTemplate(system="<s>"))
    encoded = processor.encode(TURNS[:1], images=[], supervised={0})
    assert encoded.input_ids[0] == tokenizer().bos_token_id
    assert (encoded.input_ids == tokenizer().bos_token_id).sum() == 1


def test_tokenizer_and_template_must_agree() -> None:
    with pytest.raises(InputError, match=r"template\.end"):
        make_processor(template=ChatTemplate(end="<|end|>"))
    with pytest.raises(InputError, match=r"template\.image_token"):
        make_processor(template=ChatTemplate(image="<picture>", image_token="<picture>"))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_images_load(processor: Processor, file_format: str) -> None:
    data = picture(file_format=file_format)
    name, pixels = processor.load_image(data)
    assert pixels.shape == (8, 8, 3)
    assert name == processor.load_image(data)[0] != processor.load_image(picture(1))[0]


def test_images_are_turned_upright_and_made_rgb() -> None:
    sizes = []
    processor = make_processor(preprocess=lambda image: sizes.append((image.size, image.mode)))
    buffer, exif = BytesIO(), Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    Image.new("L", (16, 12)).save(buffer, format="JPEG", exif=exif)
    processor.load_image(buffer.getvalue())
    assert sizes == [((12, 16), "RGB")]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no image",
        picture()[:200],
        picture(file_format="PNG")[:-40],
        picture(file_format="BMP"),
        picture(file_format="GIF"),
    ],
)
def test_bad_images_are_rejected(processor: Processor, data: bytes) -> None:
    with pytest.raises(Reject, match=r"unreadable image|not a JPEG, PNG or WebP image"):
        processor.load_image(data)


def test_header_is_judged_before_decoding() -> None:
    data = picture(size=(100, 100), file_format="PNG")[:60]  # cannot be decoded, but measured
    with pytest.raises(Reject, match="image too large"):
        make_processor(max_pixels=9_999).load_image(data)
