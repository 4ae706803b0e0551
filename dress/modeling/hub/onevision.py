"""Models of transformers' type llava_onevision: those of llava, and a token behind each picture.

transformers shows a single picture as a whole and in further views, and each of several pictures
of a text as one square alone. The latter is how every picture is shown here.
"""

from __future__ import annotations

from typing import Any

from transformers import LlavaOnevisionProcessor

from dress.modeling.hub.family import Family
from dress.modeling.hub.llava import LLAVA


def _described(config: Any, name: str) -> dict[str, dict[str, Any]]:
    nodes = LLAVA.described(config, name)
    nodes["projector"]["newline"] = True
    return nodes


ONEVISION = Family(
    kind="llava_onevision",
    processor=LlavaOnevisionProcessor,
    image_processors=("LlavaOnevisionImageProcessor", "LlavaOnevisionImageProcessorPil"),
    described=_described,
    views=True,
    told={"batch_num_images": [2]},
    newlines=1,
)
