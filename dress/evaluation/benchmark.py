"""The interfaces of a benchmark and of its judge, and what a benchmark counts.

A label is a pair (numerator, denominator) per response; a metric is a function of pooled ratios,
so that a bootstrap over clusters only has to resample sums.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from dress.errors import Reject
from dress.feedback.rubric import DATA_RULE, marked, strict_object
from dress.records import Turn

Label = tuple[float, float]
Labels = Mapping[str, Label]
Ratios = Mapping[str, Any]  # label -> pooled ratio, a float or an array over resamples


@dataclass(frozen=True)
class Example:
    """One prompt; `cluster` names what is resampled together, such as its image.

    `turns` have been said and answered before; the benchmark then says what the user says next.
    """

    id: str
    cluster: str
    images: tuple[bytes, ...]
    question: str
    answer: str
    annotations: Mapping[str, Any] = field(default_factory=dict)
    turns: tuple[Turn, ...] = ()


@dataclass(frozen=True)
class Answered:
    """An example without its images, and what was said; `image` is its file in the artifact."""

    example: Example
    turns: tuple[Turn, ...]
    image: str = ""

    @property
    def response(self) -> str:
        return self.turns[-1].model or ""


class Benchmark(Protocol):
    name: str

    def examples(self) -> Iterator[Example]: ...

    def labels(self, example: Example, turns: Sequence[Turn]) -> Labels:
        """Count what the answered turns are worth; a plain benchmark has one."""
        ...

    def metrics(self, ratios: Ratios) -> dict[str, Any]:
        """Combine pooled ratios into `benchmark/quantity` figures."""
        ...

    def row(self, example: Example) -> dict[str, Any]:
        """Return what a row of responses.jsonl holds besides image, condition and response."""
        ...


@runtime_checkable
class Interaction(Benchmark, Protocol):
    """A benchmark in which the user goes on talking, for at most `max_turns` responses."""

    max_turns: int

    def replies(self, asked: Sequence[tuple[Example, Sequence[Turn]]]) -> Sequence[str | None]:
        """Return what the user says to each last response, or None where the dialogue ends."""
        ...


@runtime_checkable
class Joint(Benchmark, Protocol):
    """A benchmark that also counts what several responses are worth together."""

    def joint_labels(self, answered: Sequence[Answered]) -> Iterable[Labels]:
        """Yield for each response, in order, what to count besides its own labels."""


@runtime_checkable
class Bridged(Benchmark, Protocol):
    """A benchmark that has an official script."""

    def official(self, answered: Sequence[Answered]) -> Mapping[str, str]:
        """Return the files, by name, that the script reads; none where it would misread them."""
        ...


@runtime_checkable
class Judged(Benchmark, Protocol):
    """A benchmark whose responses a judge rates; its `labels` are not asked for."""

    def request(self, example: Example, response: str) -> JudgeRequest: ...

    def judged_labels(self, example: Example, reply: Mapping[str, Any]) -> Labels:
        """Count what a reply that fits the schema of the request is worth."""


@dataclass(frozen=True)
class JudgeRequest:
    """Chat messages and the strict JSON schema of the reply; `prompt` is what all items share."""

    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any]
    prompt: str


def ask(
    prompt: str, texts: Sequence[tuple[str, str]], properties: Mapping[str, Any]
) -> JudgeRequest:
    """Ask by `prompt` about named texts, which may try to give orders, for an object of JSON."""
    code, user = marked(texts)
    system = f"{prompt}\n\n{DATA_RULE.format(code=code)}"
    messages = ({"role": "system", "content": system}, {"role": "user", "content": user})
    return JudgeRequest(messages, strict_object(properties), prompt)


class Judge(Protocol):
    max_failures: int

    def judge(self, requests: Iterable[JudgeRequest]) -> Iterator[Mapping[str, Any] | Reject]:
        """Yield a reply per request, in order; a Reject where none was valid."""
        ...

    def metrics(self) -> dict[str, float]: ...

    def settings(self) -> dict[str, Any]:
        """Return what identifies the judge and can change its replies."""
        ...
