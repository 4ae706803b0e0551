"""Rules for responses about a photograph whose objects and captions are known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dress.data.object_words import SynonymTable, there_is, there_is_sentence
from dress.records import Assessment

_NAMED_AT_MOST = 3  # objects that one critique spells out
_WORD = re.compile(r"[a-z]+")
_STOP = frozenset(
    "a an and are as at be for from has have he her his how i in into is it its me my of on or "
    "our she so some that the their them there they this to two up was we what which who with "
    "use used using way ways without would you your image images picture pictures photo photos "
    "can could see shows".split()
)


@dataclass(frozen=True)
class Comparison:
    """What a response says of the objects, each category once."""

    present: tuple[str, ...]  # named and there
    missing: tuple[str, ...]  # expected, and not named
    expected: int
    invented: tuple[str, ...]  # named and not there
    denied: tuple[str, ...]  # said to be absent, and there
    support: float  # share of the response's words that the captions use

    @property
    def wrong(self) -> int:
        return len(self.invented) + len(self.denied)


def compare(
    response: str, table: SynonymTable, objects: Sequence[str], captions: Sequence[str]
) -> Comparison:
    """Compare with what is there: the annotated objects and those that the captions name.

    Expected are the annotated objects that some caption names, or all if none does: nobody
    mentions each cup.
    """
    annotated = [table.canonical(name) for name in objects]
    told = table.present((), captions)
    there = told.union(annotated)
    expected = [n for n in annotated if n in told] or annotated or sorted(told)
    mentions = dict.fromkeys((m.category, m.negated) for m in table.mentions(response))
    named = [name for name, negated in mentions if not negated]
    return Comparison(
        present=tuple(name for name in named if name in there),
        missing=tuple(name for name in dict.fromkeys(expected) if name not in named),
        expected=len(set(expected)),
        invented=tuple(name for name in named if name not in there),
        denied=tuple(n for n, no in mentions if no and n in annotated and n not in named),
        support=_support(response, captions),
    )


def rate_coverage(found: Comparison) -> Assessment:
    """Rate how much of what matters a description names."""
    covered = found.expected - len(found.missing)
    if not found.missing and (found.expected or found.support >= 0.5):
        return Assessment(4)
    half = 2 * covered >= found.expected > 0
    rating = 3 if half else 2 if found.present or found.support >= 0.5 else 1
    if not found.missing:
        return Assessment.plain(rating, ("It says too little.", "Say more of what you see."))
    return Assessment(
        rating,
        tuple(f"It leaves out the {name}." for name in found.missing[:_NAMED_AT_MOST]),
        (f"You left out {_things(len(found.missing))} in the picture.",),
        tuple(there_is_sentence(name) for name in found.missing[:_NAMED_AT_MOST]),
    )


def rate_truth(found: Comparison) -> Assessment:
    """Rate by invented and denied objects; without any object, by words shared with captions."""
    if found.wrong:
        true = len(found.present)
        rating = 1 if found.wrong > true else 3 if found.wrong == 1 < true else 2
        return _rate_wrong(rating, found)
    if found.present or found.support >= 0.5:
        return Assessment(4)
    rating = 3 if found.support >= 0.25 else 2 if found.support else 1
    return Assessment.plain(
        rating, ("It names nothing that the picture shows.", "Say what you see.")
    )


def rate_answer(answer: str | None, truth: str, response: str) -> Assessment:
    """Rate the answer to an existence question."""
    if answer is None:
        return Assessment.plain(1, ("It does not answer.", "Answer the question with yes or no."))
    if answer != truth:
        hint = "Look again and correct your answer."
        return Assessment(1, ("The answer is wrong.",), (hint,), (f"The answer is {truth}.",))
    if len(response.split()) < 3:
        return Assessment.plain(3, ("It is a single word.", "Answer in a full sentence."))
    return Assessment(4)


def rate_claim(answer: str | None, truth: str, about: str, found: Comparison) -> Assessment:
    """Rate what the answer claims: an invented object is worse than an overlooked one."""
    if answer is None or answer == truth:
        return rate_truth(found) if answer is None or found.wrong else Assessment(4)
    claim = there_is_sentence(about, absent=truth == "no")
    hint = f"Check whether {there_is(about)}."
    return Assessment(1 if answer == "yes" else 2, (claim,), (hint,), (claim,))


def read_answer(response: str, about: str, table: SynonymTable) -> str | None:
    """Return yes or no: the first word, or else whether the object is said to be there."""
    first = next(iter(_WORD.findall(response.lower())), "")
    if first in ("yes", "yeah", "yep", "no", "nope"):
        return "yes" if first.startswith("y") else "no"
    about = table.canonical(about)
    stances = [m.negated for m in table.mentions(response) if m.category == about]
    return None if not stances else "no" if all(stances) else "yes"


def content_words(text: str) -> frozenset[str]:
    """Return the words that carry meaning, cut to five letters so that inflections agree."""
    return frozenset(word[:5] for word in _WORD.findall(text.lower()) if word not in _STOP)


def _rate_wrong(rating: int, found: Comparison) -> Assessment:
    invented, denied = found.invented[:_NAMED_AT_MOST], found.denied[:_NAMED_AT_MOST]
    faults = (
        *(there_is_sentence(n, absent=True) for n in invented),
        *(there_is_sentence(n) for n in denied),
    )
    hints = []
    if invented:
        count = len(found.invented)
        named = "One thing that you named is" if count == 1 else f"{count} things you named are"
        hints.append(f"{named} not in the picture.")
    if denied:
        hints.append("Something that you say is absent is in the picture.")
    return Assessment(rating, faults, tuple(hints), faults)


def _support(response: str, captions: Sequence[str]) -> float:
    said, known = content_words(response), content_words(" ".join(captions))
    return len(said & known) / len(said) if said else 0.0


def _things(count: int) -> str:
    return "something that is" if count == 1 else f"{count} things that are"
