"""AMBER's generative part: which nouns are right, invented, covered or tempting."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dress.errors import InputError
from dress.evaluation.benchmarks.amber_generative import (
    AmberGenerativeBenchmark,
    Likeness,
    NounFinder,
    object_labels,
)
from tests.data.coco_files import shared_data
from tests.evaluation.public_files import points, scored

ASSOCIATION = {"sky": [], "tree": ["forest", "leaf"], "forest": ["tree"], "dog": [], "cat": []}


def count(nouns: str, alike: Sequence[tuple[str, str]] = (), **lists: Sequence[str]) -> list[float]:
    """Invented, covered, hallucinated or not, tempted; for an image of sky, tree and forest."""
    options = {"truth": ["sky", "tree", "forest"], "hallu": ["cat", "dog"], **lists}
    labels = object_labels(
        nouns.split(),
        truth=options["truth"],
        hallu=options["hallu"],
        association=ASSOCIATION,
        safe=frozenset(("line", "orange")),
        alike=lambda word, other: word == other or (word, other) in alike,
    )
    assert labels["chair"][1] == labels["nouns"][0] == len(nouns.split())
    assert labels["cover"][1] == 3 and labels["cog"][1] == 2
    return [labels[name][0] for name in ("chair", "cover", "hal", "cog")]


def test_rules_by_hand() -> None:
    assert count("") == [0, 0, 0, 0]
    assert count("sky sky leaf line") == [0, 2, 0, 0]  # leaf stands for tree; line is always safe
    assert count("lion") == [1, 0, 1, 0]
    assert count("cat") == [1, 0, 1, 1]  # named, and not there
    # what is associated is sought first: forest is found with tree, tree with forest
    assert count("forest") == count("tree") == [0, 1, 0, 0]
    assert count("forest tree") == [0, 2, 0, 0]
    # like a true object: right and covered; like a tempting one as well: tempted all the same
    assert count("cloud", [("cloud", "sky")]) == [0, 1, 0, 0]
    assert count("cloud", [("cloud", "sky"), ("cloud", "dog")]) == [0, 1, 0, 1]
    # the first like word counts besides the same one
    assert count("dog", [("dog", "cat")]) == [1, 0, 1, 2]
    # a true object is never tempting, whatever it is like
    assert count("sky", [("sky", "dog")]) == [0, 1, 0, 0]
    assert count("sky", truth=["sky", "sky", "tree"]) == [0, 1, 0, 0]


def by_flags(
    nouns: Sequence[str], truth: Sequence[str], hallu: Sequence[str], alike: Callable[..., bool]
) -> tuple[int, int, int]:
    """Invented, covered, tempted once more, by matrices of what equals and resembles what."""

    def table(objects: Sequence[str]) -> tuple[np.ndarray, np.ndarray, list[int]]:
        words = [w for o in objects for w in ASSOCIATION[o]] + list(objects)
        owners = [n for n, o in enumerate(objects) for _ in ASSOCIATION[o]]
        owners += list(range(len(objects)))
        same = np.array([[n == w for w in words] for n in nouns]).reshape(len(nouns), len(words))
        like = np.array([[alike(n, w) for w in words] for n in nouns]).reshape(same.shape)
        return same, like, owners

    same, like, owners = table(truth)
    h_same, h_like, h_owners = table(hallu)
    own = same.any(axis=1)
    right = own | like.any(axis=1)
    first = np.where(own, same.argmax(axis=1), like.argmax(axis=1))
    covered = {owners[first[n]] for n in np.flatnonzero(right)}
    tempted = {
        h_owners[m[n].argmax()] for m in (h_same, h_like) for n in np.flatnonzero(~own & m.any(1))
    }
    return int((~right).sum()), len(covered), len(tempted)


def test_rules_by_matrices() -> None:
    rng = random.Random(0)
    words = sorted({*ASSOCIATION, *(w for ws in ASSOCIATION.values() for w in ws), "a", "b", "c"})
    for _ in range(300):
        pairs = {(rng.choice(words), rng.choice(words)) for _ in range(rng.randrange(25))}
        nouns = rng.choices(words, k=rng.randrange(1, 7))
        truth, hallu = rng.sample([*ASSOCIATION], 3), rng.sample([*ASSOCIATION], 2)
        got = count(" ".join(nouns), [*pairs], truth=truth, hallu=hallu)
        alike = lambda w, o, pairs=pairs: w == o or (w, o) in pairs  # noqa: E731
        invented, covered, tempted = by_flags(nouns, truth, hallu, alike)
        assert got == [invented, covered, invented > 0, tempted]


def released(**words: Any) -> AmberGenerativeBenchmark:
    """The released files, with blanks between the nouns of a response and given likeness."""
    benchmark = AmberGenerativeBenchmark(root=str(shared_data("amber").parent), **words)
    benchmark._nouns = str.split  # type: ignore[assignment]
    benchmark._likeness = lambda word, other: float(word == other)  # type: ignore[assignment]
    return benchmark


@pytest.mark.parametrize("kind", ["truth", "hallu", "other image", "nothing", "unknown words"])
def test_the_released_files(tmp_path: Path, kind: str) -> None:
    benchmark = released()
    examples = list(benchmark.examples())
    assert len(examples) == 1004 and examples[0].question == "Describe this image."
    lists = [e.annotations["truth" if kind != "hallu" else "hallu"] for e in examples]
    if kind == "other image":
        lists = [*lists[1:], lists[0]]
    fixed = {"nothing": "", "unknown words": "qwerty Sky"}
    said = [
        {"id": int(e.id), "response": fixed.get(kind, " ".join(words))}
        for e, words in zip(examples, lists, strict=True)
    ]
    said.append({"id": 1005, "response": "Yes"})  # of the discriminative part: ignored
    figures = points(scored(benchmark, said, tmp_path))
    association = json.loads((shared_data("amber") / "relation.json").read_text())
    safe = (shared_data("amber") / "safe_words.txt").read_text().split()
    wrong = nouns = with_wrong = 0
    for e, words in zip(examples, lists, strict=True):
        true = e.annotations["truth"]
        there = {*true, *(w for o in true for w in association[o]), *safe}
        own = 0 if kind in fixed else sum(word not in there for word in words)
        wrong, with_wrong = wrong + own, with_wrong + (own > 0)
        nouns += 0 if kind in fixed else len(words)
    assert figures["chair"] == pytest.approx(wrong / max(nouns, 1))
    assert figures["hal"] == pytest.approx(with_wrong / 1004)
    assert figures["nouns"] == pytest.approx(nouns / 1004)
    if kind in fixed:
        assert figures["cover"] == figures["cog"] == figures["chair"] == 0
    if kind == "truth":
        assert figures["chair"] == figures["hal"] == figures["cog"] == 0 < figures["cover"] <= 1
    if kind == "hallu":
        assert figures["cog"] > 0.8 and figures["hal"] > 0.8


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "q.json").write_text(json.dumps([{"id": 1, "image": "1.jpg", "query": "Q"}]))
    row = {"id": 1, "type": "generative", "truth": ["sky"], "hallu": ["moon"]}
    (tmp_path / "a.json").write_text(json.dumps([row]))
    (tmp_path / "r.json").write_text(json.dumps(ASSOCIATION))
    (tmp_path / "s.txt").write_text("line\n")
    names = {"queries": "q.json", "annotations": "a.json", "association": "r.json"}
    benchmark = AmberGenerativeBenchmark(root=str(tmp_path), **names, safe_words="s.txt")
    with pytest.raises(InputError, match=r"row 1, has no hallu of words that r\.json knows"):
        list(benchmark.examples())
    with pytest.raises(InputError, match=r"row 1, has no hallu"):
        benchmark.ignores({"id": 1})
    with pytest.raises(InputError, match=r"benchmark\.similarity is not set"):
        benchmark.inputs()
    monkeypatch.setitem(sys.modules, "nltk", None)
    with pytest.raises(InputError, match=r"needs nltk: pip install"):
        NounFinder()
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match=r"needs spaCy: pip install"):
        Likeness("en_core_web_lg")
    (tmp_path / "r.json").write_text("[]")
    with pytest.raises(InputError, match=r"fetch relation\.json again"):
        AmberGenerativeBenchmark(root=str(tmp_path), **names)._association  # noqa: B018


def test_likeness_by_a_model_of_three_words(tmp_path: Path) -> None:
    spacy = pytest.importorskip("spacy", reason="spaCy is not installed: extra `amber`")
    model = spacy.blank("en")
    model.to_disk(tmp_path / "bare")
    for word, vector in {"dog": (1.0, 0.0), "hound": (0.9, 0.1), "sky": (0.0, 1.0)}.items():
        model.vocab.set_vector(word, np.array(vector, dtype=np.float32))
    model.to_disk(tmp_path / "vectors")
    alike = Likeness(str(tmp_path / "vectors"))
    assert alike("dog", "hound") == pytest.approx(0.9 / np.hypot(0.9, 0.1))
    assert alike("dog", "sky") == 0 and alike("dog", "dog") == 1
    with pytest.raises(InputError, match="has no word vectors"):
        Likeness(str(tmp_path / "bare"))
    with pytest.raises(InputError, match="which spaCy cannot load"):
        Likeness(str(tmp_path / "nowhere"))


def test_nouns_by_data_made_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nltk = pytest.importorskip("nltk", reason="nltk is not installed: extra `amber`")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    with pytest.raises(InputError, match="needs data of nltk that is not here"):
        NounFinder()
    write_nltk_data(tmp_path)
    assert NounFinder()("The dogs chase a bird. Birds fly!") == ["dog", "bird", "Birds"]


def write_nltk_data(root: Path) -> None:
    """A tagger that knows six words, a tokenizer without abbreviations, two nouns."""
    punkt = root / "tokenizers/punkt_tab/english"
    punkt.mkdir(parents=True)
    for name in ("collocations.tab", "sent_starters.txt", "abbrev_types.txt", "ortho_context.tab"):
        (punkt / name).write_text("")
    tagger = root / "taggers/averaged_perceptron_tagger_eng"
    tagger.mkdir(parents=True)
    tags = {"dogs": "NNS", "Dogs": "NNS", "bird": "NN", "Birds": "NNS", "The": "DT", "a": "DT"}
    made = {"tagdict": tags, "classes": ["DT", "NN", "NNS", "VB"], "weights": {"bias": {"VB": 1.0}}}
    for name, value in made.items():
        (tagger / f"averaged_perceptron_tagger_eng.{name}.json").write_text(json.dumps(value))
    wordnet = root / "corpora/wordnet"
    wordnet.mkdir(parents=True)
    (wordnet / "lexnames").write_text("00\tnoun.Tops\t1\n")
    (wordnet / "index.sense").write_text("")
    for part in ("adj", "adv", "noun", "verb"):
        (wordnet / f"index.{part}").write_text("")
        (wordnet / f"{part}.exc").write_text("")
        (wordnet / f"data.{part}").write_text("")
    entries = [f"{word} n 1 0 1 0 0000000{n}  \n" for n, word in enumerate(("dog", "bird"), 1)]
    (wordnet / "index.noun").write_text("".join(entries))
