"""How far the reward models of a report can be taken at their word."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from dress.artifact import Artifact
from dress.evaluation.report.drawing import COLOURS, HEIGHT, LEGEND, Panel, colour, draw, wrapped
from dress.objectives.calibration import calibration_curve, calibration_error


def calibration_panels(artifacts: Sequence[Artifact]) -> list[Panel]:
    """Draw how often each reward model is right, by how sure it is; none without such a model."""
    curves = {a.name: curve for a in artifacts if (curve := calibration_curve(a.metrics))}
    if not curves:
        return []
    errors = {name: calibration_error(curve) for name, curve in curves.items()}

    def plot(axes: Axes) -> None:
        axes.plot([0.5, 1], [0.5, 1], color=COLOURS[0], linewidth=0.9, linestyle=":")
        for place, (name, curve) in enumerate(curves.items(), start=1):
            sure, right, shares = zip(*curve, strict=True)
            label = wrapped(f"{name}, error {errors[name]:.3f}", 50)
            axes.plot(sure, right, color=colour(place), linewidth=1, label=label)
            axes.scatter(sure, right, s=[4 + 60 * share for share in shares], color=colour(place))
        axes.set_xlabel("probability given to the response that is scored higher")
        axes.set_ylabel("share in which it is")
        axes.figure.legend(loc="outside lower left")

    told = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return [
        draw(
            "Calibration on held-out pairs",
            f"Calibration of reward models, expected calibration error: {told}",
            plot,
            height=HEIGHT + LEGEND * len(curves),
        )
    ]
