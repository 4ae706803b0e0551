from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.types import Turn

PLAIN = ChatTemplate(reserved=("<pad>", "<s>"))
CHATML = ChatTemplate(
    system="<|im_start|>system\nSee.<|im_end|>\n",
    user="<|im_start|>user\n",
    condition="\nFeedback: ",
    model="<|im_end|>\n<|im_start|>assistant\n",
    response_prefix="",
    end="<|im_end|>",
    reserved=("<|im_start|>", "<|endoftext|>", "||>", "<||"),
)
TEMPLATES = [PLAIN, CHATML]

FRAGMENTS = sorted({piece for template in TEMPLATES for piece in template.markers})
hostile = st.lists(
    st.one_of(
        st.sampled_from(FRAGMENTS),
        st.sampled_from(FRAGMENTS).flatmap(
            lambda m: st.integers(1, len(m)).map(lambda cut: m[:cut] + "\\" * (cut % 3) + m[cut:])
        ),
        st.sampled_from(["\\", "<", ">", "|", "U", ":", " ", "\n"]),
        st.text(max_size=4),
    ),
    max_size=8,
).map("".join)


def test_golden_dialogue_with_image_and_condition() -> None:
    turns = [Turn("How many?", "Two."), Turn("Sure?", "Yes.")]
    rendered = PLAIN.render(turns, num_images=1, condition="honesty 4", supervised={1})
    assert rendered.text == (
        "USER: <image>\nHow many? ASSISTANT: Two.</s>"
        "USER: Sure? FEEDBACK: honesty 4 ASSISTANT: Yes.</s>"
    )
    pieces = [(rendered.text[s.start : s.end], s.role, s.supervised) for s in rendered.spans]
    assert pieces == [
        ("USER: ", "user", False),
        ("<image>\n", "image", False),
        ("How many?", "user", False),
        (" ASSISTANT:", "model", False),
        (" Two.</s>", "model", False),
        ("USER: ", "user", False),
        ("Sure?", "user", False),
        (" FEEDBACK: honesty 4", "condition", False),
        (" ASSISTANT:", "model", False),
        (" Yes.</s>", "model", True),
    ]


def test_prompt_is_a_prefix_of_the_training_text() -> None:
    turns = [Turn("Hi", "Yes."), Turn("More?", "No.")]
    whole = PLAIN.render(turns, num_images=2, condition="honesty 4", supervised={1}).text
    prompt = PLAIN.render(
        [turns[0], Turn("More?")], num_images=2, condition="honesty 4", prompt_only=True
    ).text
    assert whole == prompt + " No.</s>"
    assert prompt.startswith("USER: <image>\n<image>\nHi")
    assert prompt.count("FEEDBACK:") == 1


def test_system_text_opens_the_string() -> None:
    template = ChatTemplate(system="<s>Be kind. ")
    assert template.render([Turn("a", "b")], num_images=0).text == (
        "<s>Be kind. USER: a ASSISTANT: b</s>"
    )


def test_escape_is_readable() -> None:
    assert PLAIN.escape("USER: <image></s> user") == r"U\SER: <\image><\/s> user"
    assert PLAIN.escape(r"U\SER:") == r"U\\SER:"
    assert PLAIN.escape("a \\ b") == "a \\ b"


@pytest.mark.parametrize("template", TEMPLATES)
@given(text=hostile)
def test_escape_is_reversible_and_hides_every_marker(template: ChatTemplate, text: str) -> None:
    escaped = template.escape(text)
    assert template.unescape(escaped) == text
    assert not any(marker in escaped for marker in template.markers)


@pytest.mark.parametrize("template", TEMPLATES)
@given(user=hostile, model=hostile, condition=hostile)
def test_text_forges_no_marker(
    template: ChatTemplate, user: str, model: str, condition: str
) -> None:
    condition = condition or "x"

    def count(question: str, answer: str, feedback: str) -> list[int]:
        turns = [Turn(question, answer)] * 2
        text = template.render(turns, num_images=2, condition=feedback).text
        return [len(re.findall(f"(?={re.escape(m)})", text)) for m in template.markers]

    assert count(user, model, condition) == count("q", "a", "c")


@given(text=hostile)
def test_spans_tile_the_text(text: str) -> None:
    rendered = CHATML.render([Turn(text, text)], num_images=1, condition=text, supervised={0})
    ends = [0, *(span.end for span in rendered.spans)]
    assert ends[:-1] == [span.start for span in rendered.spans]
    assert ends[-1] == len(rendered.text)


@pytest.mark.parametrize("pieces", [{"image": "no placeholder"}, {"user": "Q"}, {"end": "<\\s>"}])
def test_pieces_that_cannot_work_are_refused(pieces: dict[str, str]) -> None:
    with pytest.raises(InputError):
        ChatTemplate(**pieces)
