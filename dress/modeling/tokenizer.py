"""Tokenizers: a byte-level BPE trained on given text, or any fast Hugging Face tokenizer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dress.errors import InputError

IMAGE_TOKEN = "<image>"
PAD_TOKEN = "<pad>"
BOS_TOKEN = "<s>"
EOS_TOKEN = "</s>"


def train_tokenizer(
    texts: Iterable[str], *, vocab_size: int = 1024, special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Train byte-level BPE: every text can be encoded, and the same texts give the same tokens.

    Nothing is added to a text, and offsets cover a token's leading space.
    """
    specials = list(dict.fromkeys([PAD_TOKEN, BOS_TOKEN, EOS_TOKEN, IMAGE_TOKEN, *special_tokens]))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    smallest = len(alphabet) + len(specials)
    if vocab_size < smallest:
        raise InputError(f"model.tokenizer.vocab_size is {vocab_size}: give {smallest} or more.")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    bpe.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD_TOKEN,
        bos_token=BOS_TOKEN,
        eos_token=EOS_TOKEN,
        extra_special_tokens=[IMAGE_TOKEN, *special_tokens],
        clean_up_tokenization_spaces=False,
    )


def image_token_of(spec: Mapping[str, Any]) -> str:
    """Return the image placeholder of a model: `<image>` unless its released files have another."""
    settings = spec.get("tokenizer")
    given = settings if isinstance(settings, Mapping) else {}
    return given.get("image_token", IMAGE_TOKEN)


def load_tokenizer(
    name_or_dir: str, *, image_token: str = IMAGE_TOKEN, special_tokens: Sequence[str] = ()
) -> PreTrainedTokenizerFast:
    """Load a fast tokenizer and make the image placeholder, pad and end tokens exist in it."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name_or_dir, use_fast=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.tokenizer.name: {name_or_dir!r} could not be loaded ({type(error).__name__}); "
            "check the name or folder and the network."
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(
            f"model.tokenizer.name: {name_or_dir!r} has no fast version: give one that has."
        )
    if tokenizer.eos_token is None:
        tokenizer.add_special_tokens({"eos_token": EOS_TOKEN})
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    missing = [
        token
        for token in dict.fromkeys([image_token, *special_tokens])
        if token not in tokenizer.all_special_tokens
    ]
    tokenizer.add_special_tokens(
        {"extra_special_tokens": missing}, replace_extra_special_tokens=False
    )
    return tokenizer
