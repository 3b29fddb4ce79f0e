"""Synthetic text has the training data's fields, costs no ε, and says so truly."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from dpacc_accounting import Ledger, read_ledger
from dpacc_accounting.guarantee import rounded_up

from dpacc.cli import terminal
from dpacc.recipe.models import add_lora, load_base
from tests.recipes.training import RECIPE, WORDS, as_arguments, refusal, settings
from tests.scripts import load_script

SYNTHESIZE = RECIPE.with_name("synthesize.py")
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def synthesis() -> ModuleType:
    """The recipe's own module, loaded from its file."""
    return load_script(SYNTHESIZE)


@pytest.fixture(scope="module")
def finished(recipe: ModuleType, material: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny finished run on plain texts, whose noise moved it by little."""
    runs = tmp_path_factory.mktemp("runs")
    with terminal.one_line_errors():
        recipe.main(as_arguments(settings(material, runs) | {"learning_rate": 1e-3, "steps": 2}))
    return runs / "tiny"


@pytest.fixture
def told(material: Path, finished: Path, tmp_path: Path) -> Callable[..., dict[str, object]]:
    """Settings for writing twelve records, with some changed."""

    def given(**changes: object) -> dict[str, object]:
        shared: dict[str, object] = {"run": finished, "output": tmp_path / "synthetic.jsonl"}
        shared |= {"records": 12, "batch_size": 5, "max_length": 24, "tries": 60}
        return settings(material, tmp_path / "none") | shared | changes

    return given


@pytest.fixture
def write(synthesis: ModuleType, told: Callable[..., dict[str, object]]) -> Write:
    """Write synthetic records with some settings changed; the file."""

    def run(**changes: object) -> Path:
        values = told(**changes)
        synthesis.main(as_arguments(values))
        return Path(str(values["output"]))

    return run


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def card(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.card.json").read_text())
    return found


def listed(path: Path, *records: object) -> Path:
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


def test_plain_texts_come_with_a_card_that_rests_on_the_ledger(
    write: Write, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Field `text`, none empty or twice; ε, δ, unit and the ledger's last hash are the run's."""
    path = write()
    records, said = lines(path), card(path)
    assert len(records) == 12 == said["synthetic"]["records"]
    assert all(set(each) == {"text"} and each["text"].strip() for each in records)
    assert len({each["text"] for each in records}) == 12
    assert {word for each in records for word in each["text"].split()} <= set(WORDS)
    stated = json.loads((finished / "privacy.json").read_text())
    assert said["guarantee"] == stated["guarantee"]
    assert said["ledger"]["head"] == read_ledger(path=finished / "ledger.jsonl").head
    assert said["adapter"] == stated["adapter"]
    words = " ".join(path.with_name(f"{path.name}.card.md").read_text().split())
    assert "**Writing them cost no further ε.**" in words
    assert f"(ε = {rounded_up(stated['guarantee']['epsilon'])}, δ = 0.001)" in words
    for fact in ("one example", "add-or-remove", "poisson sampling", said["ledger"]["head"]):
        assert fact in words
    shown = capsys.readouterr()
    assert "none: what the adapter cost holds" in " ".join(shown.out.split())
    # The tiny tokenizer puts nothing before a text.
    assert "how they begin is the base's" in shown.err
    assert "how they begin is the base's" in words


def test_a_stopped_call_goes_on_to_the_same_file(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its third batch and in the middle of a line, it writes what it would have."""
    whole = write(output=tmp_path / "whole.jsonl").read_bytes()
    import dpacc.artifacts.synthetic.generation as generation

    honest = generation.write_batch

    def stops(*, number: int, **given: Any) -> Any:
        if number == 2:
            raise KeyboardInterrupt
        return honest(number=number, **given)

    monkeypatch.setattr(generation, "write_batch", stops)
    with pytest.raises(KeyboardInterrupt):
        write()
    assert not (tmp_path / "synthetic.jsonl").exists()
    with (tmp_path / ".synthetic.jsonl.batches").open("a") as begun:
        begun.write('[{"text": "torn')
    monkeypatch.setattr(generation, "write_batch", honest)
    path = write()
    assert path.read_bytes() == whole
    assert (
        card(path)["synthetic"]["sha256"] == card(tmp_path / "whole.jsonl")["synthetic"]["sha256"]
    )
    assert not (tmp_path / ".synthetic.jsonl.batches").exists()


def test_what_was_begun_otherwise_is_not_gone_on_with(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Another temperature would make a file that no card describes."""
    monkeypatch.setattr(synthesis, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        synthesis.main(as_arguments(told()))
    said = refusal(synthesis.main, as_arguments(told(temperature=0.5)), capsys)
    assert "was begun with other settings" in said


def test_the_training_data_has_no_part_in_what_is_written(
    write: Write, material: Path, tmp_path: Path
) -> None:
    """Byte for byte the same whether they are there, gone, or all that the model would write."""
    first = write(output=tmp_path / "first.jsonl")
    second = write(output=tmp_path / "second.jsonl", train_data=tmp_path / "gone.jsonl")
    third = write(output=tmp_path / "third.jsonl", train_data=first)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_dropped_records_are_counted_and_written_anew(write: Write, tmp_path: Path) -> None:
    """Short room truncates some; they are tried again, and what is given up is missing."""
    path = write(new_tokens=2, records=40, tries=2)
    said = card(path)["synthetic"]
    assert said["dropped"]["truncated"] > 0
    assert said["dropped"]["duplicated"] > 0
    assert len(lines(path)) == said["records"] < said["asked"] == 40
    words = path.with_name(f"{path.name}.card.md").read_text()
    assert f"{40 - said['records']} of 40 that were asked for are missing" in words
    assert len({each["text"] for each in lines(path)}) == said["records"]


def test_labels_are_asked_for_as_a_public_distribution_says(write: Write, tmp_path: Path) -> None:
    """Three quarters of them are of one label, whatever had to be dropped on the way."""
    shares = tmp_path / "shares.json"
    shares.write_text('{"joy": 3, "dull": 1}')
    path = write(
        labels_from=shares,
        prompt_field="label",
        completion_field="text",
        train_data="private.jsonl",
    )
    labels = [each["label"] for each in lines(path)]
    assert all(set(each) == {"label", "text"} for each in lines(path))
    assert (labels.count("joy"), labels.count("dull")) == (9, 3)
    assert labels != sorted(labels) != labels[::-1]
    assert "SHA-256" in card(path)["synthetic"]["settings"]["labels_from"]


def test_completions_follow_public_prompts(write: Write, tmp_path: Path) -> None:
    """Each of two prompts six times; of several parts each stays a field, and the end is not in."""
    prompts = listed(tmp_path / "prompts.jsonl", {"ask": "the film", "more": "was"}, {"ask": "a"})
    path = write(
        prompts=prompts, prompt_field="ask,more", completion_field="say", train_data="gone.jsonl"
    )
    found = lines(path)
    assert sorted(each["ask"] for each in found) == ["a"] * 6 + ["the film"] * 6
    assert all(("more" in each) == (each["ask"] == "the film") for each in found)
    assert not any("</s>" in each["say"] for each in found)


def test_answers_are_drawn_among_themselves(write: Write, tmp_path: Path) -> None:
    """A run that learned which of two words follows writes one of them, and nothing else."""
    prompts = listed(tmp_path / "prompts.jsonl", *({"ask": word} for word in WORDS))
    path = write(
        prompts=prompts,
        prompt_field="ask",
        completion_field="say",
        learn_end=False,
        answers="joy,dull",
        train_data="gone.jsonl",
    )
    assert {each["say"] for each in lines(path)} == {"joy", "dull"}


@pytest.mark.parametrize("words", ["role", "from"])
def test_chats_are_answered_as_the_template_asks(
    write: Write, finished: Path, material: Path, tmp_path: Path, words: str
) -> None:
    """The answer is added in the words of the others, and ends where the template does."""
    model = tmp_path / "talker"
    shutil.copytree(material / "model", model)
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}<s>{{ m.role }} {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant{% endif %}"
    )
    who, what, name = ("role", "content", "user") if words == "role" else ("from", "value", "human")
    prompts = listed(tmp_path / "chats.jsonl", {"talk": [{who: name, what: "the film was dull"}]})
    path = write(prompts=prompts, messages_field="talk", model=model, train_data="gone.jsonl")
    answers = [each["talk"][-1] for each in lines(path)]
    assert len(answers) == 12
    assert all(answer[who] in ("assistant", "gpt") and answer[what] for answer in answers)
    assert all(len(each["talk"]) == 2 for each in lines(path))


def test_texts_go_on_from_public_beginnings(write: Write, tmp_path: Path) -> None:
    """They are whole: the beginning stands in each."""
    prompts = listed(tmp_path / "begun.jsonl", {"text": "its music and"})
    found = lines(write(prompts=prompts))
    assert len(found) == 12
    assert "untaught_start" not in card(tmp_path / "synthetic.jsonl")["synthetic"]["settings"]
    assert all(each["text"].startswith("its music and ") for each in found)


@pytest.fixture
def forged(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "forged"))


def test_the_card_of_a_void_run_claims_nothing(
    write: Write, forged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ledger notes a fixed seed: people and machines read that the file is not private."""
    plan = read_ledger(path=forged / "ledger.jsonl").plan
    with Ledger.open(path=forged / "ledger.jsonl", plan=plan) as ledger:
        ledger.note(subject="fixed-seed", text="sampling and noise came from the fixed seed 3")
        ledger.note(subject="non-private-metrics", text="training losses were logged")
    path = write(run=forged)
    words = path.with_name(f"{path.name}.card.md").read_text()
    assert "none may be claimed" in capsys.readouterr().out
    assert "**This file is NOT private.**" in words
    assert "the fixed seed 3" in words
    assert "no further ε" not in words
    assert card(path)["guarantee"]["epsilon"] == "inf"
    assert "the fixed seed 3" in str(card(path)["guarantee"]["void_because"])


def test_the_card_carries_what_qualifies_the_run(
    write: Write, forged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that was logged without noise is said beside ε, on the screen too."""
    plan = read_ledger(path=forged / "ledger.jsonl").plan
    with Ledger.open(path=forged / "ledger.jsonl", plan=plan) as ledger:
        ledger.note(subject="non-private-metrics", text="training losses were logged")
    path = write(run=forged)
    words = path.with_name(f"{path.name}.card.md").read_text()
    assert "- Qualified: training losses were logged" in words
    assert "training losses were logged" in str(card(path)["guarantee"]["qualified_by"])
    assert "training losses were logged" in capsys.readouterr().out


def _other_adapter(folder: Path, material: Path) -> None:
    model = add_lora(
        model=load_base(model=str(material / "model"), dtype="float32").model,
        rank=8,
        alpha=16,
        dropout=0.0,
        target_modules=("q_proj", "v_proj"),
        seed=5,
    )
    model.save_pretrained(folder)


def _lost_end(folder: Path, material: Path) -> None:
    whole = (folder / "ledger.jsonl").read_text().splitlines(keepends=True)
    (folder / "ledger.jsonl").write_text("".join(whole[:-1]))


def _other_head(folder: Path, material: Path) -> None:
    stated = json.loads((folder / "privacy.json").read_text())
    stated["ledger"]["head"] = "0" * 64
    (folder / "privacy.json").write_text(json.dumps(stated))


def _no_ledger(folder: Path, material: Path) -> None:
    (folder / "ledger.jsonl").unlink()


def _no_adapter(folder: Path, material: Path) -> None:
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize(
    ("forge", "words"),
    [
        (_other_adapter, "is not the one that its ledger says was saved"),
        (_lost_end, "does not say that an adapter was saved"),
        (_other_head, "rests on a line that its ledger does not hold"),
        (_no_ledger, "ledger.jsonl"),
        (_no_adapter, "holds no adapter"),
    ],
    ids=["another", "lost end", "other head", "no ledger", "no adapter"],
)
def test_an_adapter_whose_cost_nobody_knows_writes_nothing(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    forged: Path,
    material: Path,
    capsys: pytest.CaptureFixture[str],
    forge: Callable[[Path, Path], None],
    words: str,
) -> None:
    """Swapped, unsaved, or with a ledger that lost lines: refused, and no file is there."""
    forge(forged, material)
    given = told(run=forged)
    assert words in " ".join(refusal(synthesis.main, as_arguments(given), capsys).split())
    assert not Path(str(given["output"])).exists()


@pytest.mark.parametrize("how", ["the file itself", "a copy", "one record of it", "its beginning"])
def test_prompts_from_the_training_data_are_refused(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    """By its name, by what it holds, record by record, and where texts only begin alike."""
    private = material / "private.jsonl"
    longest = max((each["text"] for each in lines(private)), key=len)
    prompts = {
        "the file itself": private,
        "a copy": Path(shutil.copyfile(private, tmp_path / "copy.jsonl")),
        "one record of it": listed(tmp_path / "one.jsonl", {"text": longest.upper()}),
        "its beginning": listed(tmp_path / "begun.jsonl", {"text": longest.rpartition(" ")[0]}),
    }[how]
    said = refusal(synthesis.main, as_arguments(told(prompts=prompts)), capsys)
    assert "private training data" in said
    assert longest not in said


def test_what_users_asked_in_private_chats_is_no_prompt(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A chat whose user says what one did in the training data is refused, whatever it is in."""
    asked = {"role": "user", "content": "the film was dull but its music"}
    answer = {"role": "assistant", "content": "joy"}
    private = listed(tmp_path / "private.jsonl", {"talk": [asked, answer]})
    system = {"role": "system", "content": "a joy every face"}
    prompts = listed(tmp_path / "prompts.jsonl", {"talk": [system, asked]})
    given = told(prompts=prompts, messages_field="talk", train_data=private)
    assert "1 of them stand in" in refusal(synthesis.main, as_arguments(given), capsys)


def test_counts_of_private_labels_are_refused(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    material: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The training data is no distribution, nor are shares that are none; the remedy is named."""
    fields = {"prompt_field": "label", "completion_field": "text"}
    wrong = tmp_path / "wrong.json"
    for content in ('{"joy": 0}', "[1]", "{}", '{"joy": "much"}', '{"joy": NaN}'):
        wrong.write_text(content)
        said = refusal(synthesis.main, as_arguments(told(labels_from=wrong, **fields)), capsys)
        assert "give --labels_from a public distribution" in " ".join(said.split())
    private = as_arguments(told(labels_from=material / "private.jsonl", **fields))
    assert "is the private training data" in refusal(synthesis.main, private, capsys)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "sequence-classification", "labels": "a,b"}, "writes records"),
        ({"learn_end": False}, "never learned where a text ends"),
        ({"prompts": "a.jsonl", "labels_from": "b.json"}, "and not both"),
        ({"max_length": 8, "new_tokens": 8}, "must be below max_length=8"),
        ({"prompt_field": "ask", "completion_field": "say"}, "name public ones with --prompts"),
        ({"records": 0}, "records=0"),
        ({"top_p": 1.5}, "top_p=1.5"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, object],
    words: str,
) -> None:
    """Exit code 2 with the remedy, before any weights are loaded."""
    said = refusal(synthesis.main, as_arguments(told(**changes)), capsys)
    assert words in " ".join(said.split())
    assert said.count("\n") <= 2


def test_a_file_that_is_there_stays(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is overwritten."""
    (tmp_path / "synthetic.jsonl").write_text("mine")
    assert "exists" in refusal(synthesis.main, as_arguments(told()), capsys)
    assert (tmp_path / "synthetic.jsonl").read_text() == "mine"


def test_the_pages_commands_write(
    synthesis: ModuleType,
    told: Callable[..., dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of docs/synthetic.md runs on a tiny run, with the files that the page shows."""
    page = (RECIPE.parents[1] / "docs/synthetic.md").read_text()
    shown = re.findall(r"^python (recipes/synthesize.py .*)$", page, re.MULTILINE)
    assert len(shown) >= 2
    (shares,) = re.findall(r"^(\{.*\})$", page, re.MULTILINE)
    (tmp_path / "shares.json").write_text(shares)
    monkeypatch.chdir(tmp_path)
    for number, command in enumerate(shown):
        _, *arguments = shlex.split(command)
        absolute = [str(RECIPE.parents[1] / a) if a.endswith(".yaml") else a for a in arguments]
        mine = told(output=tmp_path / f"{number}.jsonl", records=4)
        synthesis.main([*absolute, *as_arguments(mine)])
        assert len(lines(tmp_path / f"{number}.jsonl")) == 4
