"""Names of objects in English: put into phrases, and found in texts by a table of words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from dress.errors import InputError
from dress.files import read_text, text_lines

COCO_SYNONYMS = Path(__file__).with_name("coco_synonyms.yaml")
_TOKEN = re.compile(r"[a-z0-9]+(?:'[a-z]+)?|[.,;:!?()]")
_IRREGULAR = {
    "person": "people",
    "child": "children",
    "human": "humans",
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
    "knife": "knives",
    "calf": "calves",
    "sheep": "sheep",
    "cattle": "cattle",
}
_NEGATIONS = set("no not without never isn't aren't don't doesn't didn't cannot can't".split())
_REACH = 4  # words between a negation and what it negates, as in `no sign of a dog`
_BREAKS = set(
    ". , ; : ! ? ( ) and but with while near on in at by next behind under to only is are".split()
)
_LIST = set(", or nor a an any".split())
_COLOURS = set("black white red green blue yellow brown gray grey pink purple tan".split())
_BEFORE_FRUIT = set(
    ". , ; : ! ? ( ) a an the one this that whole half fresh ripe cut sliced peeled and or".split()
)
_AFTER_FRUIT = set(
    ". , ; : ! ? ( ) and or on in with is next near beside from to at by sits lies slice".split()
)


def is_plural(name: str) -> bool:
    return name.endswith("s") and not name.endswith(("ss", "us"))


def with_article(name: str) -> str:
    """`a dog`, `an oven`, `scissors`."""
    if is_plural(name):
        return name
    return f"an {name}" if name[:1] in tuple("aeiou") else f"a {name}"


def listing(names: Sequence[str]) -> str:
    """`a dog, an oven and scissors`."""
    phrases = [with_article(name) for name in names]
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]] if phrases[1:] else phrases)


def there_is(name: str, *, absent: bool = False) -> str:
    """`there is a dog`, `there are no scissors`."""
    verb = "are" if is_plural(name) else "is"
    return f"there {verb} no {name}" if absent else f"there {verb} {with_article(name)}"


def there_is_sentence(name: str, *, absent: bool = False) -> str:
    phrase = there_is(name, absent=absent)
    return f"{phrase[0].upper()}{phrase[1:]}."


@dataclass(frozen=True)
class ObjectMention:
    """A category that a text names; `no dog` is a negated mention of a dog."""

    category: str
    negated: bool = False


class SynonymTable:
    """Map words and phrases, singular or plural, to categories; the longest phrase wins.

    `other` lists phrases that hold a category's word but name something else.
    """

    def __init__(
        self, categories: Mapping[str, Sequence[str]], *, other: Sequence[str] = ()
    ) -> None:
        self.categories, self.other = categories, other
        self._forms: dict[tuple[str, ...], str | None] = {}
        for category in categories:
            self._add(category, category)
        for category, synonyms in categories.items():
            for synonym in synonyms:
                self._add(synonym, category)
        for phrase in other:
            self._add(phrase, None)
        self._longest = max(map(len, self._forms), default=0)

    def _add(self, phrase: str, category: str | None) -> None:
        """The first owner of a phrase keeps it."""
        *head, last = _tokens(phrase) or [""]
        for form in (last, plural(last)):
            self._forms.setdefault((*head, form), category)

    def with_names(self, names: Iterable[str]) -> SynonymTable:
        """Add categories that the table lacks, each under its own name."""
        unknown = {name: () for name in names if tuple(_tokens(name)) not in self._forms}
        if not unknown:
            return self
        return SynonymTable({**self.categories, **unknown}, other=self.other)

    def canonical(self, name: str) -> str:
        """Return the table's own name for a category: `sofa` is a couch."""
        return self._forms.get(tuple(_tokens(name))) or name

    def mentions(self, text: str) -> list[ObjectMention]:
        """List every category that the text names, in order and with repeats."""
        tokens = _tokens(text)
        found: list[ObjectMention] = []
        last_end = 0
        for start, end, category in self._spans(tokens):
            after = found[-1] if found else None
            found.append(ObjectMention(category, _negated(tokens[last_end:start], after)))
            last_end = end
        return found

    def named(self, text: str) -> frozenset[str]:
        """Return the categories that the text says are there."""
        return frozenset(m.category for m in self.mentions(text) if not m.negated)

    def present(self, objects: Iterable[str], captions: Iterable[str]) -> frozenset[str]:
        """Return what an image shows: its annotated objects and those that its captions name."""
        annotated = {self.canonical(name) for name in objects}
        return frozenset(annotated.union(*(self.named(caption) for caption in captions)))

    def _spans(self, tokens: Sequence[str]) -> Iterator[tuple[int, int, str]]:
        start = 0
        while start < len(tokens):
            end = self._match(tokens, start)
            category = self._forms.get(tuple(tokens[start:end]))
            if category is not None and not _is_colour(tokens, start, end):
                yield start, end, category
            start = max(end, start + 1)

    def _match(self, tokens: Sequence[str], start: int) -> int:
        """Return where the longest known phrase at `start` ends, or `start`."""
        for end in range(min(start + self._longest, len(tokens)), start, -1):
            if tuple(tokens[start:end]) in self._forms:
                return end
        return start


def load_synonyms(path: str | Path | None = None) -> SynonymTable:
    """Read a table: our YAML, or lines of comma-separated words headed by the category.

    The second is the format in which CHAIR's synonyms were released. None is our list for COCO.
    """
    path = Path(path or COCO_SYNONYMS)
    text = read_text(path, remedy="correct annotator.synonyms_file")
    categories, other = _parse_yaml(text, path) if _is_yaml(path) else (_parse_lines(text), [])
    if not categories:
        raise InputError(f"{path} names no category: give a line of words for each.")
    return SynonymTable(categories, other=other)


def plural(word: str) -> str:
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    if word.endswith("man"):
        return f"{word[:-3]}men"
    if word.endswith("y") and word[-2:-1] not in tuple("aeiou"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "x", "z", "ch", "sh")) else f"{word}s"


def _tokens(text: str) -> list[str]:
    """Split into lower-case words and punctuation; possessives lose their ending."""
    text = text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    return [token.removesuffix("'s") for token in _TOKEN.findall(text)]


def _negated(gap: Sequence[str], previous: ObjectMention | None) -> bool:
    """Judge by the words since the previous mention; `no cars or buses` carries on."""
    if previous is not None and previous.negated and set(gap) <= _LIST:
        return list(gap) == [","] or bool({"or", "nor"} & set(gap))
    for word in list(gap)[: -_REACH - 1 : -1]:
        if word in _NEGATIONS:
            return True
        if word in _BREAKS:
            return False
    return False


def _is_colour(tokens: Sequence[str], start: int, end: int) -> bool:
    """Tell the colour orange from the fruit: a fruit stands where a noun may stand alone."""
    if tokens[start:end] != ["orange"]:
        return False
    before = tokens[start - 1] if start else "."
    after = (*tokens[end : end + 2], ".", ".")
    colours = after[0] in ("and", "or") and after[1] in _COLOURS
    colours |= before in ("and", "or") and start > 1 and tokens[start - 2] in _COLOURS
    return colours or before not in _BEFORE_FRUIT or after[0] not in _AFTER_FRUIT


def _is_yaml(path: Path) -> bool:
    return path.suffix.lower() in (".yaml", ".yml")


def _parse_yaml(text: str, path: Path) -> tuple[dict[str, list[str]], list[str]]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError:
        data = None
    categories = data.get("categories") if isinstance(data, dict) else None
    other = data.get("other", []) if isinstance(data, dict) else []
    lists = [*categories.values(), other] if isinstance(categories, dict) else [None]
    if not all(
        isinstance(words, list) and all(isinstance(w, str) for w in words) for words in lists
    ):
        raise InputError(
            f"{path} is no synonym table: give `categories:` with a list of words for each name."
        )
    return {str(name): words for name, words in (categories or {}).items()}, other


def _parse_lines(text: str) -> dict[str, list[str]]:
    categories: dict[str, list[str]] = {}
    for line in text_lines(text):
        words = [word.strip() for word in line.split(",") if word.strip()]
        if words:
            categories.setdefault(words[0], []).extend(words[1:])
    return categories
