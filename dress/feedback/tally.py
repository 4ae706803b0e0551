"""What annotators said, counted."""

from __future__ import annotations

from dress.types import ASPECTS, RATINGS, Sample


class Tally:
    """Mean rating per aspect and the share of each rating, over all responses."""

    def __init__(self) -> None:
        self.counts = {(aspect, rating): 0 for aspect in ASPECTS for rating in RATINGS}
        self.responses = 0

    def add(self, sample: Sample) -> None:
        for dialogue in sample.dialogues:
            feedback = dialogue.turns[-1].feedback
            assert feedback is not None
            self.responses += 1
            for aspect, judgement in feedback.judgements.items():
                self.counts[aspect, judgement.rating] += 1

    def metrics(self) -> dict[str, float]:
        figures = {"feedback/responses": float(self.responses)}
        for aspect in ASPECTS:
            shares = {rating: self.counts[aspect, rating] for rating in RATINGS}
            if total := sum(shares.values()):
                mean = sum(rating * n for rating, n in shares.items()) / total
                figures[f"feedback/{aspect}"] = mean
                figures |= {f"feedback/{aspect}_{r}": n / total for r, n in shares.items()}
        return figures
