"""Text and images to one tokenised sequence with a loss mask, and token ids back to text."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int, UInt8
from PIL import Image
from torch import Tensor

from dress.chat.images import MAX_PIXELS, ImageKey, decode_image
from dress.chat.template import ChatTemplate, Rendered
from dress.errors import InputError, Reject
from dress.types import Encoded, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast  # seconds

UNREADABLE = "\ufffd"  # what bytes that are no text decode to

logger = logging.getLogger(__name__)


class Processor:
    """Join a tokenizer, a template and a tower's preprocessing.

    A sequence begins as the tokenizer begins a text, unless `template.begin` says otherwise.
    An image becomes `num_image_tokens` placeholder ids; sequences longer than `max_length` tokens
    lose whole turns, oldest first. `decode_at_least` is `decode_image`'s `at_least`.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerFast,
        template: ChatTemplate,
        preprocess: Callable[[Image.Image], UInt8[Tensor, "height width 3"]],
        num_image_tokens: int,
        max_length: int,
        max_pixels: int = MAX_PIXELS,
        decode_at_least: int | None = None,
    ) -> None:
        _check_tokenizer(tokenizer, template)
        added = tokenizer.added_tokens_decoder
        specials = {token.content for token in added.values() if token.special}
        specials |= set(tokenizer.all_special_tokens)
        self.tokenizer = tokenizer
        self.template = replace(template, reserved=(*template.reserved, *sorted(specials)))
        self.byte_like = {  # a byte-level tokenizer decodes an added token such as õ to a byte
            number: token.content
            for number, token in added.items()
            if not token.special and UNREADABLE in _decoded(tokenizer, [number])
        }
        self.begin = _begin(tokenizer, template)
        self.preprocess = preprocess
        self.num_image_tokens = num_image_tokens
        self.max_length = max_length
        self.max_pixels, self.decode_at_least = max_pixels, decode_at_least
        self.image_token_id = tokenizer.get_added_vocab()[template.image_token]
        self.eos_token_id: int = tokenizer.eos_token_id

    def encode(
        self,
        turns: Sequence[Turn],
        *,
        images: Sequence[Hashable],
        condition: str = "",
        supervised: Collection[int] = (),
        prompt_only: bool = False,
        dropped: int = 0,
    ) -> Encoded:
        """Encode a dialogue; `images` are their keys, `supervised` turn indices with loss.

        Of a dialogue that is too long the first turns are left out, `dropped` at least. Raises
        Reject where even the last turn alone is too long or nothing supervised remains.
        """
        for first in range(dropped, len(turns)):
            kept = {turn - first for turn in supervised if turn >= first}
            if not kept and not prompt_only:
                break
            rendered = self.template.render(
                turns[first:],
                num_images=len(images),
                condition=condition,
                supervised=kept,
                prompt_only=prompt_only,
            )
            encoded = self._tokenise(rendered, images)
            if len(encoded.input_ids) <= self.max_length:
                return replace(encoded, dropped=first)
        if not supervised and not prompt_only:
            raise Reject("no supervised turn")
        raise Reject("too long", detail=f"max_length is {self.max_length} tokens")

    def _tokenise(self, rendered: Rendered, images: Sequence[Hashable]) -> Encoded:
        tokens = self.tokenizer(
            rendered.text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids = np.array([*self.begin, *tokens["input_ids"]], dtype=np.int64)
        is_image = ids == self.image_token_id
        assert is_image.sum() == len(images), "escaping lets no text hold an image token"
        overlaps = _overlaps(np.array(tokens["offset_mapping"]), rendered)
        loss_mask = np.concatenate([np.zeros(len(self.begin), dtype=bool), overlaps])
        repeats = np.where(is_image, self.num_image_tokens, 1)
        return Encoded(np.repeat(ids, repeats), np.repeat(loss_mask, repeats), tuple(images))

    def load_images(
        self, files: Sequence[bytes]
    ) -> tuple[tuple[Hashable, ...], dict[Hashable, UInt8[Tensor, "height width 3"]]]:
        """Decode image files into their keys in order and the pixels of each distinct image.

        Raises Reject, before it decodes any, where they alone would fill the context.
        """
        if len(files) * self.num_image_tokens >= self.max_length:
            taken = f"{len(files)} images of {self.num_image_tokens} tokens"
            raise Reject("too many images", detail=f"{taken}, max_length is {self.max_length}")
        loaded = [self.load_image(data) for data in files]
        return tuple(key for key, _ in loaded), dict(loaded)

    def load_image(self, data: bytes) -> tuple[Hashable, UInt8[Tensor, "height width 3"]]:
        """Decode one image file into its key and its pixels; raise Reject where that fails."""
        image = decode_image(data, max_pixels=self.max_pixels, at_least=self.decode_at_least)
        return ImageKey(data), self.preprocess(image)

    def decode(self, ids: Iterable[int] | Int[Tensor, " seq"] | Int[np.ndarray, " seq"]) -> str:
        """Turn generated ids into the answer: up to the end token, unescaped, without specials."""
        tokens = [int(token) for token in ids]
        if self.eos_token_id in tokens:
            tokens = tokens[: tokens.index(self.eos_token_id)]
        return self.template.unescape(self._text(tokens, skip_special_tokens=True).strip())

    def _text(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        text = _decoded(self.tokenizer, ids, skip_special_tokens=skip_special_tokens)
        if UNREADABLE not in text:
            return text
        runs = ((word, list(run)) for word, run in groupby(ids, key=self.byte_like.get))
        return "".join(
            word * len(run)
            if word
            else _decoded(self.tokenizer, run, skip_special_tokens=skip_special_tokens)
            for word, run in runs
        )

    def paint(self, encoded: Encoded) -> str:
        """Show a sequence on one line for the eye: [supervised parts], images as <image*count>."""
        pairs = zip(encoded.input_ids.tolist(), encoded.loss_mask.tolist(), strict=True)
        painted = []
        for (is_supervised, is_image), run in groupby(
            pairs, key=lambda pair: (pair[1], pair[0] == self.image_token_id)
        ):
            ids = [token for token, _ in run]
            name = self.template.image_token.strip("<>")
            text = f"<{name}*{len(ids)}>" if is_image else self._text(ids)
            painted.append(f"[{text}]" if is_supervised else text)
        return "".join(painted).replace("\n", "\\n")


def begin_text(tokenizer: PreTrainedTokenizerFast, *, system: str = "") -> str:
    """Return what the tokenizer itself puts before a text: <s> for Llama, nothing for GPT-2.

    It is nothing as well where the text's beginning, `system`, brings that along.
    """
    text = tokenizer("a", add_special_tokens=False)["input_ids"]
    whole = tokenizer("a")["input_ids"]
    start = next((n for n in range(len(whole)) if whole[n : n + len(text)] == text), 0)
    own = "".join(tokenizer.convert_ids_to_tokens(whole[:start]))
    return "" if system.startswith(own) else own


def _begin(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate) -> list[int]:
    """Return the ids before the template's string; log where the tokenizer has others."""
    own, begin = begin_text(tokenizer), template.begin
    if begin == "auto":
        begin = begin_text(tokenizer, system=template.system)
    opening, wanted = begin + template.system, own or tokenizer.bos_token
    if wanted and wanted in template.user:  # ChatML: it begins every turn, not the text
        wanted = own
    if wanted and opening.startswith(wanted) != bool(own):
        logger.warning(
            "template: a sequence begins with %r, but the tokenizer %s puts %r before a text "
            "(template.begin=auto does so too)",
            opening[:20],
            tokenizer.name_or_path,
            own,
        )
    return tokenizer(begin, add_special_tokens=False)["input_ids"]


def _decoded(
    tokenizer: PreTrainedTokenizerFast, ids: list[int], *, skip_special_tokens: bool = False
) -> str:
    text = tokenizer.decode(
        ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
    )
    assert isinstance(text, str)
    return text


def _overlaps(offsets: Int[np.ndarray, "seq 2"], rendered: Rendered) -> Bool[np.ndarray, " seq"]:
    """Mark tokens that share a character with a supervised span, even where they straddle it."""
    mask = np.zeros(len(offsets), dtype=bool)
    for span in rendered.spans:
        if span.supervised:
            mask |= (offsets[:, 0] < span.end) & (offsets[:, 1] > span.start)
    return mask


def behind_same_turns(encode: Callable[[int], Sequence[Encoded]]) -> list[Encoded]:
    """Encode sequences that are compared: all leave out as many turns as the longest one has to.

    `encode` is given how many turns they leave out at least.
    """
    found = encode(0)
    dropped = {each.dropped for each in found}
    return list(found if len(dropped) < 2 else encode(max(dropped)))


def _check_tokenizer(tokenizer: PreTrainedTokenizerFast, template: ChatTemplate) -> None:
    if not tokenizer.is_fast:
        raise InputError(
            f"tokenizer {tokenizer.name_or_path!r} gives no character offsets: use a fast one."
        )
    if template.image_token not in tokenizer.get_added_vocab():
        raise InputError(
            f"template.image_token {template.image_token!r} is not a token of the tokenizer "
            f"{tokenizer.name_or_path!r}: add it to its special tokens."
        )
    if tokenizer.eos_token is None or tokenizer.eos_token not in template.end:
        raise InputError(
            f"template.end {template.end!r} does not hold the tokenizer's end token "
            f"{tokenizer.eos_token!r}, so that a trained model would never stop: make them agree."
        )
    for token in (template.image_token, tokenizer.eos_token):
        ids = tokenizer(f"a{token}", add_special_tokens=False)["input_ids"]
        if ids[-1] != tokenizer.convert_tokens_to_ids(token):
            raise InputError(
                f"tokenizer {tokenizer.name_or_path!r} does not see {token!r} behind other text: "
                "set `normalized` to false for it in its tokenizer.json."
            )
