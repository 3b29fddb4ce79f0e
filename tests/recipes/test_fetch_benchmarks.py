"""The frontier's reviews and chats are fetched once, checked, and split so that no text leaks."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import RECIPES, load_recipe, pip_from, run_copied

DATA = RECIPES.parent / "data"
FOLDERS = ("imdb_reviews", "rotten_tomatoes", "chats", "chat_preferences")
SAID = " ".join(f"word{n}" for n in range(13))


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside the one that it builds on."""
    return load_recipe("fetch_benchmarks.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Both scripts copied, so that their `data/` is in a temporary folder; the second run."""
    return run_copied(folder, "fetch_demo.py", script="fetch_benchmarks.py", **environment)


def chat(identity: str, **said: str) -> dict[str, object]:
    """One conversation as the split sees it."""
    return {"id": identity, "senders": sorted(said), "text": "\n".join(said.values())}


def test_a_second_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    """With all folders there: one line, exit code 0."""
    for name in FOLDERS:
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("already there: ")
    assert done.stdout.count("\n") == 1


def test_what_a_stopped_run_had_finished_is_kept(tmp_path: Path) -> None:
    """Folders that are there stay; only a missing one is fetched, and another wheel is refused."""
    planted = tmp_path / "index"
    planted.mkdir()
    with zipfile.ZipFile(planted / "chitchat_dataset-0.9.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("chitchat_dataset/dataset.json", "{}")
    for name in FOLDERS[:2]:
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run(tmp_path, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download chitchat-dataset==0.9.0: ")
    assert "HASHES" in done.stderr.upper()
    assert done.stderr.count("\n") == 1
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == sorted(FOLDERS[:2])


def test_reviews_of_one_source_are_read_with_their_question(fetch: ModuleType) -> None:
    """Line breaks are line breaks, quotes and commas stay, and the label is a word to answer."""
    table = (
        "text,label,source\r\n"
        '"Good, ""very"".<br /><br />The end.",1,imdb\r\n'
        "dull .,0,rotten_tomatoes\r\n"
    )
    assert fetch.read_reviews(table, "imdb") == [
        {
            "text": 'Good, "very".\nThe end.',
            "sentiment": "positive",
            "prompt": 'Review: Good, "very".\nThe end.\nSentiment:',
            "completion": " positive",
        }
    ]
    (dull,) = fetch.read_reviews(table, "rotten_tomatoes")
    assert (dull["sentiment"], dull["completion"]) == ("negative", " negative")


def test_a_conversation_keeps_who_said_what(fetch: ModuleType) -> None:
    """A turn is what one sender wrote before the other did, on one line; silence is left out."""
    document = {
        "one": {
            "prompt": "Why?",
            "ratings": {"witty": 1},
            "messages": [
                [{"text": "Hello", "sender": "b"}, {"text": "there\nyou", "sender": "b"}],
                [{"text": " ", "sender": "a"}],
                [{"text": "Hi", "sender": "c"}],
            ],
        },
        "two": {"messages": [[]]},
    }
    (only,) = fetch.read_chats(document)
    assert only["senders"] == ["b", "c"]
    assert only["text"] == "Hello there you\nHi"
    assert (only["prompt"], only["rated"]) == ("Why?", {"witty": 1})
    assert list(fetch.turns(only)) == [
        {"conversation": "one", "sender": "b", "text": "Hello there you"},
        {"conversation": "one", "sender": "c", "text": "Hi"},
    ]


def test_texts_that_share_a_phrase_lie_in_one_part(fetch: ModuleType) -> None:
    """13 consecutive words in common, through another text too, keep texts together."""
    chain = [
        f"a {SAID} b",
        f"{SAID} " + " ".join(f"more{n}" for n in range(13)),
        "z " + " ".join(f"more{n}" for n in range(13)),
    ]
    others = [f"other text {n}" for n in range(40)]
    for size in range(1, 30):
        parts = fetch.split([{"text": text} for text in chain + others], held_out=size)
        assert len(parts["held_out"]) == size
        held = {record["text"] for record in parts["held_out"]}
        assert len(held & set(chain)) in (0, 3)


def test_a_text_is_kept_once_however_it_is_written(fetch: ModuleType) -> None:
    """Case, punctuation and spaces make no other text."""
    parts = fetch.split([{"text": "Good!"}, {"text": " good"}, {"text": "!!"}, {"text": "??"}])
    assert [record["text"] for record in parts["train"]].count("Good!") == 1
    assert len(parts["train"]) == 3


def test_the_parts_depend_on_texts_alone(fetch: ModuleType) -> None:
    """Reordering the source moves nothing, and a part's first texts are not the source's."""
    records = [{"text": f"text {n}"} for n in range(100)]
    parts = fetch.split(records, held_out=30, validation=10)
    assert fetch.split(records[::-1], held_out=30, validation=10) == parts
    assert {name: len(part) for name, part in parts.items()} == {
        "train": 60,
        "validation": 10,
        "held_out": 30,
    }
    assert parts["held_out"] != records[:30]


def test_senders_in_two_parts_are_counted(fetch: ModuleType) -> None:
    """A held-out conversation counts if either of its senders is in the training part."""
    parts = {
        "train": [chat("1", a="x", b="y")],
        "held_out": [chat("2", b="x", c="y"), chat("3", d="z")],
    }
    assert fetch.shared_senders(parts) == 1


@pytest.mark.real
@pytest.mark.skipif(
    not all((DATA / name).is_dir() for name in FOLDERS),
    reason="recipes/fetch_benchmarks.py has not been run",
)
def test_the_real_parts_have_no_text_in_common(fetch: ModuleType) -> None:
    """All parts are there in their sizes, 10,000 whole reviews held out, none of them twice."""
    sizes = {}
    for name in FOLDERS:
        texts = {
            part: [
                fetch.words(said_in(json.loads(line)))
                for line in (DATA / name / f"{part}.jsonl").read_text("utf-8").split("\n")
                if line
            ]
            for part in fetch.PARTS
        }
        sizes[name] = [len(part) for part in texts.values()]
        every = [text for part in texts.values() for text in part]
        assert len(set(every)) == len(every)
        assert "Please cite" in (DATA / name / "README.md").read_text("utf-8")
    assert sizes == {
        "imdb_reviews": [12_901, 2_000, 10_000],
        "rotten_tomatoes": [5_028, 500, 3_000],
        "chats": [4_498, 500, 1_000],
        "chat_preferences": [1_629, 190, 381],
    }


def said_in(record: dict[str, str]) -> str:
    """A text, or both conversations of a pair."""
    return record["text"] if "text" in record else record["chosen"] + record["rejected"]


def rated(identity: str, prompt: str | None, *marks: int) -> dict[str, object]:
    """A conversation with its ratings."""
    ratings = {str(at): mark for at, mark in enumerate(marks)}
    return chat(identity, a=f"words of {identity}") | {"prompt": prompt, "rated": ratings}


def test_no_conversation_is_in_two_pairs(fetch: ModuleType) -> None:
    """The best with the worst of its question, and so on; ties and what is unrated stay out."""
    said = [rated(str(n), "q", n, n) for n in (1, 5, 3, 9)]
    others = [rated("x", "other", 5), rated("y", "other", 5), rated("z", None, 9), rated("u", "q")]
    pairs = fetch.preference_pairs([*said, *others])
    assert sorted(pair["conversations"] for pair in pairs) == [["5", "3"], ["9", "1"]]
    assert all(pair["ratings"][0] > pair["ratings"][1] for pair in pairs)
    best = next(pair for pair in pairs if pair["conversations"][0] == "9")
    assert (best["prompt"], best["chosen"]) == ("q\n", "words of 9")
