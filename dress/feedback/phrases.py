"""Put the names of things into English phrases."""

from __future__ import annotations

from collections.abc import Sequence


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
