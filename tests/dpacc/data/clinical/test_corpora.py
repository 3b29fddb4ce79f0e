"""Corpora in PubTator's, i2b2's and brat's formats, on small files written for these tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dpacc.data.clinical.annotated_text import AnnotatedText, Mention
from dpacc.data.clinical.i2b2 import read_i2b2_concepts, read_standoff
from dpacc.data.clinical.pubtator import BC5CDR, NCBI_DISEASE, read_pubtator
from dpacc.errors import ConfigurationError

PUBTATOR = """\
101|t|Lithium and tremor.
101|a|One woman took lithium. She had severe tremor and renal failure.
101\t0\t7\tLithium\tChemical\tD008094
101\t12\t18\ttremor\tDisease\tD014202
101\t35\t42\tlithium\tChemical\tD008094
101\t52\t65\tsevere tremor\tDisease\tD014202
101\t59\t65\ttremor\tDisease\tD014202
101\t70\t83\trenal failure\tDisease\tD051437
101\tCID\tD008094\tD014202

102|t|Breast cancer families.
102|a|
102\t0\t13\tBreast cancer\tModifier\tD001943
"""


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Two documents, one with a relation and a mention inside another."""
    path = tmp_path / "corpus.txt"
    path.write_text(PUBTATOR)
    return path


def test_bc5cdr_becomes_words_and_tags(corpus: Path) -> None:
    """Characters count over title, a blank and abstract; of two mentions the longer is kept."""
    first, _ = read_pubtator(corpus)
    (whole,) = first.records(kinds=BC5CDR)
    tagged = [
        (word, label)
        for word, label in zip(whole["words"], whole["label"], strict=True)
        if label != "O"
    ]
    assert tagged == [
        ("Lithium", "B-chemical"),
        ("tremor", "B-disease"),
        ("lithium", "B-chemical"),
        ("severe", "B-disease"),
        ("tremor", "I-disease"),
        ("renal", "B-disease"),
        ("failure", "I-disease"),
    ]
    assert whole["document"] == "101"


def test_every_kind_of_the_ncbi_disease_corpus_is_a_disease(corpus: Path) -> None:
    """A modifier is one; chemicals are left out."""
    records = [each.records(kinds=NCBI_DISEASE) for each in read_pubtator(corpus)]
    assert records[1][0]["label"] == ["B-disease", "I-disease", "O", "O"]
    assert {*records[0][0]["label"]} == {"O"}


def test_records_are_whole_sentences(corpus: Path) -> None:
    """As many as fit; together they are the document again."""
    first, _ = read_pubtator(corpus)
    records = first.records(most_words=10)
    assert [len(each["words"]) for each in records] == [9, 8]
    (whole,) = first.records(most_words=99)
    for field in ("words", "label"):
        assert [item for each in records for item in each[field]] == whole[field]


def test_a_mention_is_not_cut_in_two() -> None:
    """A full stop inside it ends no record."""
    text = AnnotatedText(
        document="d", text="Took St. John wort. Well.", mentions=[Mention("drug", 5, 18)]
    )
    assert [each["words"] for each in text.records(most_words=2)] == [
        ["Took", "St", ".", "John", "wort", "."],
        ["Well", "."],
    ]


def test_i2b2s_concepts_count_lines_and_words(tmp_path: Path) -> None:
    """Lines from 1, words from 0, both ends inside."""
    (tmp_path / "note.txt").write_text("Admission Date :\n\nPatient has chest pain .\n")
    (tmp_path / "note.con").write_text('c="chest pain" 3:2 3:3||t="problem"\n')
    records = read_i2b2_concepts(text=tmp_path / "note.txt", concepts=tmp_path / "note.con")
    assert [each["words"][0] for each in records] == ["Admission", "Patient"]
    assert records[1]["label"] == ["O", "O", "B-problem", "I-problem", "O"]
    assert records[1]["document"] == "note"


def test_standoff_counts_characters(tmp_path: Path) -> None:
    """A mention over a line end has two parts; relations are passed over."""
    (tmp_path / "note.txt").write_text("Give aspirin 81\nmg daily.")
    (tmp_path / "note.ann").write_text(
        "T1\tDrug 5 12\taspirin\nT2\tStrength 13 15;16 18\t81 mg\nR1\tOf Arg1:T2 Arg2:T1\n"
    )
    note = read_standoff(text=tmp_path / "note.txt", annotations=tmp_path / "note.ann")
    (record,) = note.records()
    assert record["words"] == ["Give", "aspirin", "81", "mg", "daily", "."]
    assert record["label"] == ["O", "B-Drug", "B-Strength", "I-Strength", "O", "O"]


def concepts(folder: Path, line: str) -> object:
    """What i2b2's reader says of one concept of a line of two words."""
    (folder / "note.txt").write_text("secret pain\n")
    (folder / "note.con").write_text(line)
    return read_i2b2_concepts(text=folder / "note.txt", concepts=folder / "note.con")


def pubtator(folder: Path, text: str) -> object:
    """What PubTator's reader says of a file."""
    (folder / "corpus").write_text(text)
    return read_pubtator(folder / "corpus")


def standoff(folder: Path, line: str) -> object:
    """What the standoff reader says of one line on a text of eleven characters."""
    (folder / "note.txt").write_text("secret pain")
    (folder / "note.ann").write_text(line)
    return read_standoff(text=folder / "note.txt", annotations=folder / "note.ann")


@pytest.mark.parametrize(
    ("read", "text", "words"),
    [
        (concepts, 'c="secret" 1:0 2:0||t="problem"', "line 1, is of lines 1 to 2"),
        (concepts, 'c="secret" 1:1 1:2||t="problem"', "outside the text"),
        (concepts, "secret", "line 1, is no concept"),
        (pubtator, "secret", "not PubTator's format"),
        (pubtator, "7\t0\t1\tsecret\tDisease\n", "line 1, marks a document that has not begun"),
        (pubtator, "7|t|secret\n7\t0\t6\tpublic\tDisease\tD1\n", "line 2, names other words"),
        (pubtator, "7|t|secret\n7\t0\t99\tsecret\tDisease\tD1\n", "line 2, marks characters 0"),
        (standoff, "T1\tDrug 0 99\tsecret", "line 1, marks characters 0 to 99 of 11"),
        (standoff, "T1 Drug 0 6 secret", "line 1, is no mention"),
    ],
)
def test_what_does_not_fit_is_named_by_its_line(
    tmp_path: Path, read: Callable[[Path, str], object], text: str, words: str
) -> None:
    """And nothing of the text is quoted."""
    with pytest.raises(ConfigurationError, match=words) as refused:
        read(tmp_path, text)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """By each reader."""
    for read in (read_pubtator, lambda path: read_standoff(text=path, annotations=path)):
        with pytest.raises(ConfigurationError, match="cannot be read"):
            read(tmp_path / "nowhere")
