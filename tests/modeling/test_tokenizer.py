from collections.abc import Iterator
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest

from dress.chat.template import ChatTemplate
from dress.errors import InputError
from dress.loading import new_tokenizer
from dress.modeling.tokenizer import load_tokenizer, train_tokenizer

TEXTS = ["a red circle is left of a blue square.", "count the circles: there are 3."] * 4


def test_the_same_texts_give_the_same_tokens() -> None:
    first = train_tokenizer(TEXTS, vocab_size=320)
    again = train_tokenizer(iter(TEXTS), vocab_size=320)
    assert first.get_vocab() == again.get_vocab()
    assert len(first) <= 320


def test_special_tokens_are_single_and_found_in_text() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, special_tokens=["<role>"])
    ids = tokenizer("a<image><role></s>", add_special_tokens=False).input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["a", "<image>", "<role>", "</s>"]
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == (
        "<pad>",
        "<s>",
        "</s>",
    )
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a"


@pytest.mark.parametrize("text", [" Yes, 3 red circles.", "Ünïcode 漢字\n\ttabs", ""])
def test_any_text_survives(text: str) -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.bos_token_id not in ids


def test_offsets_cover_the_text_without_gaps() -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=320)
    text = "count the red circles"
    offsets = tokenizer(text, return_offsets_mapping=True).offset_mapping
    assert offsets[0][0] == 0
    assert offsets[-1][1] == len(text)
    assert all(end == start for (_, end), (start, _) in pairwise(offsets))


def test_save_and_load(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(TEXTS, vocab_size=300)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(str(tmp_path), special_tokens=["<role>"])
    assert loaded(TEXTS[0]).input_ids == tokenizer(TEXTS[0]).input_ids
    assert len(loaded) == len(tokenizer) + 1
    assert loaded.convert_tokens_to_ids("<role>") == len(tokenizer)
    assert loaded.convert_tokens_to_ids("<image>") == tokenizer.convert_tokens_to_ids("<image>")
    assert "<role>" in loaded.all_special_tokens


def test_missing_tokenizer_and_small_vocabulary() -> None:
    with pytest.raises(InputError, match="'no/such/folder'"):
        load_tokenizer("no/such/folder")
    with pytest.raises(InputError, match="give 260 or more"):
        train_tokenizer(TEXTS, vocab_size=100)


def test_the_roles_of_a_template_are_not_spelled_letter_by_letter() -> None:
    class Texts:
        def texts(self) -> Iterator[str]:
            return iter(TEXTS)

    template = asdict(ChatTemplate(system="A chat. "))
    config = {"model": {"tokenizer": {"name": None, "vocab_size": 400}}, "template": template}
    tokenizer = new_tokenizer(config, source=Texts)
    roles = [
        tokenizer.tokenize(template[role]) for role in ("system", "user", "condition", "model")
    ]
    assert roles == [
        ["A", "Ġchat", ".", "Ġ"],
        ["USER", ":", "Ġ"],
        ["ĠFEEDBACK", ":", "Ġ"],
        ["ĠASSISTANT", ":"],
    ]
