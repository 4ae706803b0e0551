"""CHAIR's words with their quirks, and its figures against a count of one's own."""

from __future__ import annotations

import json
import random
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from dress.errors import InputError
from dress.evaluation.benchmarks.chair import ChairBenchmark
from dress.evaluation.chair_words import ChairVocabulary, singular, tokens
from tests.data.coco_files import shared_data, write_coco
from tests.evaluation.public_files import points, read_rows, scored

LINES = [
    "person, man, woman, child, people, skier",
    "bicycle, bike",
    "motorcycle, scooter,  motor bike",
    "bus, minibus",
    "dog, puppy",
    "cat",
    "cow, ox, oxen, bison ",
    "bird, goose",
    "bear",
    "tie, bow, bow tie",
    "skis, ski",
    "sports ball, ball",
    "knife, knive",
    "wine glass",
    "mouse",
    "hot dog",
    "teddy bear",
    "chair, seat",
    "toilet",
    "train",
    "airplane, jet",
    "tv",
    "cell phone, phone, iPhone",
    "couch",
    "scissors",
]


@pytest.fixture
def vocabulary() -> ChairVocabulary:
    return ChairVocabulary(LINES)


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("A man and two WOMEN ride bikes.", ["person", "person", "bicycle"]),
        ("Dogs, a dog and a puppy.", ["dog", "dog", "dog"]),  # mentions with repeats
        ("A hot dog beside a dog", ["hot dog", "dog"]),
        ("Two hot dogs", ["hot dog"]),
        ("A baby bird and an adult cat", ["bird", "cat"]),  # no person
        ("A passenger jet over a passenger train", ["airplane", "train"]),
        ("A man in a bow tie", ["person", "tie"]),
        ("The toilet seat is up", ["toilet"]),
        ("The seat of the toilet; a chair", ["toilet", "chair"]),
        ("A wine glass and wine glasses", ["wine glass", "wine glass"]),
        ("A teddy bear, teddy bears, a bear", ["teddy bear", "teddy bear", "bear"]),
        ("A bus and buses", ["bus"]),  # the singular loses its s: not found
        ("Ties and a tie", ["tie"]),  # ties become `ty`
        ("People, geese, oxen, mice and knives", ["person", "bird", "cow", "mouse", "knife"]),
        ("A motor bike", []),  # the file has a second blank before it
        ("An iPhone, a phone", ["cell phone"]),  # the text is in lower case, the word is not
        ("A bison", ["cow"]),  # a blank at the end of a line is cut off
        ("Sports balls", ["sports ball"]),  # by way of `ball`: the pair has become `sport ball`
        ("Skis and scissors", ["skis", "scissors"]),
        ("A black-and-white cat, a hot-dog, a dog/cat", ["cat"]),  # hyphens and slashes join
        ('The dog\'s bed, (a cat) "couch"', ["dog", "cat", "couch"]),
        ("a cat.a dog", ["dog"]),  # nothing parts `cat.a`
        ("A cat. A dog.", ["cat", "dog"]),
        ("", []),
    ],
)
def test_objects_of_a_caption(
    vocabulary: ChairVocabulary, caption: str, objects: list[str]
) -> None:
    assert vocabulary.objects(caption) == objects


def test_tokens_and_singulars() -> None:
    text = "A child's 3,000 cats... don't (sit); cups: \u201cred\u201d"
    assert tokens(text) == [
        *("a", "child", "'s", "3,000", "cats", "...", "do", "n't", "(", "sit", ")", ";"),
        *("cups", ":", "\u201c", "red", "\u201d"),
    ]
    plurals = {"benches": "bench", "ladies": "lady", "horses": "horse", "glass": "glas"}
    assert {word: singular(word) for word in plurals} == plurals


def files(root: Path) -> ChairBenchmark:
    """Three photographs: a dog and a bicycle, a cat, scissors."""
    write_coco(root)
    (root / "synonyms.txt").write_text("\n".join(LINES))
    return bench(root, synonyms="synonyms.txt")


def bench(root: Path, **options: Any) -> ChairBenchmark:
    names = {"captions": "coco/captions.json", "instances": "coco/instances.json"}
    return ChairBenchmark(root=str(root), images="coco/images", **names, **options)


def test_figures_by_hand(tmp_path: Path) -> None:
    rows = [
        {"image_id": 1, "caption": "A dog, a cat and a dog near a bike."},  # 4 mentions, 1 invented
        {"image_id": 2, "caption": "A man, a man and a cat."},  # 3, of which 2 are
        {"image_id": 3, "caption": "Scissors and paper."},  # 1, none
    ]
    figures = points(scored(files(tmp_path), rows, tmp_path))
    # named of what is there: dog and bicycle of 2 (captions add nothing), 1 of 1, scissors of
    # scissors and the person of none: `somebody` is not in the list
    assert figures == pytest.approx(
        {"chair_i": 3 / 8, "chair_s": 2 / 3, "recall": 4 / 4, "mentions": 8 / 3}
    )


def test_what_captions_name_is_there(tmp_path: Path) -> None:
    benchmark = files(tmp_path)
    captions = json.loads((tmp_path / "coco/captions.json").read_text())
    captions["annotations"].append({"image_id": 2, "caption": "A man pets it."})
    (tmp_path / "coco/captions.json").write_text(json.dumps(captions))
    rows = [{"image": "COCO_val2014_000000000002.jpg", "answer": "A woman and a cat."}]
    figures = points(scored(benchmark, rows, tmp_path))
    assert figures["chair_i"] == 0 and figures["recall"] == 1  # two captions are left out


def test_ids_as_text_and_as_numbers_are_joined(tmp_path: Path) -> None:
    benchmark = files(tmp_path)
    for name in ("captions", "instances"):
        path = tmp_path / f"coco/{name}.json"
        data = json.loads(path.read_text())
        for record in data["annotations"]:
            record["image_id"] = str(record["image_id"])
        path.write_text(json.dumps(data))
    rows = [
        {"image_id": 1.0, "caption": "A dog and a cat."},  # the cat is invented
        {"image_id": "2", "caption": "A cat."},
        {"image_id": "000000000003", "caption": "Scissors."},
    ]
    figures = points(scored(benchmark, rows, tmp_path))
    assert figures["chair_i"] == 1 / 4 and figures["chair_s"] == pytest.approx(1 / 3)


def test_a_running_number_is_no_image(tmp_path: Path) -> None:
    # as in COCO's files of results, where `id` counts the captions
    rows = [
        {"id": 1, "image_id": 3, "caption": "Scissors."},
        {"id": 2, "image_id": 1, "caption": "A dog."},
        {"id": 3, "image_id": 2, "caption": "A cat."},
    ]
    assert points(scored(files(tmp_path), rows, tmp_path))["chair_i"] == 0


def test_a_photograph_is_found_by_its_own_file_name(tmp_path: Path) -> None:
    benchmark = files(tmp_path)
    turned = {"001.jpg": "shot-2.jpg", "002.jpg": "shot-1.jpg"}
    for name in ("captions", "instances"):
        path = tmp_path / f"coco/{name}.json"
        data = json.loads(path.read_text())
        for record in data["images"]:
            record["file_name"] = turned.get(record["file_name"], record["file_name"])
        path.write_text(json.dumps(data))
    row = {"image": "photos/shot-2.jpg", "caption": "A dog."}  # of image 1
    assert points(scored(benchmark, [row], tmp_path))["chair_i"] == 0
    with pytest.raises(InputError, match=r"answers shot-3, which chair does not ask"):
        scored(benchmark, [{"image": "shot-3.jpg", "caption": "Scissors."}], tmp_path)


def test_captions_without_objects(tmp_path: Path) -> None:
    figures = points(scored(files(tmp_path), [{"image_id": 1, "caption": "Nothing."}], tmp_path))
    assert figures["chair_i"] == figures["chair_s"] == figures["mentions"] == 0


def test_faults(tmp_path: Path) -> None:
    benchmark = files(tmp_path)
    with pytest.raises(InputError, match="answers 9, which chair does not ask"):
        scored(benchmark, [{"image_id": 9, "caption": "A dog."}], tmp_path)
    with pytest.raises(InputError, match="answers 1 again, after row 1"):
        scored(benchmark, [{"image_id": 1, "caption": "A dog."}] * 2, tmp_path)
    with pytest.raises(InputError, match="lacks responses to 3 of 3"):
        scored(benchmark, [], tmp_path)
    (tmp_path / "synonyms.txt").write_text("dog\ncat\n")
    with pytest.raises(InputError, match="'bicycle', which synonyms"):
        list(bench(tmp_path, synonyms="synonyms.txt").examples())


def test_a_sample_is_drawn_by_the_seed(tmp_path: Path) -> None:
    files(tmp_path)
    drawn = [
        [e.id for e in bench(tmp_path, synonyms="synonyms.txt", limit=2, seed=s).examples()]
        for s in (0, 0, 1, 2, 3)
    ]
    assert drawn[0] == drawn[1] and len({*map(tuple, drawn)}) > 1
    assert all(len(set(ids)) == 2 for ids in drawn)


def real() -> tuple[ChairBenchmark, dict[int, list[str]], dict[int, set[str]]]:
    """The real photographs with their captions and annotated categories."""
    root = shared_data()
    captions: dict[int, list[str]] = defaultdict(list)
    for record in json.loads((root / "coco/captions.json").read_text())["annotations"]:
        captions[record["image_id"]].append(record["caption"])
    instances = json.loads((root / "coco/instances.json").read_text())
    names = {c["id"]: c["name"] for c in instances["categories"]}
    objects: dict[int, set[str]] = defaultdict(set)
    for record in instances["annotations"]:
        objects[record["image_id"]].add(names[record["category_id"]])
    return bench(root), captions, objects


def test_human_captions_invent_nothing(tmp_path: Path) -> None:
    benchmark, captions, _ = real()
    rows = [{"image_id": i, "caption": texts[0]} for i, texts in captions.items()]
    figures = points(scored(benchmark, rows, tmp_path))
    assert figures["chair_i"] == figures["chair_s"] == 0
    assert figures["mentions"] > 0.5 and 0 < figures["recall"] < 1


def test_category_names_of_other_images_are_counted(tmp_path: Path) -> None:
    benchmark, captions, objects = real()
    table = ChairVocabulary.read(shared_data("chair", "synonyms.txt"))
    ids = sorted(captions)
    others = random.Random(0).sample(ids, len(ids))
    rows, mentions, invented, faulty = [], 0, 0, 0
    for i, other in zip(ids, others, strict=True):
        # names that the rules find as they stand: plain words
        said = sorted(n for n in objects[other] if " " not in n and table.objects(n) == [n])
        there = objects[i] | {name for text in captions[i] for name in table.objects(text)}
        wrong = sum(name not in there for name in said)
        mentions, invented, faulty = mentions + len(said), invented + wrong, faulty + (wrong > 0)
        rows.append({"image_id": i, "caption": ", ".join(said)})
    figures = points(scored(benchmark, rows, tmp_path))
    assert invented > 20
    assert figures["chair_i"] == pytest.approx(invented / mentions)
    assert figures["chair_s"] == pytest.approx(faulty / len(ids))


def test_five_thousand_captions_take_seconds(tmp_path: Path) -> None:
    root = shared_data()
    texts = [r["text"] for r in read_rows(root / "llava_bench/qa90_gpt4_answer.jsonl")]
    source = json.loads((root / "coco/captions.json").read_text())
    objects = json.loads((root / "coco/instances.json").read_text())
    known = [a["caption"] for a in source["annotations"]]
    images = [{"id": i, "file_name": f"{i}.jpg"} for i in range(5000)]
    annotations = [
        {"image_id": i, "caption": known[(5 * i + k) % len(known)]}
        for i in range(5000)
        for k in range(5)
    ]
    (tmp_path / "coco").mkdir()
    (tmp_path / "chair").mkdir()
    write = {
        "coco/captions.json": {"images": images, "annotations": annotations},
        "coco/instances.json": {
            "images": images,
            "annotations": [
                {"image_id": i, "category_id": c["id"]}
                for i in range(5000)
                for c in objects["categories"][i % 60 : i % 60 + 3]
            ],
            "categories": objects["categories"],
        },
    }
    for name, value in write.items():
        (tmp_path / name).write_text(json.dumps(value))
    (tmp_path / "chair/synonyms.txt").write_bytes((root / "chair/synonyms.txt").read_bytes())
    rows = [{"image_id": i, "caption": texts[i % len(texts)]} for i in range(5000)]
    started = time.process_time()
    figures = points(scored(bench(tmp_path), rows, tmp_path))
    assert time.process_time() - started < 10
    assert 0 < figures["chair_i"] < 1
