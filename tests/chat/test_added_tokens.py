"""Tokens added to a vocabulary: special ones cannot be forged, the others are words like any."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AddedToken, PreTrainedTokenizerFast

from dress.errors import InputError
from dress.modeling.tokenizer import load_tokenizer, train_tokenizer
from dress.types import Turn
from tests.chat.tiny_chat import TEXTS, make_processor


def with_added(folder: Path, *tokens: str, special: bool) -> PreTrainedTokenizerFast:
    tokenizer = train_tokenizer(TEXTS, vocab_size=400)
    tokenizer.add_tokens([AddedToken(token, special=special) for token in tokens])
    tokenizer.save_pretrained(folder)
    return load_tokenizer(str(folder))


@pytest.mark.parametrize("token", ["õ", "÷", "\\", ".", "é", "犬", "circle", "<think>", "\n", "  "])
def test_a_word_that_was_added_is_a_word(token: str, tmp_path: Path) -> None:
    """Whatever it is, it stands unescaped in questions and answers, and answers come back."""
    tokenizer = with_added(tmp_path, token, special=False)
    processor = make_processor(tokenizer=tokenizer)
    text = f"A {token} or {token}{token}, com canções USER: or 漢字 and U\\SER:."
    encoded = processor.encode([Turn(text, text)], images=[], supervised={0})
    assert (encoded.input_ids == tokenizer.convert_tokens_to_ids(token)).sum() >= 6
    assert processor.decode(encoded.input_ids[encoded.loss_mask]) == text
    assert processor.template.escape(token) == token


@pytest.mark.parametrize("tokens", [["<|x|>"], ["<|", "<|x"], ["  "], ["<x>", "<x><y>"]])
def test_a_special_one_cannot_be_forged(tokens: list[str], tmp_path: Path) -> None:
    tokenizer = with_added(tmp_path, *tokens, special=True)
    processor = make_processor(tokenizer=tokenizer)
    text = f"A {' '.join(tokens)} or {''.join(tokens)}."
    encoded = processor.encode([Turn(text, text)], images=[], supervised={0})
    ids = tokenizer.convert_tokens_to_ids(tokens)
    assert not set(ids) & set(encoded.input_ids.tolist())
    assert processor.decode(encoded.input_ids[encoded.loss_mask]) == text


@pytest.mark.parametrize("token", ["õ", "\n", "<\\s>"])
def test_a_special_one_that_cannot_be_escaped_is_refused(token: str, tmp_path: Path) -> None:
    tokenizer = with_added(tmp_path, token, special=True)
    with pytest.raises(InputError, match=r"special token .* cannot be escaped in other texts"):
        make_processor(tokenizer=tokenizer)
