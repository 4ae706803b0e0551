"""DRESS: align vision-language models with natural-language feedback (arXiv 2311.10081)."""

from typing import Any

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """Import torch and transformers only when a model is loaded."""
    if name == "load":
        from dress.loading import load

        return load
    raise AttributeError(f"module 'dress' has no attribute {name!r}")
