"""Records are read from every kind of source, and no error shows what is in them."""

import json
from functools import partial

import pyarrow
import pyarrow.parquet
import pytest

from dpacc.config import TrainingConfig
from dpacc.data import (
    load_held_out_examples,
    load_training_examples,
    pad_examples,
    read_records,
)
from dpacc.errors import ConfigurationError

SECRET = "my diagnosis"
TEXT = {"text": str}


class Letters:
    """A tokenizer whose tokens are the letters' own numbers; 0 ends a text."""

    eos_token_id = 0
    pad_token_id = 0

    def __call__(self, texts, *, truncation, max_length):
        """Number the letters."""
        return {"input_ids": [[ord(letter) for letter in text][:max_length] for text in texts]}


@pytest.fixture
def write(tmp_path):
    """Write a file below a temporary folder and return its path as text."""

    def write_file(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write_file


def parquet(tmp_path, rows):
    """The path of a Parquet file with these rows."""
    path = tmp_path / "notes.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return str(path)


def refusal(**options):
    """The message with which reading is refused."""
    with pytest.raises(ConfigurationError) as refused:
        read_records(**{"fields": TEXT, **options})
    assert SECRET not in str(refused.value)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    return str(refused.value)


def test_every_kind_of_file_gives_the_same_records(write, tmp_path):
    """JSONL, JSON, Parquet and plain text hold the same texts, and only the asked fields stay."""
    rows = [{"text": "één", "id": 1}, {"text": "two", "id": 2}]
    sources = [
        write("a.jsonl", "\n".join(json.dumps(row) for row in rows) + "\n\n"),
        write("a.json", json.dumps(rows)),
        write("a.txt", "één\n\ntwo\n"),
        parquet(tmp_path, rows),
    ]
    for source in sources:
        assert read_records(source=source, fields=TEXT) == [{"text": "één"}, {"text": "two"}]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        (f'{{"text": "fine"}}\n{{"text": "{SECRET}\n', ["notes.jsonl:2", "not JSON"]),
        (f'{{"text": "fine"}}\n\n["{SECRET}"]\n', ["notes.jsonl:3", "named fields"]),
        (f'{{"txet": "{SECRET}"}}\n', ["notes.jsonl:1", "no field 'text'", "--text_field"]),
        (f'{{"text": ["{SECRET}"]}}\n', ["notes.jsonl:1", "field 'text' must be text"]),
        ('{"text": null}\n', ["notes.jsonl:1", "field 'text' must be text"]),
        ("", ["notes.jsonl", "no examples"]),
        (b'{"text": "\xff' + SECRET.encode() + b'"}\n', ["notes.jsonl", "not UTF-8"]),
    ],
)
def test_a_damaged_record_is_named_by_its_place_and_never_shown(write, content, parts):
    """The error says which file, line and field, in one line, and nothing of the content."""
    message = refusal(source=write("notes.jsonl", content))
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_a_damaged_parquet_row_is_named_by_its_number(tmp_path):
    """Rows of a Parquet file are counted from 1."""
    message = refusal(source=parquet(tmp_path, [{"text": "a"}, {"text": None}]))
    assert "row 2" in message
    assert "field 'text' must be text" in message


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("notes.parquet", SECRET, "not a Parquet file"),
        ("notes.json", f'{{"text": "{SECRET}"}}', "list of objects"),
        ("notes.json", f'[{{"text": "{SECRET}]', "not JSON"),
        ("notes.csv", f"text\n{SECRET}", "known type"),
        ("notes.txt", "\n\n", "no examples"),
    ],
)
def test_a_file_that_is_not_what_it_seems_is_refused(write, name, content, part):
    """A wrong format is a one-line error that says what was expected."""
    message = refusal(source=write(name, content))
    assert part in message
    assert "\n" not in message


@pytest.mark.parametrize("name", ["nowhere.jsonl", "no/such/folder/notes.parquet"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name):
    """A name that ends like a file is a file: its absence is said at once."""
    assert "no such file" in refusal(source=name)


def test_an_unreachable_dataset_is_refused_at_once(monkeypatch):
    """A hub dataset that cannot be had is a one-line error with the remedy."""
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ConfigurationError) as refused:
        read_records(source="nobody/nothing", fields=TEXT, split="test")
    message = str(refused.value)
    assert all(part in message for part in ["nobody/nothing", "'test'", "HF_HUB_OFFLINE"])
    assert "\n" not in message


def test_hub_records_are_read_by_split_and_subset(monkeypatch):
    """A dataset id goes to `load_dataset` with its subset and split, and fields are checked."""
    asked = []

    def load_dataset(*names, split):
        asked.append((*names, split))
        return [{"text": "a", "label": 0}, {"text": "b", "label": 1}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    records = read_records(source="owner/set", fields=TEXT, split="test", subset="small")
    assert records == [{"text": "a"}, {"text": "b"}]
    assert asked == [("owner/set", "small", "test")]
    assert "owner/set (train), record 1" in refusal(source="owner/set", fields={"body": str})


def configured(**changes):
    """A configuration with these settings."""
    return TrainingConfig(
        **{"model": "m", "train_data": "none", "epsilon": 1.0, "steps": 1, **changes},
        expected_batch_size=1,
    )


def test_the_held_out_choice_depends_on_the_seed_alone(write):
    """`held_out_examples` of the records are taken, the same at every call with one seed."""
    path = write("notes.txt", "\n".join(f"note {n}" for n in range(100)))
    choose = partial(load_held_out_examples, tokenizer=Letters())
    config = configured(held_out_data=path, held_out_examples=10, seed=1)
    other = configured(held_out_data=path, held_out_examples=10, seed=2)
    everything = configured(held_out_data=path, held_out_examples=None)
    assert len(choose(config=config)) == 10
    assert choose(config=config) == choose(config=config)
    assert choose(config=config) != choose(config=other)
    assert len(choose(config=everything)) == 100
    assert choose(config=configured()) == []


def test_training_keeps_every_record_in_order(write):
    """No record is left out: their number is part of the privacy plan."""
    path = write("notes.jsonl", '{"note": "ab"}\n{"note": ""}\n{"note": "c"}\n')
    examples = load_training_examples(
        config=configured(train_data=path, text_field="note"), tokenizer=Letters()
    )
    assert [example["input_ids"] for example in examples] == [[97, 98, 0], [0], [99, 0]]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"messages_field": "chat"}, "chat"),
        ({"prompt_field": "question", "completion_field": "answer"}, "question"),
        ({"text_field": "body"}, "body"),
    ],
)
def test_the_configured_fields_are_the_ones_read(write, changes, missing):
    """Messages, prompt and completion, or text: whichever is configured must be there."""
    path = write("notes.jsonl", '{"text": "a"}\n')
    with pytest.raises(ConfigurationError, match=f"no field '{missing}'"):
        load_training_examples(config=configured(train_data=path, **changes), tokenizer=Letters())


def test_a_completion_that_is_no_answer_is_named_by_its_place_and_never_shown(write):
    """It would teach a word that the others' losses know nothing of."""
    path = write("notes.jsonl", f'{{"p": "q", "c": "a"}}\n{{"p": "q", "c": "{SECRET}"}}\n')
    asked = {"prompt_field": "p", "completion_field": "c", "answers": ("a", "b")}
    config = configured(train_data=path, learn_end=False, **asked)
    with pytest.raises(ConfigurationError, match=r"notes.jsonl:2: field 'c' is none of") as error:
        load_training_examples(config=config, tokenizer=Letters())
    assert SECRET not in str(error.value)


def test_padding_fills_each_field_with_what_changes_nothing():
    """Tokens are padded with the pad token, labels with -100, masks with 0, on the right."""
    batch = pad_examples(
        [
            {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "token_type_ids": [1, 1, 1]},
            {"input_ids": [8], "labels": [8], "token_type_ids": [1]},
        ],
        pad_token_id=9,
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_padding_keeps_a_mask_that_was_given():
    """An example's own attention mask is not overwritten."""
    batch = pad_examples([{"input_ids": [5, 6], "attention_mask": [0, 1]}], pad_token_id=0)
    assert batch["attention_mask"].tolist() == [[0, 1]]


def test_classes_pass_through_padding():
    """A number per example, such as its class, becomes one number a row."""
    batch = pad_examples(
        [{"input_ids": [1, 2], "labels": 3}, {"input_ids": [4], "labels": 0}], pad_token_id=0
    )
    assert batch["labels"].tolist() == [3, 0]


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (8, 8), (3, 3), (2, 4)])
def test_width_can_be_rounded_up(multiple, width):
    """`pad_to_multiple_of` rounds the width up, never down."""
    batch = pad_examples([{"input_ids": [1, 2, 3]}], pad_token_id=0, pad_to_multiple_of=multiple)
    assert batch["input_ids"].shape == (1, width)
