"""Values that a constructor takes, checked by the types in its own signature.

    @checked
    def __init__(self, *, window: Positive = 2048, form: Literal["score", "both"] = "both") -> None:

A job checks the values of its configuration against the same signatures before it builds anything
(dress/jobs/keys.py), so that the constructor need not run for that.
"""

from __future__ import annotations

import math
from collections import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache, wraps
from inspect import signature
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, get_origin, get_type_hints
from typing import get_args as arguments_of

from dress.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Range:
    """The least and the most that a number may be, both allowed unless `open`."""

    least: float
    most: float = math.inf
    open: bool = False

    def __contains__(self, number: float) -> bool:
        return self.least < number < self.most if self.open else self.least <= number <= self.most

    def __str__(self) -> str:
        if self.open:
            return f" above {self.least:g}"
        return f", {self.least:g} " + ("or more" if self.most == math.inf else f"to {self.most:g}")


Whole = Annotated[int, Range(0)]
Positive = Annotated[int, Range(1)]
Amount = Annotated[float, Range(0)]
AboveZero = Annotated[float, Range(0, open=True)]
Share = Annotated[float, Range(0, 1)]
Precision = Literal["32-true", "bf16-mixed"]  # of training, as Lightning calls them

_PLAIN: Mapping[Any, tuple[type | tuple[type, ...], str]] = {
    int: (int, "a whole number"),
    float: ((int, float), "a number"),
    bool: (bool, "true or false"),
    str: (str, "a text"),
    NoneType: (NoneType, "null"),
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Let a constructor or a function raise InputError at a value that its type does not allow."""
    names = signature(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        check_values(function, names.bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return call


def check_values(
    function: Callable[..., Any],
    values: Mapping[str, Any],
    *,
    key_of: Callable[[str], str] = str,
) -> None:
    """Raise InputError at the first value that does not fit the parameter of its name.

    A class stands for its constructor. `key_of` gives the name of a parameter in messages.
    """
    plain = isinstance(function, type) and not is_dataclass(
        function
    )  # one's fields may be inherited
    hints = _hints(function.__init__ if plain else function)  # type: ignore[misc]
    for name, value in values.items():
        if name in hints:
            check_value(key_of(name), value, hints[name])


def check_value(key: str, value: Any, hint: Any) -> None:
    """Raise InputError where a value does not fit a type; types of other kinds allow all values."""
    kind, arguments = get_origin(hint), arguments_of(hint)
    if kind in (Union, UnionType):
        _check_any(key, value, arguments)
    elif kind is Literal and value not in arguments:
        raise InputError(f"{key} is {value!r}: choose {' or '.join(map(str, arguments))}.")
    elif kind is Annotated and isinstance(arguments[1], Range):
        plain, limits = arguments[:2]
        if not (_is(value, plain) and value in limits):
            raise InputError(f"{key} is {value!r}: give {_PLAIN[plain][1]}{limits}.")
    elif hint in _PLAIN and not _is(value, hint):
        raise InputError(f"{key} is {value!r}: give {_PLAIN[hint][1]}.")
    elif kind in (abc.Mapping, abc.Sequence):
        _check_items(key, value, kind, arguments[-1])


def _check_any(key: str, value: Any, hints: tuple[Any, ...]) -> None:
    faults = []
    for hint in hints:
        try:
            return check_value(key, value, hint)
        except InputError as fault:
            faults.append(fault)
    raise faults[0]


def _check_items(key: str, value: Any, kind: Any, hint: Any) -> None:
    if not isinstance(value, kind) or isinstance(value, str):
        form = "a list, [a,b]" if kind is abc.Sequence else "names with values, {a: b}"
        raise InputError(f"{key} is {value!r}: give {form}.")
    if isinstance(value, abc.Mapping):
        for name, item in value.items():
            check_value(f"{key}.{name}", item, hint)
    else:
        for number, item in enumerate(value):
            check_value(f"{key}[{number}]", item, hint)


def _is(value: Any, plain: Any) -> bool:
    kind, _ = _PLAIN[plain]
    return isinstance(value, kind) and (plain is bool or not isinstance(value, bool))


@cache
def _hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:  # of a library that imports its types for checkers alone
        return {}
