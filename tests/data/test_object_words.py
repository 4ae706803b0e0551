from __future__ import annotations

from pathlib import Path

import pytest

from dress.data.object_words import listing, load_synonyms, plural, there_is
from dress.errors import InputError
from tests.data.coco_files import shared_data

TABLE = load_synonyms()
NAMED = {
    "A hot dog on a plate.": {"hot dog"},
    "Two teddy bears": {"teddy bear"},
    "A traffic light, a traffic cone": {"traffic light"},
    "three puppies, knives and mice": {"dog", "knife", "mouse"},
    "Policemen beside sheep and geese": {"person", "sheep", "bird"},
    "the dog's bowl; the cat\N{RIGHT SINGLE QUOTATION MARK}s couch": {
        "dog",
        "bowl",
        "cat",
        "couch",
    },
    "a wine-glass and wine glasses": {"wine glass"},
    "A pair of scissors and skis": {"scissors", "skis"},
    "A bus stop near the train tracks": set(),
    "A roll of toilet paper": set(),
    "category, caravan, dogma": set(),
    "an orange cat on an orange couch": {"cat", "couch"},
    "an orange and white truck": {"truck"},
    "a black and orange bike": {"bicycle"},
    "an apple and an orange": {"apple", "orange"},
    "sliced oranges": {"orange"},
    "There is no dog or cat but a man": {"person"},
    "a man without a tie": {"person"},
    "no cars, trucks, or buses near the bench": {"bench"},
    "not only a dog but a cat": {"dog", "cat"},
    "A couple of buckets": set(),
    "": set(),
}


@pytest.mark.parametrize("text", NAMED)
def test_named(text: str) -> None:
    assert TABLE.named(text) == NAMED[text]


def test_mentions_keep_order_repeats_and_negation() -> None:
    found = TABLE.mentions("Dogs and no cat. A dog.")
    assert [(m.category, m.negated) for m in found] == [
        ("dog", False),
        ("cat", True),
        ("dog", False),
    ]


def test_every_category_is_named_by_itself_and_by_its_synonyms() -> None:
    assert len(TABLE.categories) == 80
    for category, synonyms in TABLE.categories.items():
        assert TABLE.canonical(category) == category
        for phrase in (category, plural(category), *synonyms):
            assert TABLE.named(f"A {phrase}.") == {category}, phrase


def test_unknown_categories_go_by_their_own_name() -> None:
    table = TABLE.with_names(["Lamp Post", "sofa"])
    assert table.named("two lamp posts and a sofa") == {"Lamp Post", "couch"}
    assert TABLE.with_names(["sofa"]) is TABLE


def test_released_format(tmp_path: Path) -> None:
    path = tmp_path / "synonyms.txt"
    path.write_text("cow, cattle,  ox \n\nhot dog\ndog, puppy\n")
    table = load_synonyms(path)
    assert table.named("Oxen, hot dogs, a person") == {"cow", "hot dog"}


def test_the_released_file() -> None:
    table = load_synonyms(shared_data("chair/synonyms.txt"))
    assert set(table.categories) == set(TABLE.categories)
    assert table.named("A chihuahua on a recliner") == {"dog", "couch"}


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"synonyms_file"):
        load_synonyms(tmp_path / "absent.txt")
    for name, text in (("a.txt", "\n"), ("b.yaml", "- 1"), ("c.yaml", "categories: {a: 3}")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=name):
            load_synonyms(tmp_path / name)


def test_phrases() -> None:
    assert listing(["dog", "oven", "scissors"]) == "a dog, an oven and scissors"
    assert listing(["bus"]) == "a bus"
    assert there_is("skis", absent=True) == "there are no skis"
    assert there_is("wine glass") == "there is a wine glass"
