"""Nouns of a text by nltk and the likeness of two words by spaCy, both installed by the user.

Neither is needed by anything but AMBER's generative part, whose official script uses these very
calls of theirs.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from dress.errors import InputError

_PACKAGES = 'pip install "dress[amber]"'
_NLTK_DATA = "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet"


class NounFinder:
    """Nouns in the singular, as nltk tags and WordNet lemmatizes them; the case is kept."""

    def __init__(self) -> None:
        try:
            import nltk
            from nltk.stem import WordNetLemmatizer
        except ImportError:
            raise InputError(f"AMBER's generative part needs nltk: {_PACKAGES}.") from None
        self._nltk, self._lemmatizer = nltk, WordNetLemmatizer()
        self.version: str = nltk.__version__
        try:
            self("Dogs run.")
        except LookupError:
            raise InputError(
                f"AMBER's generative part needs data of nltk that is not here: {_NLTK_DATA}."
            ) from None

    def __call__(self, text: str) -> list[str]:
        tagged = self._nltk.pos_tag(self._nltk.word_tokenize(text))
        return [self._lemmatizer.lemmatize(word) for word, tag in tagged if tag.startswith("NN")]


class Likeness:
    """Cosine of the vectors that an installed spaCy model has for two words."""

    def __init__(self, model: str) -> None:
        try:
            import spacy
        except ImportError:
            raise InputError(f"AMBER's generative part needs spaCy: {_PACKAGES}.") from None
        try:
            self._model = spacy.load(model)
        except (OSError, ValueError) as error:
            raise InputError(
                f"benchmark.similarity is {model!r}, which spaCy cannot load "
                f"({type(error).__name__}): python -m spacy download {model}."
            ) from None
        if not self._model.vocab.vectors_length:
            raise InputError(
                f"benchmark.similarity is {model!r}, which has no word vectors: give one that "
                "has, such as en_core_web_lg."
            )
        meta = self._model.meta
        self.version = f"{meta['lang']}_{meta['name']} {meta['version']}"
        self._document = lru_cache(maxsize=None)(self._model.make_doc)

    def __call__(self, word: str, other: str) -> float:
        document: Any = self._document(word)
        return float(document.similarity(self._document(other)))
