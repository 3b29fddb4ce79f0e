"""Rows that hold several records are refused or asked about, and records of one length are not."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from transformers import DataCollatorWithFlattening

from dpacc.step.engine import PrivacyEngine
from dpacc.errors import PrivacyError
from dpacc.data.joined_texts import refuse_joined_texts
from tests.dpacc.step.engine_runs import plan_for
from tests.tiny_models import collate, tiny_model

BLOCK, BEGINS = 12, 1
MODEL = tiny_model("llama")


def records(count: int, *, begins: bool = True, shortest: int = 3) -> list[list[int]]:
    draw = torch.Generator().manual_seed(count)
    made = []
    for number in range(count):
        length = shortest + number % 7
        words = torch.randint(3, 90, (length,), generator=draw).tolist()
        made.append([BEGINS, *words] if begins else words)
    return made


def group_texts(texts: list[list[int]]) -> list[dict[str, Any]]:
    """As in transformers' run_clm.py: all joined, cut into blocks, the rest dropped."""
    joined = list(itertools.chain.from_iterable(texts))
    whole = len(joined) // BLOCK * BLOCK
    blocks = [joined[start : start + BLOCK] for start in range(0, whole, BLOCK)]
    return [{"input_ids": block, "labels": list(block)} for block in blocks]


def cut(texts: list[list[int]]) -> list[dict[str, Any]]:
    return [{"input_ids": text[:BLOCK], "labels": text[:BLOCK]} for text in texts]


def test_one_record_more_changes_every_block_and_is_refused(tmp_path: Path) -> None:
    """What one more record at the front does to joined texts, and what the engine says to it."""
    texts = records(60)
    blocks = group_texts(texts)
    more = group_texts([[BEGINS, 5, 6, 7], *texts])
    changed = sum(a != b for a, b in zip(blocks, more, strict=False))
    assert changed == len(blocks) > 16
    model = tiny_model("llama")
    engine = PrivacyEngine(
        Accelerator(cpu=True), plan_for(len(blocks)), ledger=tmp_path / "ledger.jsonl"
    )
    engine.prepare(model, torch.optim.SGD([p for p in model.parameters() if p.requires_grad]))
    with pytest.raises(PrivacyError, match="blocks of joined texts"):
        next(engine.steps(blocks, collate))
    assert not (tmp_path / "ledger.jsonl").exists()


def test_blocks_without_a_token_that_begins_a_text_are_asked_about() -> None:
    """Nothing but their length shows them: a warning says what would be wrong, and the remedy."""
    blocks = group_texts(records(60, begins=False))
    with pytest.warns(UserWarning, match="one record more changes all blocks after it"):
        refuse_joined_texts(dataset=blocks, collate=collate, model=MODEL)


LONG = records(30, shortest=BLOCK)
FINE: dict[str, Any] = {
    "records cut to one length": cut(LONG),
    "of several lengths": [{"input_ids": text} for text in records(30)],
    "padded": [{"input_ids": [*text[:8], 0, 0, 0, 0]} for text in records(30, begins=False)],
    "masked": [
        {"input_ids": text[:BLOCK], "attention_mask": [1] * (BLOCK - 1) + [0]}
        for text in records(30, begins=False, shortest=BLOCK)
    ],
    "prompts": [
        {**each, "labels": [-100] * 4 + each["input_ids"][4:]}
        for each in cut(records(30, begins=False, shortest=BLOCK))
    ],
    "classes": [
        {"input_ids": text[:BLOCK], "labels": 1}
        for text in records(30, begins=False, shortest=BLOCK)
    ],
    "few": cut(records(10, begins=False, shortest=BLOCK)),
    "no tokens": [{"pixel_values": [[0.5]]}] * 20,
    "no fields": list(range(20)),
    "positions": [
        {"input_ids": text, "position_ids": list(range(len(text)))} for text in records(20)
    ],
}


@pytest.mark.parametrize("dataset", FINE.values(), ids=FINE)
def test_records_of_their_own_raise_no_word(dataset: Any) -> None:
    """Texts cut to one length, padded, prompted, few or of other kinds."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refuse_joined_texts(dataset=dataset, collate=collate, model=MODEL)


@pytest.mark.parametrize(
    "sign",
    [
        {"seq_lengths": [3, 5]},
        {"position_ids": [0, 1, 2, 0, 1, 2, 3, 4]},
        {"cu_seq_lens_q": [0, 3, 8]},
    ],
)
def test_rows_that_say_that_they_are_packed_are_refused(sign: dict[str, list[int]]) -> None:
    """TRL's packing leaves lengths or positions that begin again."""
    with pytest.raises(PrivacyError, match="packing"):
        refuse_joined_texts(dataset=[{"input_ids": [5] * 8} | sign], collate=collate, model=MODEL)


def test_a_collator_that_joins_a_batch_is_refused_by_name() -> None:
    """Also behind a wrapper, as the Trainer's that removes columns."""

    class Wrapper:
        data_collator = DataCollatorWithFlattening()

    for joining in (Wrapper.data_collator, Wrapper()):
        with pytest.raises(PrivacyError, match="DataCollatorWithFlattening joins"):
            refuse_joined_texts(dataset=[{"input_ids": [5]}], collate=joining, model=MODEL)
