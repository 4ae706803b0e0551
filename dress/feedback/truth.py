"""What a response is truly worth, where that is known: on generated scenes."""

from __future__ import annotations

from dress.feedback.oracle import OracleAnnotator
from dress.types import Dialogue, Sample


def true_score(sample: Sample, dialogue: Dialogue) -> float | None:
    """Return the mean rating, 1 to 4, of an oracle that never errs; None for photographs."""
    if not {"scene", "question"} <= sample.annotations.keys():
        return None
    return OracleAnnotator(noise=0.0).annotate(sample, dialogue).mean_rating
