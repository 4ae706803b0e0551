"""Find COCO objects in a caption by the rules of CHAIR (Rohrbach et al. 2018, arXiv 1809.02156).

LisaAnne/Hallucination, utils/chair.py: words in lower case are made singular, some pairs of words
become one, and what then stands in synonyms.txt is mapped to the first word of its line. The
original leaves both first steps to nltk and pattern.en; here they are rules of our own that give
the same for every word that synonyms.txt or a pair could hold, quirks included: `bus` loses its s
and is never found (`buses` is), nor are `ties`, `cookies` or `doggies`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from dress.errors import InputError
from dress.files import read_text, text_lines

_ANIMALS = "bird cat dog horse sheep cow elephant bear zebra giraffe animal cub".split()
_PAIRS = (
    "motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, "
    "fire hydrant, stop sign, parking meter, suit case, sports ball, baseball bat, baseball glove, "
    "tennis racket, wine glass, hot dog, cell phone, mobile phone, teddy bear, hair drier, "
    "potted plant, bow tie, laptop computer, home plate, train track"
)
DOUBLE_WORDS: dict[str, str] = {
    **{pair: pair for pair in _PAIRS.split(", ")},
    **{f"{age} {animal}": animal for age in ("baby", "adult") for animal in _ANIMALS},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}

# a word of the tokenizer: cut at blanks and at these signs, and before 's and the like
_APART = re.compile(r"([][(){}<>;@#$%&*?!\"«»“”„`\u2018\u2019\u2013\u2014]|--+|\.{2,}|[:,](?!\d))")
_CLITIC = re.compile(r"('s|'m|'d|'ll|'re|'ve|n't)$")
_IRREGULAR = (
    ("children", "child"),
    ("men", "man"),
    ("people", "person"),
    ("geese", "goose"),
    ("oxen", "ox"),
    ("kine", "cow"),
)
_KEPT = frozenset(("scissors", "cookies", "collies", "doggies", "birdies", "pixies"))
_ENDINGS = tuple(
    (re.compile(pattern), ending)
    for pattern, ending in (
        (r"(?<=shoe)s$", ""),
        (r"(?<=o)es$", ""),
        (r"(?<=bus)es$", ""),
        (r"(?<=[ml])ice$", "ouse"),
        (r"(?<=x)es$|(?<=ch)es$|(?<=ss)es$|(?<=sh)es$", ""),
        (r"(?<=[^aeiouy])ies$|(?<=qu)ies$", "y"),
        (r"(?<=[aeo]l)ves$", "f"),
        (r"(?<=[nlw]i)ves$", "fe"),
        (r"(?<=[lr])ves$", "f"),
        (r"(?<=[aeo])ves$", "ve"),
        (r"(?<=hi)ves$|(?<=ti)ves$|(?<=si)ves$", "ve"),
        (r"(?<=[^f])ves$", "fe"),
        (r"s$", ""),
    )
)


def tokens(text: str) -> list[str]:
    """Split a text into lower-case words and punctuation as nltk's word_tokenize does."""
    found: list[str] = []
    for chunk in _APART.sub(r" \1 ", text.lower()).split():
        word = chunk.strip("'.") or chunk
        before, _, after = chunk.partition(word)
        tail = _CLITIC.search(word)
        parts = [word[: tail.start()], tail[0]] if tail and tail.start() else [word]
        found += [*before, *parts, *after]
    return found


class ChairVocabulary:
    """Objects by their synonyms, as CHAIR's synonyms.txt lists them."""

    def __init__(self, lines: Sequence[str]) -> None:
        self.node_of: dict[str, str] = {}
        for line in lines:
            words = line.strip().split(", ")
            self.node_of |= dict.fromkeys(filter(None, words), words[0])

    @classmethod
    def read(cls, path: Path) -> ChairVocabulary:
        vocabulary = cls(text_lines(read_text(path)))
        if not vocabulary.node_of:
            raise InputError(f"{path} names no object: fetch synonyms.txt again.")
        return vocabulary

    def objects(self, caption: str) -> list[str]:
        """Return the object of every mention in a caption, in order and with repeats."""
        words = _joined([singular(word) for word in tokens(caption)])
        if "toilet" in words and "seat" in words:  # of a toilet, not a chair
            words = [word for word in words if word != "seat"]
        return [self.node_of[word] for word in words if word in self.node_of]


def _joined(words: Sequence[str]) -> list[str]:
    """Replace pairs of words from the left on."""
    joined: list[str] = []
    place = 0
    while place < len(words):
        pair = " ".join(words[place : place + 2])
        joined.append(DOUBLE_WORDS.get(pair, words[place]))
        place += 2 if pair in DOUBLE_WORDS else 1
    return joined


@lru_cache(maxsize=100_000)
def singular(word: str) -> str:
    """Return the singular of a lower-case word as the original does where an object may result."""
    if word in _KEPT:
        return word
    for many, one in _IRREGULAR:
        if word.endswith(many):
            return word.removesuffix(many) + one
    for pattern, ending in _ENDINGS:
        if pattern.search(word):
            return pattern.sub(ending, word)
    return word
