"""What a model card says of parts that came from folders of this machine."""

from __future__ import annotations

from pathlib import Path

from report_store import Store

from dress.files import public_name
from dress.reporting.model_card import Card, card_of


def test_the_card_of_own_parts_names_no_folder(tmp_path: Path) -> None:
    own = {"random_init": False, "name": str(tmp_path / "language")}
    config = {"model": {"vision": own | {"name": None}, "language": own}}
    artifact = Store(tmp_path).make("m", "model", lambda _: None, config)
    card = card_of(Card(artifact=artifact, target="best", condition="", base=None, form="merged"))
    assert "- language (language): see the page" in card and str(tmp_path) not in card
    names = ("a/b", "../b", "~/b", str(tmp_path / "b"))
    assert [public_name(name) for name in names] == ["a/b", "b", "b", "b"]
