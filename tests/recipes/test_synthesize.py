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

from dpacc.artifacts.synthetic import vllm_writer
from dpacc.artifacts.synthetic.label_counts import release_counts
from dpacc.errors import ConfigurationError
from tests.recipes.training import RECIPE, WORDS, as_arguments, lines, listed


def card(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.with_name(f"{path.name}.card.json").read_text())
    return found


def card_for_people(path: Path) -> str:
    return path.with_name(f"{path.name}.card.md").read_text()


def test_plain_texts_come_with_a_card_that_rests_on_the_ledger(
    write: Callable[..., Path], finished: Path, capsys: pytest.CaptureFixture[str]
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
    words = " ".join(card_for_people(path).split())
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
    write: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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


def test_the_training_data_has_no_part_in_what_is_written(
    write: Callable[..., Path], material: Path, tmp_path: Path
) -> None:
    """Byte for byte the same whether they are there, gone, or all that the model would write."""
    first = write(output=tmp_path / "first.jsonl")
    second = write(output=tmp_path / "second.jsonl", train_data=tmp_path / "gone.jsonl")
    third = write(output=tmp_path / "third.jsonl", train_data=first)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_dropped_records_are_counted_and_written_anew(
    write: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Short room truncates some; they are tried again, and what is given up is missing, which the
    screen says where it is most of them.
    """
    path = write(new_tokens=2, records=40, tries=2)
    said = card(path)["synthetic"]
    assert said["dropped"]["truncated"] > 0
    assert said["dropped"]["duplicated"] > 0
    assert len(lines(path)) == said["records"] < said["asked"] == 40
    words = card_for_people(path)
    assert f"{40 - said['records']} of 40 that were asked for are missing" in words
    assert "most texts had no end" in capsys.readouterr().err
    write(output=tmp_path / "whole.jsonl", records=4)
    assert "most texts had no end" not in capsys.readouterr().err
    assert len({each["text"] for each in lines(path)}) == said["records"]


def test_labels_are_asked_for_as_a_public_distribution_says(
    write: Callable[..., Path], tmp_path: Path
) -> None:
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


def test_completions_follow_public_prompts(write: Callable[..., Path], tmp_path: Path) -> None:
    """Each of two prompts six times; of several parts each stays a field, and the end is not in."""
    prompts = listed(tmp_path / "prompts.jsonl", {"ask": "the film", "more": "was"}, {"ask": "a"})
    path = write(
        prompts=prompts, prompt_field="ask,more", completion_field="say", train_data="gone.jsonl"
    )
    found = lines(path)
    assert sorted(each["ask"] for each in found) == ["a"] * 6 + ["the film"] * 6
    assert all(("more" in each) == (each["ask"] == "the film") for each in found)
    assert not any("</s>" in each["say"] for each in found)


def test_answers_are_drawn_among_themselves(write: Callable[..., Path], tmp_path: Path) -> None:
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
    write: Callable[..., Path], finished: Path, material: Path, tmp_path: Path, words: str
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


def test_texts_go_on_from_public_beginnings(write: Callable[..., Path], tmp_path: Path) -> None:
    """They are whole: the beginning stands in each."""
    prompts = listed(tmp_path / "begun.jsonl", {"text": "its music and"})
    found = lines(write(prompts=prompts))
    assert len(found) == 12
    assert "untaught_start" not in card(tmp_path / "synthetic.jsonl")["synthetic"]["settings"]
    assert all(each["text"].startswith("its music and ") for each in found)


LOGGED = ("non-private-metrics", "training losses were logged")


def noted(run: Path, *notes: tuple[str, str]) -> Path:
    """A run whose ledger says so, too."""
    plan = read_ledger(path=run / "ledger.jsonl").plan
    with Ledger.open(path=run / "ledger.jsonl", plan=plan) as ledger:
        for subject, text in notes:
            ledger.note(subject=subject, text=text)
    return run


def test_the_card_of_a_void_run_claims_nothing(
    write: Callable[..., Path], forged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its ledger notes a fixed seed: people and machines read that the file is not private."""
    seed = ("fixed-seed", "sampling and noise came from the fixed seed 3")
    path = write(run=noted(forged, seed, LOGGED))
    words = card_for_people(path)
    assert "none may be claimed" in capsys.readouterr().out
    assert "**This file is NOT private.**" in words
    assert "the fixed seed 3" in words
    assert "no further ε" not in words
    assert card(path)["guarantee"]["epsilon"] == "inf"
    assert "the fixed seed 3" in str(card(path)["guarantee"]["void_because"])


def test_the_card_carries_what_qualifies_the_run(
    write: Callable[..., Path], forged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A loss that was logged without noise is said beside ε, on the screen too."""
    path = write(run=noted(forged, LOGGED))
    words = card_for_people(path)
    assert "- Qualified: training losses were logged" in words
    assert "training losses were logged" in str(card(path)["guarantee"]["qualified_by"])
    assert "training losses were logged" in capsys.readouterr().out


def test_the_pages_commands_write(
    synthesis: ModuleType,
    to_write: Callable[..., dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each command of docs/synthetic.md runs on a tiny run, with the files that the page shows; the
    one by vLLM as far as where that is not installed.
    """
    page = (RECIPE.parents[1] / "docs/synthetic.md").read_text()
    shown = re.findall(r"^python (recipes/synthesize.py .*)$", page, re.MULTILINE)
    assert len(shown) >= 2
    (shares,) = re.findall(r"^(\{.*\})$", page, re.MULTILINE)
    shipped = (RECIPE.parent / "configs/sentiment_shares.json").read_text()
    assert json.loads(shares) == json.loads(shipped)
    monkeypatch.chdir(tmp_path)
    release_counts(
        votes=dict.fromkeys(json.loads(shares), 500),
        noise=2,
        folder=tmp_path / "runs/smollm2-labelled-labels",
        settings={"unit": "example", "target_delta": 1e-3},
    )
    for number, command in enumerate(shown):
        _, *arguments = shlex.split(command)
        absolute = [str(RECIPE.parents[1] / a) if "/configs/" in a else a for a in arguments]
        mine = to_write(output=tmp_path / f"{number}.jsonl", records=4)
        if "vllm" in arguments:
            monkeypatch.setattr(vllm_writer, "packages_distributions", dict)
            with pytest.raises(ConfigurationError, match="vLLM is not installed"):
                synthesis.main([*absolute, *as_arguments(mine)])
            continue
        synthesis.main([*absolute, *as_arguments(mine)])
        assert len(lines(tmp_path / f"{number}.jsonl")) == 4
