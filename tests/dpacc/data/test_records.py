"""Records are read from every kind of source, and no error shows what is in them."""

import gzip
import json

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from dpacc.errors import ConfigurationError
from dpacc.data.records import read_records

SECRET = "my diagnosis"
TEXT = {"text": str}


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
        ("notes.xlsx", f"text\n{SECRET}", "known type"),
        ("notes.csv", f'text,id\n"{SECRET}', "quotes do not match"),
        ("notes.csv", f"text,text\na,{SECRET}", "two columns have one name"),
        ("notes.csv", f"text,id\n{SECRET}\n", "row 1 has 1 cells"),
        ("notes.csv", "text\n", "no examples"),
        ("notes.txt.gz", SECRET, "no whole gzip file"),
        ("notes.jsonl.gz", gzip.compress(b'{"text": "a"}', mtime=0)[:-9], "no whole gzip file"),
        ("notes.jsonl", "[" * 100_000, "nested too deeply"),
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
    assert "2 records cannot be used: has no field 'body' (records 1, 2)" in refusal(
        source="owner/set", fields={"body": str}
    )


def test_tables_and_packed_files_give_the_same_records(write):
    """CSV, TSV and gzip files, with or without the mark that some programs put in front."""
    jsonl = '{"text": "éen, twee", "id": 1}\n{"text": "", "id": 2}\n'
    sources = [
        write("a.jsonl", "\ufeff" + jsonl),
        write("b.jsonl.gz", gzip.compress(jsonl.encode())),
        write("c.csv", '\ufefftext,id\r\n"éen, twee",1\r\n,2\r\n'),
        write("d.CSV", 'id;text\n1;"éen, twee"\n2;\n'),
        write("e.tsv", "text\tid\néen, twee\t1\n\t2\n"),
        write("f.csv.gz", gzip.compress('text,id\n"éen, twee",1\n"",2\n'.encode())),
        write("g.json", "\ufeff[" + jsonl.strip().replace("\n", ",") + "]"),
    ]
    for source in sources:
        assert read_records(source=source, fields=TEXT) == [{"text": "éen, twee"}, {"text": ""}]


def test_a_cell_may_be_long_and_hold_lines(write):
    """A note of several hundred thousand letters, and of several lines, is one record."""
    note = "line one\n" + "a" * 300_000
    source = write("a.csv", f'text\n"{note}"\n"b"\n')
    assert read_records(source=source, fields=TEXT) == [{"text": note}, {"text": "b"}]


def test_half_a_surrogate_pair_becomes_a_replacement_character(write):
    """A smiley that was cut in two is no text that UTF-8 can hold; a whole one stays."""
    half = '{"text": "cut \\ud83d", "chat": [{"content": "\\udc00 \\ud83d\\ude00"}]}'
    (record,) = read_records(source=write("a.jsonl", half), fields={"text": str, "chat": list})
    assert record == {"text": "cut \ufffd", "chat": [{"content": "\ufffd \U0001f600"}]}


def test_a_folder_of_files_is_read_in_the_order_of_their_names(write, tmp_path):
    """All files of one type, packed or not; hidden ones are left out."""
    write("b.jsonl", '{"text": "two"}\n')
    write("a.jsonl.gz", gzip.compress(b'{"text": "one"}\n', mtime=0))
    write(".hidden.txt", "no")
    records = read_records(source=str(tmp_path), fields=TEXT)
    assert records == [{"text": "one"}, {"text": "two"}]
    write("README.txt", "read me")
    assert "several types (.jsonl, .txt)" in refusal(source=str(tmp_path))
    (tmp_path / "empty").mkdir()
    assert "without files of a known type" in refusal(source=str(tmp_path / "empty"))


def test_a_folder_that_datasets_saved_is_read_by_split(tmp_path):
    """What `save_to_disk` wrote, with and without splits, and without the nulls it fills in."""
    chats = [[{"role": "user", "content": "a"}], [{"role": "user", "content": "b", "name": "c"}]]
    rows = Dataset.from_list([{"chat": chat} for chat in chats])
    rows.save_to_disk(tmp_path / "one")
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "split")
    for name in ("one", "split"):
        records = read_records(source=str(tmp_path / name), fields={"chat": list})
        assert [record["chat"] for record in records] == chats
    message = refusal(source=str(tmp_path / "split"), split="test")
    assert "no split 'test': it has train" in message


def test_all_damaged_records_are_named_at_once(write):
    """Reasons, and the numbers of their records; never what these hold."""
    lines = ['{"text": "a"}', '{"text": null}', f'{{"text": ["{SECRET}"]}}', '{"text": null}', "{"]
    message = refusal(source=write("notes.jsonl", "\n".join(lines)))
    assert message.endswith(
        "notes.jsonl: 4 records cannot be used: field 'text' must be text, and is null "
        "(lines 2, 4); field 'text' must be text (line 3); is not JSON: Expecting property name "
        "enclosed in double quotes (column 2) (line 5)"
    )
    many = refusal(source=write("many.jsonl", '{"text": null}\n' * 30))
    assert "(lines 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 20 more)" in many


@pytest.mark.parametrize(
    ("fields", "remedy"),
    [
        (["id", "note"], "every record has id, note: name the fields"),
        (["messages"], "--messages_field messages"),
        (["conversations", "id"], "--messages_field conversations"),
        (
            ["instruction", "input", "output"],
            "try --prompt_field instruction,input --completion_field output",
        ),
        (["question", "answer"], "try --prompt_field question --completion_field answer"),
    ],
)
def test_a_missing_field_is_told_with_those_that_there_are(write, fields, remedy):
    """Whoever has data of another form reads which settings fit it."""
    row = json.dumps(dict.fromkeys(fields, SECRET))
    assert remedy in refusal(source=write("notes.jsonl", f"{row}\n{row}\n"))


def test_names_that_could_be_somebodys_are_not_listed(write):
    """Only fields that all records have, and that read like names of fields, are shown."""
    rows = f'{{"note": "a", "Smith": 1, "{SECRET}": 2}}\n{{"note": "a", "{SECRET}": 2}}\n'
    message = refusal(source=write("notes.jsonl", rows))
    assert "every record has note:" in message
    assert "Smith" not in message


def test_optional_fields_are_kept_where_they_are(write):
    """A field that some records have is kept for them, if it is of its type."""
    rows = '{"text": "a", "tools": []}\n{"text": "b", "tools": null}\n{"text": "c"}\n'
    source = write("notes.jsonl", rows)
    records = read_records(source=source, fields=TEXT, optional={"tools": list})
    assert records == [{"text": "a", "tools": []}, {"text": "b"}, {"text": "c"}]
    assert "'tools' must be text" in refusal(source=source, optional={"tools": str})
