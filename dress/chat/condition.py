"""The only place that turns feedback into the text a model is conditioned on."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Any, Literal

from dress.errors import InputError
from dress.records import ASPECTS, BANK, RATINGS, Feedback, Judgement
from dress.settings import Share, checked

Form = Literal["none", "score", "critique", "both"]
Turns = Literal["all", "first"]
AUTO = "auto"

logger = logging.getLogger(__name__)


def has_learned(config: Mapping[str, Any]) -> bool:
    """Tell from a model's config.yaml whether it was trained on responses behind their feedback.

    Self-distillation trains the responses that stand behind none.
    """
    objective, condition = config.get("objective"), config.get("condition")
    if isinstance(objective, Mapping):
        if str(objective.get("_target_")).endswith(".SelfDistillation"):
            return False
        if objective.get("requires", "feedback") != "feedback":
            return False
    shown = condition if isinstance(condition, Mapping) else {}
    return shown.get("form") != "none" and shown.get("dropout") != 1


def chosen_target(name: str | int, *, learned: bool) -> str:
    """Return what `auto` stands for, or the target that was named.

    A model that has learned from no conditions is only disturbed by one: that is warned of.
    """
    if str(name) == AUTO:
        return "best" if learned else "none"
    if not learned and str(name) != "none":
        logger.warning(
            "warning: condition %s is asked of a model that was trained without conditions: give "
            "none, or leave it out",
            name,
        )
    return str(name)


class Condition:
    """Render feedback in one form, and drop it now and then so that plain prompts stay trained.

    Single aspects are dropped as well, so that the effect of each is learned by itself: at test
    they are asked for in combinations that no response had. `learned` says whether the model was
    trained so. With `turns="first"` only the first response of a dialogue has a condition: a later
    one answers to what the user said.
    """

    @checked
    def __init__(
        self,
        *,
        form: Form = "both",
        dropout: Share = 0.1,
        aspect_dropout: Share = 0.0,
        turns: Turns = "all",
        learned: bool = True,
        bank: Mapping[str, Mapping[int, str]] = BANK,
    ) -> None:
        self.form, self.learned, self.bank = form, learned, bank
        self.dropout, self.aspect_dropout, self.turns = dropout, aspect_dropout, turns

    def at(self, turn: int, text: str) -> str:
        """Return the condition of a dialogue's turn, counted from 0: the text, or nothing."""
        return text if turn == 0 or self.turns == "all" else ""

    def text(self, feedback: Feedback | None) -> str:
        """Write what was judged in the order of ASPECTS; nothing judged is no text."""
        if feedback is None or self.form == "none":
            return ""
        judged = [aspect for aspect in ASPECTS if aspect in feedback.judgements]
        return " ".join(filter(None, (self._part(a, feedback.judgements[a]) for a in judged)))

    def _part(self, aspect: str, judgement: Judgement) -> str:
        critique = judgement.critique.strip()
        if self.form == "critique":
            return critique
        score = f"{aspect} {judgement.rating}"
        return f"{score}: {critique}" if self.form == "both" and critique else score

    def sample(
        self, feedback: Feedback | None, *, seed: int, epoch: int, key: str, whole: bool = False
    ) -> str:
        """Return `text` with what dropout leaves of it: the same draw for the same key.

        A `whole` one keeps all aspects or none.
        """
        digest = hashlib.sha256(f"condition/{seed}/{epoch}/{key}".encode()).digest()
        all_of_it, *single = (
            int.from_bytes(digest[i : i + 8], "big") / 2**64 for i in (0, 8, 16, 24)
        )
        if feedback is None or all_of_it < self.dropout:
            return ""
        if whole:
            return self.text(feedback)
        draws = dict(zip(ASPECTS, single, strict=True))
        kept = {a: j for a, j in feedback.judgements.items() if draws[a] >= self.aspect_dropout}
        return self.text(Feedback(kept))

    def target(self, name: str | int) -> str:
        """Write the bank's sentences for a level: none, best, worst, 1 to 4, or e.g. 4/1/4.

        `auto` is best where the model has learned from conditions, else none.
        """
        name = str(name)
        if name == AUTO:
            name = chosen_target(name, learned=self.learned)
        if name == "none":
            return ""
        levels = {"best": "4/4/4", "worst": "1/1/1"} | {str(r): f"{r}/{r}/{r}" for r in RATINGS}
        ratings = levels.get(name, name).split("/")
        if len(ratings) != len(ASPECTS) or not set(ratings) <= {str(r) for r in RATINGS}:
            raise InputError(
                f"condition.target is {name!r}: choose auto, none, best, worst, 1, 2, 3, 4 or "
                f"three ratings {'/'.join(ASPECTS)} such as 4/1/4."
            )
        judgements = {
            aspect: Judgement(rating=int(rating), critique=self.bank[aspect][int(rating)])
            for aspect, rating in zip(ASPECTS, ratings, strict=True)
        }
        return self.text(Feedback(judgements))
