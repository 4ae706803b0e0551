"""What people say on the chat page, event by event, and the training rows that come of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, get_type_hints

from dress.data.sources.fields import MARKER
from dress.errors import InputError
from dress.files import is_unicode
from dress.records import ASPECTS, BANK, RATINGS, Feedback, Judgement, Turn

LONGEST_TEXT = 8000  # characters
OVERALL = "overall"  # a critique of no single aspect
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was said in a session; texts are bounded and can be written as UTF-8."""

    session: str

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            _check(name, getattr(self, name), hint)


@dataclass(frozen=True, kw_only=True)
class Asked(Event):
    """A turn of the user: an opening about an image, or what follows upon the answer `parent`."""

    turn: str
    text: str
    image: str = ""  # the name of its file
    parent: str = ""
    who: str = ""
    truth: Mapping[str, Any] = field(default_factory=dict)  # of a drawn scene


@dataclass(frozen=True, kw_only=True)
class Answered(Event):
    turn: str
    answer: str
    text: str
    model: str
    target: str
    stopped: bool = False


@dataclass(frozen=True, kw_only=True)
class Judged(Event):
    """What one person says of an answer; the last time counts."""

    answer: str
    who: str = ""
    ratings: Mapping[str, int] = field(default_factory=dict)
    critiques: Mapping[str, str] = field(default_factory=dict)  # by aspect, or overall
    refinement: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.ratings) - set(ASPECTS) or set(self.ratings.values()) - set(RATINGS):
            raise InputError(f"ratings are from 1 to 4, of {', '.join(ASPECTS)}.")
        if set(self.critiques) - {*ASPECTS, OVERALL}:
            raise InputError(f"critiques are of {', '.join(ASPECTS)} or {OVERALL}.")

    @property
    def feedback(self) -> Feedback | None:
        """The ratings with their critiques; one without words gets the sentence that fits any."""
        critiques = {a: t for a, t in self.critiques.items() if t.strip()}
        said = critiques.get(OVERALL)
        judged = {
            aspect: Judgement(
                rating, critiques.get(aspect) or said or BANK[aspect][rating], self.refinement
            )
            for aspect in ASPECTS
            if (rating := self.ratings.get(aspect))
        }
        return Feedback(judged) if judged else None


@dataclass(frozen=True, kw_only=True)
class Preferred(Event):
    """The better of two answers to one turn; another choice of this person ends it."""

    better: str
    worse: str
    who: str = ""


KINDS: Mapping[str, type[Event]] = {
    kind.__name__.lower(): kind for kind in (Asked, Answered, Judged, Preferred)
}


def event_of(record: Mapping[str, Any]) -> Event | None:
    """Read a line of sessions.jsonl; None where it is none of ours."""
    if (kind := KINDS.get(str(record.get("event")))) is None:
        return None
    try:
        return kind(**{f.name: record[f.name] for f in fields(kind) if f.name in record})
    except (TypeError, InputError):
        return None


@dataclass
class Conversation:
    """A session: turns, the answers to each, and what was said of them."""

    turns: dict[str, Asked] = field(default_factory=dict)
    answers: dict[str, Answered] = field(default_factory=dict)
    judged: dict[tuple[str, str], Judged] = field(default_factory=dict)  # by answer and person
    preferred: dict[tuple[frozenset[str], str], Preferred] = field(default_factory=dict)

    def holds(self, event: Event) -> bool:
        return any(event in held.values() for held in vars(self).values())

    def add(self, event: Event) -> None:
        """Take an event in; InputError where it speaks of what is not here."""
        if isinstance(event, Asked):
            self._known(self.answers, event.parent or None)
            self.turns[event.turn] = event
        elif isinstance(event, Answered):
            self._known(self.turns, event.turn)
            self.answers[event.answer] = event
        elif isinstance(event, Judged):
            self._known(self.answers, event.answer)
            self.judged[event.answer, event.who] = event
        elif isinstance(event, Preferred):
            self._known(self.answers, event.better, event.worse)
            pair = frozenset((event.better, event.worse))
            if len(pair) < 2 or len({self.answers[answer].turn for answer in pair}) > 1:
                raise InputError("two answers to one question are compared: choose others.")
            turn = self.answers[event.better].turn
            self.preferred = {
                key: p
                for key, p in self.preferred.items()
                if (p.who, self.answers[p.better].turn) != (event.who, turn)
                or p.better == event.better
            }
            self.preferred[pair, event.who] = event

    def _known(self, among: Mapping[str, Any], *names: str | None) -> None:
        if any(name is not None and name not in among for name in names):
            raise InputError("the answer is not in this folder: reload the page.")

    def path(self, answer: str) -> list[tuple[Asked, Answered]]:
        """Return the turns that lead to an answer, with those that were answered on the way."""
        found: list[tuple[Asked, Answered]] = []
        while answer:
            said = self.answers[answer]
            asked = self.turns[said.turn]
            found.insert(0, (asked, said))
            answer = asked.parent
        return found

    def dialogue(self, answer: str, who: str) -> tuple[Turn, ...]:
        """Return the path to an answer with what one person said of it."""
        return tuple(
            Turn(asked.text, said.text, judged.feedback if judged else None)
            for asked, said in self.path(answer)
            for judged in [self.judged.get((said.answer, who))]
        )

    def nlf_rows(self) -> Iterator[dict[str, Any]]:
        """Yield a dialogue for each judged answer behind which no other is, and for each person.

        One with an answer that is blank or was stopped is left out: it would be learned as whole.
        """
        ends = [
            key for key, judged in self.judged.items() if judged.feedback and self._is_whole(key[0])
        ]
        passed = {(said.answer, who) for answer, who in ends for _, said in self.path(answer)[:-1]}
        for answer, who in ends:
            path, turns = self.path(answer), self.dialogue(answer, who)
            if (answer, who) not in passed:
                yield {
                    "sample_id": f"{answer}-{who}" if who else answer,
                    "image_id": path[0][0].image,
                    "caption": "",
                    "interaction": [_interaction(turn) for turn in turns],
                }

    def _is_whole(self, answer: str) -> bool:
        return all(said.text.strip() and not said.stopped for _, said in self.path(answer))

    def preference_rows(self) -> Iterator[dict[str, Any]]:
        """Yield the comparisons of whole answers, which stand in the order they were given in."""
        order = list(self.answers)
        for event in self.preferred.values():
            pair = sorted((event.better, event.worse), key=order.index)
            path = self.path(pair[0])
            texts = [self.answers[answer].text for answer in pair]
            if not all(map(self._is_whole, pair)):
                continue
            messages = [
                message
                for asked, said in path
                for message in (_message("human", asked.text), _message("gpt", said.text))
            ]
            messages[0]["value"] = f"{MARKER}\n{messages[0]['value']}"
            yield {
                "id": "-".join(pair),
                "image": path[0][0].image,
                "conversations": messages,
                **{f"output_{n}": _message("llava", t) for n, t in enumerate(texts, start=1)},
                "preference": pair.index(event.better) + 1,
            }


def _interaction(turn: Turn) -> dict[str, Any]:
    """Write a turn as released, with the refinement and all its aspects under keys of our own."""
    judged = turn.feedback.judgements if turn.feedback else {}
    first = next(iter(judged.values()), None)
    released = {"rating": str(first.rating), "critique NLF": first.critique} if first else {}
    by_aspect = {a: {"rating": j.rating, "critique": j.critique} for a, j in judged.items()}
    ours = {"refinement": first.refinement if first else "", "judgements": by_aspect}
    return {"user": turn.user, "model": turn.model, **released, **ours}


def _message(role: str, text: str) -> dict[str, str]:
    return {"from": role, "value": text if role == "llava" else text.replace(MARKER, "< image>")}


def _check(name: str, value: Any, hint: Any) -> None:
    if hint in (str, bool) and not isinstance(value, hint):
        raise InputError(f"{name} is {value!r:.40}, which is not {hint.__name__}.")
    texts: Sequence[Any] = [value] if isinstance(value, str) else []
    if isinstance(value, Mapping) and name == "critiques":
        texts = [*value.values()]
    for text in texts:
        if not isinstance(text, str) or len(text) > LONGEST_TEXT:
            raise InputError(f"{name} has more than {LONGEST_TEXT} characters: make it shorter.")
        if not is_unicode(text):
            raise InputError(f"{name} holds half of a character: type it again.")
