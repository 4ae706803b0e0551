"""AMBER, generative part: objects that a description invents or covers (arXiv 2311.07397).

As in junyangwang0410/AMBER, inference.py: of the nouns of a response those count that relation.json
knows. A noun is right where it is safe anywhere, is a true object of the image or is associated
with one, or is like one of these; else it is invented. chair = invented nouns / nouns, cover = true
objects named, hal = responses with an invention, cog = objects named of those that invite
hallucination, directly or by a like word, which a right noun of the image's own never counts for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from dress.errors import InputError
from dress.evaluation.benchmark import Answered, Example, Labels, Ratios
from dress.evaluation.benchmarks.amber import amber_json
from dress.evaluation.public import PublicBenchmark, Unanswered, as_id, defined, field
from dress.files import read_json, read_text, text_lines
from dress.records import Turn
from dress.settings import Share, checked

GENERATIVE = "generative"
Alike = Callable[[str, str], bool]
Association = Mapping[str, Sequence[str]]
_PACKAGES = "pip install -e '.[amber]'"
_NLTK_DATA = "python -m nltk.downloader punkt_tab averaged_perceptron_tagger_eng wordnet"


class AmberGenerativeBenchmark(PublicBenchmark):
    """Read images from `queries`, their objects from `annotations`, words from two lists.

    `similarity` names an installed spaCy model; two words are alike above `threshold`.
    """

    name = "amber_generative"

    @checked
    def __init__(
        self,
        *,
        root: str | None = None,
        queries: str = "amber/query/query_generative.json",
        annotations: str = "amber/annotations.json",
        association: str = "amber/relation.json",
        safe_words: str = "amber/safe_words.txt",
        images: str = "amber/image",
        similarity: str | None = None,
        threshold: Share = 0.8,
        unanswered: Unanswered = "error",
    ) -> None:
        super().__init__(root=root, images=images, unanswered=unanswered)
        self.queries, self.annotations = queries, annotations
        self.association, self.safe_words = association, safe_words
        self.similarity, self.threshold = similarity, threshold

    def files(self) -> Sequence[str]:
        return [self.queries, self.annotations, self.association, self.safe_words]

    def inputs(self) -> dict[str, str]:
        """Hash the files and name what reads the responses, which is sought before any is made."""
        return super().inputs() | {"likeness": self._likeness.version, "nouns": self._nouns.version}

    def read_examples(self) -> Iterator[Example]:
        for where, row in self.rows(self.queries):
            name, image = field(row, "id", where), field(row, "image", where)
            objects = self._objects.get(name)
            if objects is None:
                raise InputError(f"{where} has id {name}, which {self.annotations} lacks.")
            yield Example(
                id=name,
                cluster=image,
                images=(),
                question=field(row, "query", where),
                answer=", ".join(objects["truth"]),
                annotations={"image": image, **objects},
            )

    @cached_property
    def _objects(self) -> Mapping[str, Mapping[str, Sequence[str]] | None]:
        """What is there and what invites hallucination, by id; None for the other part's ids."""
        objects: dict[str, Mapping[str, Sequence[str]] | None] = {}
        for where, row in self.rows(self.annotations):
            if row.get("type") != GENERATIVE:
                objects[field(row, "id", where)] = None
                continue
            lists = {key: self._listed(row, key, where) for key in ("truth", "hallu")}
            objects[field(row, "id", where)] = lists
        return objects

    def _listed(self, row: Mapping[str, Any], key: str, where: str) -> Sequence[str]:
        words = row.get(key)
        if not isinstance(words, list) or not all(word in self._association for word in words):
            raise InputError(
                f"{where} has no {key} of words that {self.association} knows: fetch the released "
                "files again."
            )
        return words

    @cached_property
    def _association(self) -> Association:
        path = self.path(self.association)
        try:
            read = read_json(path)
            sound = all(isinstance(words, list) for words in read.values())
        except (ValueError, AttributeError):
            sound = False
        if not sound:
            raise InputError(f"{path} is no table of words: fetch relation.json again.")
        return read

    @cached_property
    def _known(self) -> frozenset[str]:
        associated = (word for words in self._association.values() for word in words)
        return frozenset([*self._association, *associated])

    @cached_property
    def _safe(self) -> frozenset[str]:
        return frozenset(text_lines(read_text(self.path(self.safe_words))))

    @cached_property
    def _nouns(self) -> NounFinder:
        return NounFinder()

    @cached_property
    def _likeness(self) -> Likeness:
        if self.similarity is None:
            raise InputError(
                "benchmark.similarity is not set: name an installed spaCy model with word vectors; "
                "AMBER's own figures are made with en_core_web_lg."
            )
        return Likeness(self.similarity)

    def ignores(self, row: Mapping[str, Any]) -> bool:
        """Tell an answer to a question of the discriminative part."""
        return self._objects.get(as_id(row.get("id")), {}) is None

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        return object_labels(
            [noun for noun in self._nouns(turns[-1].model or "") if noun in self._known],
            truth=example.annotations["truth"],
            hallu=example.annotations["hallu"],
            association=self._association,
            safe=self._safe,
            alike=lambda word, other: self._likeness(word, other) > self.threshold,
        )

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        return {"amber.json": amber_json(answered)}

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        return {f"{self.name}/{name}": value for name, value in defined(ratios).items()}


def object_labels(
    nouns: Sequence[str],
    *,
    truth: Sequence[str],
    hallu: Sequence[str],
    association: Association,
    safe: frozenset[str],
    alike: Alike,
) -> Labels:
    """Count nouns by the official rule, in which the first word that fits decides.

    Words stand in the order: what is associated with each object, and then the objects.
    """
    there, tempting = _words(truth, association), _words(hallu, association)
    covered, tempted, invented = set(), set(), 0
    for noun in nouns:
        if noun in safe:
            continue
        same = next((place for word, place in there if word == noun), None)
        if same is not None:
            covered.add(same)
            continue
        found = [
            next((place for word, place in tempting if word == noun), None),
            next((place for word, place in tempting if alike(noun, word)), None),
        ]
        tempted |= {place for place in found if place is not None}
        like = next((place for word, place in there if alike(noun, word)), None)
        if like is None:
            invented += 1
        else:
            covered.add(like)
    return {
        "chair": (float(invented), float(len(nouns))),
        "cover": (float(len(covered)), float(len(truth))),
        "hal": (float(invented > 0), 1.0),
        "cog": (float(len(tempted)), float(len(hallu))),
        "nouns": (float(len(nouns)), 1.0),
    }


def _words(objects: Sequence[str], association: Association) -> list[tuple[str, int]]:
    associated = [(word, n) for n, name in enumerate(objects) for word in association[name]]
    return [*associated, *((name, n) for n, name in enumerate(objects))]


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
