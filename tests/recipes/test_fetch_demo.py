"""The demo's model and data are fetched once, checked, split cleanly, and whole or absent."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.scripts import load_script, pip_from

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "recipes/fetch_demo.py"
MODEL = ROOT / "data/smollm2-135m-instruct"
REVIEWS = ROOT / "data/movie_reviews"


@pytest.fixture(scope="module")
def fetch_demo():
    """The script, loaded as a module."""
    return load_script(SCRIPT)


@pytest.fixture
def script(tmp_path):
    """A copy of the script whose `data/` is in a temporary folder."""
    (tmp_path / "recipes").mkdir()
    return Path(shutil.copy(SCRIPT, tmp_path / "recipes"))


def run(script, *arguments, **environment):
    """Run the script in a fresh process, elsewhere than where it lies."""
    return subprocess.run(
        [sys.executable, *arguments, str(script)],
        cwd="/",
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def archive(name, content):
    """A gzipped tar archive with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as members:
        member = tarfile.TarInfo(f"folder/{name}")
        member.size = len(content)
        members.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def record(number, text):
    """One rated sentence."""
    return {"id": str(number), "rating": 0.5, "text": text}


def test_a_second_run_says_so_and_does_nothing(script):
    """With both folders there: one line, exit code 0, and neither torch nor transformers."""
    for name in (MODEL.name, REVIEWS.name):
        (script.parents[1] / "data" / name).mkdir(parents=True)
    done = run(script, "-X", "importtime")
    assert done.returncode == 0
    assert done.stdout.startswith("already there: ")
    assert done.stdout.count("\n") == 1
    assert "argparse" in done.stderr
    assert "torch" not in done.stderr
    assert "transformers" not in done.stderr


def test_a_tampered_archive_is_refused_before_it_runs(script, tmp_path):
    """An archive with another sha256 is not unpacked, built or kept; the error is one line."""
    planted = tmp_path / "index"
    planted.mkdir()
    touched = tmp_path / "touched"
    setup = f"open({str(touched)!r}, 'w').close()".encode()
    (planted / "vaderSentiment-3.3.2.tar.gz").write_bytes(archive("setup.py", setup))
    done = run(script, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download vaderSentiment==3.3.2: ")
    assert "HASHES" in done.stderr.upper()
    assert done.stderr.count("\n") == 1
    assert not touched.exists()
    assert not any((script.parents[1] / "data").iterdir())


def test_an_unreachable_index_is_one_line(script):
    """pip's own noise is hidden; what could not be had and what to do is said."""
    done = run(
        script, PIP_CONFIG_FILE=os.devnull, PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_RETRIES="0"
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download vaderSentiment==3.3.2: ")
    assert "check the network" in done.stderr
    assert done.stderr.count("\n") == 1


def test_unknown_options_are_refused(script):
    """There are no options but --help; anything else is an error, and nothing is fetched."""
    done = subprocess.run(
        [sys.executable, str(script), "--force"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert not (script.parents[1] / "data").exists()


def test_a_folder_gets_its_name_only_when_it_is_whole(fetch_demo, tmp_path):
    """While it is filled it has another name, which a killed run leaves and the next removes."""
    folder = tmp_path / "data" / "model"
    stale = tmp_path / "data" / ".model.partial"
    stale.mkdir(parents=True)
    (stale / "half").write_text("left by a killed run")
    with fetch_demo.finished_folder(folder) as scratch:
        assert not any(scratch.iterdir())
        (scratch / "weights").write_text("all")
        assert not folder.exists()
    assert [path.name for path in folder.iterdir()] == ["weights"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_failed_folder_leaves_nothing(fetch_demo, tmp_path):
    """An error inside the block removes the scratch folder and makes no other."""

    def fail():
        with fetch_demo.finished_folder(tmp_path / "model") as scratch:
            (scratch / "half").write_text("")
            raise ValueError("conversion failed")

    with pytest.raises(ValueError, match="conversion failed"):
        fail()
    assert not any(tmp_path.iterdir())


def test_no_text_is_in_both_parts(fetch_demo):
    """A repeated sentence, however it is cased or spaced, is kept once, in one part."""
    records = [
        record(n, f"Sentence  {n % 60}" if n % 2 else f"SENTENCE {n % 60}") for n in range(90)
    ]
    train, held_out = fetch_demo.split_reviews(records, held_out=20)
    texts = [" ".join(each["text"].lower().split()) for each in [*train, *held_out]]
    assert len(held_out) == 20
    assert len(texts) == len(set(texts)) == 60


def test_the_split_depends_on_ids_alone(fetch_demo):
    """Reordering the file, or changing what a sentence says, moves nothing to the other part."""
    records = [record(n, f"sentence {n}") for n in range(100)]
    reworded = [record(n, f"other {n}") for n in reversed(range(100))]
    _, chosen = fetch_demo.split_reviews(records, held_out=30)
    _, again = fetch_demo.split_reviews(reworded, held_out=30)
    assert {each["id"] for each in chosen} == {each["id"] for each in again}
    assert [each["id"] for each in chosen] != [str(n) for n in range(30)]


def test_sentences_are_read_from_the_archive_within_the_archive(fetch_demo, tmp_path):
    """Id, mean rating and text come from the tab-separated file two archives deep."""
    table = "7\t-1.5\t Clichés, mostly. \r\n8\t2.0\tGood\r\n".encode()
    inner = archive("movieReviewSnippets_GroundTruth.txt", table)
    path = tmp_path / "outer.tar.gz"
    path.write_bytes(archive("hutto_ICWSM_2014.tar.gz", inner))
    assert fetch_demo.read_reviews(path) == [
        {"id": "7", "rating": -1.5, "text": "Clichés, mostly."},
        {"id": "8", "rating": 2.0, "text": "Good"},
    ]


@pytest.mark.real
@pytest.mark.skipif(not REVIEWS.is_dir(), reason="recipes/fetch_demo.py has not been run")
def test_the_real_reviews_are_all_there():
    """9,603 sentences to learn from and 1,000 to measure on, no text in both."""
    parts = [
        [json.loads(line) for line in (REVIEWS / name).read_text(encoding="utf-8").splitlines()]
        for name in ("train.jsonl", "held_out.jsonl")
    ]
    train, held_out = parts
    assert (len(train), len(held_out)) == (9_603, 1_000)
    texts = {each["text"].casefold() for each in train}
    assert not texts & {each["text"].casefold() for each in held_out}
    assert all(set(each) == {"id", "rating", "text"} for each in [*train, *held_out])
    assert "Hutto" in (REVIEWS / "README.md").read_text(encoding="utf-8")


@pytest.mark.real
@pytest.mark.skipif(not MODEL.is_dir(), reason="recipes/fetch_demo.py has not been run")
def test_the_real_model_knows_the_capital_of_france():
    """The converted weights and tokenizer are those of a model that speaks English."""
    from dpacc.recipe.models import load_base

    model, tokenizer = load_base(model=str(MODEL))
    prompt = tokenizer("The capital of France is", return_tensors="pt")
    next_token = model(**prompt).logits[0, -1].argmax()
    assert tokenizer.decode(next_token) == " Paris"
