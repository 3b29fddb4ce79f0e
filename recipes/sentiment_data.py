"""Make a task of the demo's review sentences: is a sentence's mean rating above or below zero?

    python recipes/fetch_demo.py
    python recipes/sentiment_data.py

Each record of `data/movie_sentiment/{train,held_out}.jsonl` has the sentence as `text`, its
`sentiment`, both as `prompt` and `completion` for a causal model that answers with a word, and a
`label` that is a prompt for one that writes such sentences.
The few sentences rated exactly zero are left out.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
PARTS = ("train", "held_out")


def main() -> int:
    """Write both parts; return the exit code."""
    reviews, folder = DATA / "movie_reviews", DATA / "movie_sentiment"
    if not reviews.is_dir():
        print(f"error: {reviews} is missing: run `python recipes/fetch_demo.py`", file=sys.stderr)
        return 1
    folder.mkdir(exist_ok=True)
    for part in PARTS:
        lines = (reviews / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        records = [labelled(json.loads(line)) for line in lines]
        kept = [json.dumps(each, ensure_ascii=False) + "\n" for each in records if each]
        (folder / f"{part}.jsonl").write_text("".join(kept), encoding="utf-8")
        print(f"{folder / part}.jsonl: {len(kept)} sentences")
    return 0


def labelled(review: dict[str, object]) -> dict[str, str] | None:
    """A rated sentence with its sentiment, asked for in a prompt; None where it has none.

    >>> labelled({"rating": 1.5, "text": "A joy."})["prompt"]
    'Review: A joy.\\nSentiment:'
    >>> labelled({"rating": 0.0, "text": "A film."}) is None
    True
    """
    rating, text = float(str(review["rating"])), str(review["text"])
    if rating == 0:
        return None
    sentiment = "positive" if rating > 0 else "negative"
    return {
        "text": text,
        "sentiment": sentiment,
        "prompt": f"Review: {text}\nSentiment:",
        "completion": f" {sentiment}",
        "label": f"A {sentiment} review of a film:\n",
    }


if __name__ == "__main__":
    sys.exit(main())
