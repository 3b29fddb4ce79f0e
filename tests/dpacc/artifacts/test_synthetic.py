"""What a model goes on with does not depend on who is beside it, and stops may come anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from dpacc.artifacts.synthetic.batches import BatchFile
from dpacc.artifacts.synthetic.generation import Sampling, write_batch
from dpacc.artifacts.synthetic.requests import Request
from dpacc.errors import ConfigurationError
from tests.tiny_models import save_tiny_llama, tiny_model

WORDS = [f"word{i}" for i in range(80)]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    """Eighty words and four special tokens; the models know twelve tokens more."""
    folder = tmp_path_factory.mktemp("tokenizer")
    save_tiny_llama(folder, words=WORDS)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def asked(*rows: list[int]) -> list[Request]:
    return [Request(fields={}, tokens=tuple(row), ends=(2,)) for row in rows]


def sampling(**changes: Any) -> Sampling:
    shared: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "kept": 9, "room": 12, "least": 0}
    return Sampling(**shared | {"among": None, "seed": 0} | changes)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_the_likeliest_words_are_the_same_alone_and_in_a_batch(
    tokenizer: PreTrainedTokenizerFast, family: str
) -> None:
    """Padding on the left, the KV cache, and being read anew when the batch has grown, change
    nothing for prompts of unequal length.
    """
    model = tiny_model(family)
    requests = asked([1, 5, 9, 11, 30], [1, 7], [1, 40, 41])
    given: dict[str, Any] = {"model": model, "tokenizer": tokenizer, "number": 0}
    greedy = sampling(top_p=1e-6, room=40)
    together = write_batch(requests=requests, sampling=greedy, **given)
    alone = [write_batch(requests=[each], sampling=greedy, **given)[0] for each in requests]
    assert together == alone
    assert model.training
    for request, written in zip(requests, together, strict=True):
        assert written.tokens[0] == _likeliest(model, request)


def _likeliest(model: Any, request: Request) -> int:
    import torch

    model.eval()
    logits = model(torch.tensor([request.tokens])).logits[0, -1]
    logits[[0, 1, 3]] = logits[84:] = -torch.inf
    model.train()
    return int(logits.argmax())


def test_only_words_and_the_end_are_drawn(tokenizer: PreTrainedTokenizerFast) -> None:
    """None of the tokens without a word, and no special one but the end."""
    written = write_batch(
        model=tiny_model("llama"),
        tokenizer=tokenizer,
        requests=asked(*[[1]] * 64),
        sampling=sampling(room=30),
        number=0,
    )
    drawn = {token for each in written for token in each.tokens}
    assert drawn <= {*range(4, 84)}
    assert len(drawn) > 40
    assert {each.ended for each in written} == {True, False}
    assert all(len(each.tokens) == 30 for each in written if not each.ended)


def test_rows_that_have_ended_leave_the_batch(
    tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it has grown as long again it holds those alone that have no end, to the last."""
    model, sizes = tiny_model("llama"), []
    honest = model.generate

    def generate(**given: Any) -> Any:
        sizes.append(given["input_ids"].shape)
        return honest(**given)

    monkeypatch.setattr(model, "generate", generate)
    written = write_batch(
        model=model,
        tokenizer=tokenizer,
        requests=asked(*[[1]] * 64),
        sampling=sampling(room=100),
        number=0,
    )
    waited = [sum(not w.ended or len(w.tokens) >= at for w in written) for at in (0, 16, 33, 67)]
    assert [rows for rows, _ in sizes] == waited
    assert waited[0] == 64 > waited[1] > waited[2] > waited[3] > 0
    assert [width for _, width in sizes] == [1, 17, 34, 68]


def test_no_text_ends_before_its_fewest_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """Without a floor some end at once; with it none does, and nearly all still end."""
    given: dict[str, Any] = {"model": tiny_model("llama"), "tokenizer": tokenizer, "number": 0}
    given["requests"] = asked(*[[1]] * 64)
    free, held = (write_batch(sampling=sampling(room=200, least=n), **given) for n in (0, 9))
    assert min(len(each.tokens) for each in free) < 9
    assert 9 <= min(len(each.tokens) for each in held) < 30
    assert sum(each.ended for each in held) > 32


def test_prompts_that_are_too_long_give_way_in_front(tokenizer: PreTrainedTokenizerFast) -> None:
    """What begins every text stays: as if the middle had not been there."""
    given: dict[str, Any] = {"model": tiny_model("llama"), "tokenizer": tokenizer, "number": 0}
    greedy = sampling(top_p=1e-6, kept=3)
    long = write_batch(requests=asked([1, 5, 9, 11, 30]), sampling=greedy, **given)
    assert long == write_batch(requests=asked([1, 11, 30]), sampling=greedy, **given)


def test_a_batch_is_drawn_from_its_number(tokenizer: PreTrainedTokenizerFast) -> None:
    """The same number, the same words; another number or seed, others."""
    given: dict[str, Any] = {"model": tiny_model("llama"), "tokenizer": tokenizer}
    given["requests"] = asked([1], [1])
    first = write_batch(sampling=sampling(), number=3, **given)
    assert write_batch(sampling=sampling(), number=3, **given) == first
    assert write_batch(sampling=sampling(), number=4, **given) != first
    assert write_batch(sampling=sampling(seed=1), number=3, **given) != first


def test_the_file_of_batches_is_read_back_as_it_was_left(tmp_path: Path) -> None:
    """Kept, dropped, given up and next are the same; texts with odd line ends too."""
    given: dict[str, Any] = {"path": tmp_path / "b", "made_from": {"a": 1}, "records": 4}
    first = BatchFile(tries=2, **given)
    assert first.next_batch(3) == [0, 1, 2]
    first.add([{"text": "one\u2028two\x85three"}, "empty", {"text": "one\u2028two\x85three"}])
    first.add(["truncated"])
    again = BatchFile(tries=2, **given)
    for batches in (first, again):
        assert batches.next_batch(9) == [1, 2, 3]
        assert batches.kept == 1
        assert batches.batches == 2
        assert batches.dropped == {"empty": 1, "duplicated": 1, "truncated": 1}
    again.add(["broken", "broken", "broken"])
    assert again.given_up == 3
    assert again.next_batch(9) == []
    assert again.records() == [{"text": "one\u2028two\x85three"}]


def test_a_damaged_file_of_batches_is_refused(tmp_path: Path) -> None:
    """What is no JSON between whole lines is not passed over."""
    given: dict[str, Any] = {"path": tmp_path / "b", "made_from": {}, "records": 4, "tries": 2}
    BatchFile(**given).add(["empty"])
    with (tmp_path / "b").open("a") as file:
        file.write("[broken\n")
    with pytest.raises(ConfigurationError, match="is damaged"):
        BatchFile(**given)
    (tmp_path / "b").write_bytes(b'{"made_from": {}}\n["' + b'", "'.join([b"empty"] * 9) + b'"]\n')
    with pytest.raises(ConfigurationError, match="is damaged"):
        BatchFile(**given)
