"""Which statements of a response its hint denies, and which a later response makes again."""

from __future__ import annotations

from dress.world.grammar import parse_mentions
from dress.world.questions import VQA_TASKS, Question
from dress.world.scene import Scene
from dress.world.verdict import judge, parse_answer

Statement = tuple[object, ...]  # a kind and a place or a size, or the answer that is given


def denied(question: Question, scene: Scene, response: str) -> frozenset[Statement]:
    """Return what the oracle's hint says in so many words is not so (scene_oracle.py).

    These are things that are not there, places, sizes, a side and a number. `Check the colour` and
    `Look again` deny nothing.
    """
    verdict = judge(question, scene, response)
    statements: set[Statement] = set()
    if not verdict.correct and question.task in ("count", "relation") and verdict.answer:
        statements.add(("answer", verdict.answer))
    if verdict.invented:
        statements |= {(*m.kind, m.cell) for m in verdict.invented if m.cell is not None}
    else:
        is_wrong_answer = question.task in VQA_TASKS and not verdict.correct
        statements |= {
            (*m.kind, m.size if m.cell in (None, thing.cell) else m.cell)
            for m, thing in (verdict.displaced if is_wrong_answer else verdict.misplaced)
        }
    return frozenset(statements)


def stated(question: Question, response: str) -> frozenset[Statement]:
    """Return every statement of a response, in the form of `denied`."""
    statements: set[Statement] = set()
    for mention in parse_mentions(response):
        if not mention.negated:
            statements |= {(*mention.kind, mention.cell), (*mention.kind, mention.size)}
    if question.task in ("count", "relation"):
        statements.add(("answer", parse_answer(question, response)))
    return frozenset(statements)
