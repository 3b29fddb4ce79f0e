"""`dpacc attack`: an adapter that learned texts by heart is found out, a fresh one is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from dpacc_accounting import Ledger

from dpacc.losses.per_example import causal_lm_losses
from dpacc.recipe.models import add_lora, load_base
from tests.cli.test_audit import PLAN
from tests.tiny_models import collate, save_tiny_llama

WORDS = ["the", "film", "was", "dull", "code", *"0123456789", *(f"word{i}" for i in range(70))]
SECRET = "the code was 1 2 3 4"


def write(path: Path, texts: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, an adapter that overfits twenty texts and a secret, and twenty other texts."""
    folder = tmp_path_factory.mktemp("attack")
    save_tiny_llama(folder / "model", words=WORDS)
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(WORDS), (40, 6), generator=generator).tolist()
    texts = [" ".join(WORDS[i] for i in row) for row in picks]
    write(folder / "members.jsonl", texts[:20])
    write(folder / "strangers.jsonl", texts[20:])
    base = load_base(model=str(folder / "model"))
    model = add_lora(model=base.model, rank=16, alpha=32)
    model.save_pretrained(folder / "fresh")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    ids = base.tokenizer([*texts[:20], SECRET])["input_ids"]
    batch = collate([{"input_ids": each, "labels": each} for each in ids])
    for _ in range(60):
        optimizer.zero_grad()
        causal_lm_losses(model, batch).mean().backward()
        optimizer.step()
    model.save_pretrained(folder / "run")
    with Ledger.open(path=folder / "run/ledger.jsonl", plan=PLAN.to_json()) as book:
        book.charge(step=0, event=PLAN.charge(0))
    return folder


def attack(dpacc: Any, material: Path, run: str, *words: str) -> dict[str, Any]:
    files = ["--members", material / "members.jsonl", "--strangers", material / "strangers.jsonl"]
    outcome = dpacc("attack", material / run, *files, "--json", *words)
    assert outcome.code == 0, outcome.err
    assert "do not publish" in outcome.err
    return json.loads(outcome.out)


def test_members_that_were_learned_by_heart_are_found(dpacc, material: Path) -> None:
    """AUC near 1, above what the ledger beside the adapter would allow."""
    found = attack(dpacc, material, "run")["membership"]
    assert found["members"] == found["strangers"] == 20
    assert found["auc"] > 0.95
    assert found["allowed_advantage"] < 1


def test_a_fresh_adapter_gives_nobody_away(dpacc, material: Path) -> None:
    """LoRA that never moved: no advantage at all, and nothing promised to stand beside."""
    found = attack(dpacc, material, "fresh")["membership"]
    assert (found["auc"], found["advantage"]) == (0.5, 0.0)
    assert found["allowed_advantage"] is None


def test_a_secret_that_was_learned_is_exposed_and_never_printed(dpacc, material: Path) -> None:
    """Fewer candidates than it would take to hide: exposed in one run, not in the other."""
    words = ["--secret", SECRET, "--candidates", "31"]
    outcome = dpacc("attack", material / "run", *words)
    assert outcome.code == 0
    assert "1 2 3 4" not in outcome.out + outcome.err
    assert "bits given away" in outcome.out
    (found,) = attack(dpacc, material, "run", *words)["exposure"]
    assert found["bits"] == found["most"] == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to attack"),
        (["--members", "a.jsonl"], "belong together"),
        (["--secret", "no digit"], "no digits"),
        (["--members", "a.jsonl", "--strangers", "b.jsonl"], "no such file"),
    ],
)
def test_bad_requests_are_one_line(dpacc, material: Path, words: list[str], message: str) -> None:
    """Each is told with the remedy, and exit code 2."""
    outcome = dpacc("attack", material / "fresh", *words)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.err


def test_a_folder_without_an_adapter_is_refused(dpacc, tmp_path: Path) -> None:
    """The error says what is missing."""
    outcome = dpacc("attack", tmp_path, "--secret", "1")
    assert outcome.code == 2
    assert "holds no adapter" in outcome.err
