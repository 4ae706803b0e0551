"""Dialogues in which feedback is heard: respond, be judged, get the refinement, respond again.

DRESS (arXiv 2311.10081): the refinement of a response becomes the next user turn. The revision that
is kept is the best of several samples; a dialogue that is not perfect in time ends with the
reference, as in the released rows. Some responses hear what is not true of them, or nothing, and
are repeated unchanged, so that a model learns to listen instead of answering anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from dress.chat.condition import AUTO
from dress.errors import Reject
from dress.feedback.annotator import Annotator, Misleading, annotate_groups
from dress.feedback.sampler import Sampler
from dress.feedback.thread import Thread
from dress.generation import Sampling
from dress.records import Prompt, sentences
from dress.settings import Positive, Share, checked
from dress.types import Dialogue, Sample, Turn

Revisions = Literal["heard", "fresh"]
Kept = Callable[..., Turn]  # max or min
FalseFeedback = Literal["other", "aside", "wrong", "empty"]


class RefinementRollout:
    """Roll many dialogues out at once, `samples` for each prompt and each of `targets`.

    `max_turns` counts responses; what is faulty then is closed by the reference. For a revision
    `candidates` are drawn under the best condition (`auto`) and the best-rated is kept. They are
    `heard`, in the dialogue, or `fresh`: a model that has never heard a hint repeats what it said,
    but it may do well when it answers the question anew. `relapse_share` of the revisions are drawn
    as first responses are, so that some dialogues need more than one hint.
    `false_share` of all dialogues end after one of `false_feedback` and the first response again,
    faulty or not: a hint that some `other` image got and that is not true of this response, one
    `aside` of the question, a `wrong` one, or nothing said.
    The first response is the worst-rated of `first_candidates`, so that more of them are faulty.
    """

    @checked
    def __init__(
        self,
        *,
        sampler: Sampler,
        annotator: Annotator,
        targets: Sequence[str],
        samples: Positive,
        max_turns: Positive,
        first_candidates: Positive,
        candidates: Positive,
        revisions: Revisions,
        relapse_share: Share,
        false_share: Share,
        false_feedback: Sequence[FalseFeedback],
        sampling: Sampling,
    ) -> None:
        self.sampler, self.annotator, self.sampling = sampler, annotator, sampling
        self.targets, self.samples = targets, samples
        self.max_turns, self.first_candidates = max_turns, first_candidates
        self.candidates, self.revisions = candidates, revisions
        self.relapse_share, self.false_share = relapse_share, false_share
        self.false_feedback = [
            kind
            for kind in false_feedback
            # others know nothing false
            if kind in ("other", "empty") or isinstance(annotator, Misleading)
        ]
        self.counts = dict.fromkeys(("dialogues", "faulty", "repaired", "closed", "misled"), 0)

    def __call__(
        self,
        samples: Sequence[Sample],
        *,
        seed: int,
        on_batch: Callable[[int], None] | None = None,
        on_turn: Callable[[str], None] | None = None,
    ) -> Iterator[Sample | Reject]:
        """Replace the open turn of each sample by finished dialogues, in the order given.

        `on_batch` hears how many first responses are done, `on_turn` what is revised next.
        """
        threads = [Thread(s, t) for s in samples for t in self.targets for _ in range(self.samples)]
        self._first(threads, seed=seed, on_batch=on_batch)
        misled = self._mislead(threads, seed=seed)
        faulty = [t for t in threads if t.is_open]
        rng = random.Random(f"relapse:{seed}")
        for turn in range(1, self.max_turns):
            unfinished = [thread for thread in faulty if thread.is_open]
            if on_turn:
                on_turn(f"revision {turn} of {len(unfinished)} dialogues")
            relapsing, revised = list[Thread](), list[Thread]()
            for thread in unfinished:
                again = turn + 1 < self.max_turns and rng.random() < self.relapse_share
                (relapsing if again else revised).append(thread)
            self._relapse(relapsing, seed=seed + turn)
            self._revise(revised, seed=seed + turn)
        self._close([thread for thread in faulty if thread.is_open])
        closed = sum(thread.closed for thread in faulty)
        repaired = sum(thread.is_perfect and not thread.closed for thread in faulty)
        for name, count in zip(
            self.counts, (len(threads), len(faulty), repaired, closed, misled), strict=True
        ):
            self.counts[name] += count
        share = len(self.targets) * self.samples
        for number, sample in enumerate(samples):
            own = threads[number * share : (number + 1) * share]
            rejects = [thread.reject for thread in own if thread.reject]
            dialogues = tuple(thread.dialogue for thread in own)
            yield rejects[0] if rejects else replace(sample, dialogues=dialogues)

    def metrics(self) -> dict[str, float]:
        """Shares of all dialogues, and of the faulty ones what became of them."""
        counts = self.counts
        dialogues, faulty = max(counts["dialogues"], 1), max(counts["faulty"], 1)
        return {
            "rollout/dialogues": float(counts["dialogues"]),
            "rollout/faulty": counts["faulty"] / dialogues,
            "rollout/repaired": counts["repaired"] / faulty,
            "rollout/closed_by_reference": counts["closed"] / faulty,
            "rollout/false_feedback": counts["misled"] / dialogues,
        }

    def _first(
        self, threads: Sequence[Thread], *, seed: int, on_batch: Callable[[int], None] | None
    ) -> None:
        prompts = [self._anew(thread, thread.target) for thread in threads]
        self._respond(
            threads,
            prompts,
            candidates=self.first_candidates,
            kept=min,
            seed=seed,
            on_batch=on_batch,
        )

    def _revise(self, threads: Sequence[Thread], *, seed: int) -> None:
        if self.revisions == "heard":
            prompts = [self._prompt(t, t.feedback.refinement, AUTO) for t in threads]
        else:
            prompts = [self._anew(thread, AUTO) for thread in threads]
        self._respond(threads, prompts, candidates=self.candidates, seed=seed)

    def _relapse(self, threads: Sequence[Thread], *, seed: int) -> None:
        prompts = [self._anew(thread, thread.target) for thread in threads]
        self._respond(threads, prompts, candidates=1, seed=seed)

    def _respond(
        self,
        threads: Sequence[Thread],
        prompts: Sequence[Prompt],
        *,
        candidates: int,
        seed: int,
        kept: Kept = max,
        on_batch: Callable[[int], None] | None = None,
    ) -> None:
        """Sample responses and keep the best-rated or the worst; one too long ends its thread."""
        rejects: dict[int, Reject] = {}
        answers = self.sampler.generate(
            prompts,
            **vars(self.sampling),
            num_samples=candidates,
            seed=seed,
            rejects=rejects,
            on_batch=on_batch,
            together=True,
        )
        for number, reject in rejects.items():
            threads[number].reject = reject.at(where="prompts", key=threads[number].sample.id)
        answered = [number for number in range(len(threads)) if number not in rejects]
        self._answer(
            [threads[n] for n in answered],
            [threads[n].next_user for n in answered],
            [answers[n] for n in answered],
            kept=kept,
        )

    def _close(self, threads: Sequence[Thread]) -> None:
        """End with the reference where the sample has one."""
        closing = [thread for thread in threads if thread.sample.annotations.get("reference")]
        users = [thread.next_user for thread in closing]
        self._answer(closing, users, [[t.sample.annotations["reference"]] for t in closing])
        for thread in closing:
            thread.closed = True

    def _mislead(self, threads: Sequence[Thread], *, seed: int) -> int:
        """Follow some first responses with false feedback and themselves, unchanged.

        They make `false_share` of all dialogues, or as many as there is something to tell.
        """
        if not self.false_feedback:
            return 0
        judged = [thread for thread in threads if thread.reject is None]
        advice: dict[str, list[tuple[str, str]]] = {}
        for thread in filter(lambda thread: thread.is_open, judged):
            heard = (thread.sample.id, thread.feedback.refinement)
            advice.setdefault(thread.task, []).append(heard)
        rng = random.Random(f"false:{seed}")
        wanted, count = round(self.false_share * len(threads)), 0
        for thread in rng.sample(judged, len(judged)):
            if count == wanted:
                break
            others = [text for i, text in advice.get(thread.task, ()) if i != thread.sample.id]
            told = self._told(thread, rng.choice(self.false_feedback), others, rng)
            if told is not None:
                thread.turns.append(replace(thread.turns[-1], user=told))
                thread.closed = True
                count += 1
        return count

    def _told(
        self, thread: Thread, kind: FalseFeedback, others: Sequence[str], rng: random.Random
    ) -> str | None:
        if kind == "empty":
            return ""
        if kind != "other" and isinstance(self.annotator, Misleading):
            return self.annotator.mislead(thread.sample, thread.dialogue, kind=kind)
        true = sentences(thread.feedback.refinement)
        foreign = [text for text in others if not true & sentences(text)]
        return rng.choice(foreign) if foreign else None

    def _anew(self, thread: Thread, target: str) -> Prompt:
        """Ask the first question, as if nothing had been said since."""
        turns = thread.sample.dialogues[0].turns
        return Prompt(thread.sample.images, turns, self.sampler.condition.target(target))

    def _prompt(self, thread: Thread, user: str, target: str) -> Prompt:
        return Prompt(
            images=thread.sample.images,
            turns=(*thread.dialogue.turns, Turn(user)),
            condition=self.sampler.condition.at(
                len(thread.dialogue.turns), self.sampler.condition.target(target)
            ),
        )

    def _answer(
        self,
        threads: Sequence[Thread],
        users: Sequence[str],
        answers: Sequence[Sequence[str]],
        *,
        kept: Kept = max,
    ) -> None:
        """Have the answers of each thread judged and append one of them as its next turn."""
        groups = (
            replace(
                thread.sample,
                dialogues=tuple(
                    Dialogue((*thread.dialogue.turns, Turn(user, response)))
                    for response in responses
                ),
            )
            for thread, user, responses in zip(threads, users, answers, strict=True)
        )
        judged = annotate_groups(self.annotator, groups)
        for thread, group in zip(threads, judged, strict=True):
            if isinstance(group, Reject):
                thread.reject = group
            else:
                thread.turns.append(kept((d.turns[-1] for d in group.dialogues), key=_rating))


def _rating(turn: Turn) -> float:
    return turn.feedback.mean_rating if turn.feedback else 0.0
