"""What LLaVA-RLHF's rows share: LLaVA's conversations, and a file of facts about their images."""

from __future__ import annotations

from collections.abc import Sequence

from dress.data.sources.conversations import image_names
from dress.data.sources.fields import Fields
from dress.data.sources.image_captions import ImageCaptions
from dress.data.sources.row_source import RowSource
from dress.settings import Whole, checked


class FactsSource(RowSource):
    """`captions`, a file such as image_to_caption.json, gives `annotations.captions`."""

    @checked
    def __init__(
        self,
        *,
        root: str | None,
        file: str,
        images: str = "train2017",
        captions: str | None = None,
        limit: Whole | None = None,
    ) -> None:
        super().__init__(root=root, file=file, images=images, limit=limit)
        self._captions = ImageCaptions(root, captions) if captions is not None else None

    def image_names(self, fields: Fields) -> tuple[str, ...]:
        return image_names(fields)

    def inputs(self) -> dict[str, str]:
        return super().inputs() | (self._captions.inputs() if self._captions else {})

    def facts(self, names: Sequence[str], fields: Fields) -> dict[str, list[str]]:
        """Return what is annotated of these images: nothing where there is no such file."""
        return {"captions": self._captions.of(names, fields)} if self._captions else {}
