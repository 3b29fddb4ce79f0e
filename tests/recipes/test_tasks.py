"""The training recipe on its other tasks: classes of texts and classes of words."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig, load_config
from dpacc.recipe.models import load_base
from tests.recipes.training import WORDS, Train

ROOT = Path(__file__).parents[2]


def write(path: Path, records: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_classifier_is_trained_with_its_head(
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The new head moves with the adapters, is saved with them, and its accuracy is told."""
    records: list[dict[str, object]] = [
        {"text": f"{'joy' if i % 2 else 'dull'} {WORDS[i % 7]}", "mood": "good" if i % 2 else 0}
        for i in range(60)
    ]
    data = write(tmp_path / "moods.jsonl", records)
    runs = train(
        task="sequence-classification",
        train_data=data,
        held_out_data=data,
        allow_held_out_overlap=True,
        label_field="mood",
        labels="bad,good",
    )
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path_model(runs), num_labels=2, id2label={0: "bad", 1: "good"}
    )
    loaded = PeftModel.from_pretrained(base, runs / "tiny")
    saved = load_file(runs / "tiny" / "adapter_model.safetensors")
    (head,) = (name for name in saved if "score" in name)
    assert (loaded.base_model.model.score.weight == saved[head]).all()
    fresh = load_base(
        model=tmp_path_model(runs), task="sequence-classification", labels=("bad", "good")
    )
    start = fresh.model.get_parameter("score.weight")
    assert start.shape == saved[head].shape
    assert (start != saved[head]).all()
    card = (runs / "tiny" / "README.md").read_text()
    assert "held-out accuracy" in card
    assert "AutoModelForSequenceClassification" in card
    assert "text-classification" in card
    assert "held-out accuracy" in capsys.readouterr().out


def test_classes_of_words_are_learned(
    train: Train,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lists of words and tags go in; the head of a token classifier comes out, trained."""
    records: list[dict[str, object]] = [
        {"words": words, "label": ["film" if word == "film" else "other" for word in words]}
        for words in (WORDS[i % 5 : i % 5 + 4] for i in range(60))
    ]
    data = write(tmp_path / "tags.jsonl", records)
    runs = train(
        task="token-classification",
        train_data=data,
        held_out_data=data,
        allow_held_out_overlap=True,
        labels="other,film",
    )
    base = AutoModelForTokenClassification.from_pretrained(tmp_path_model(runs), num_labels=2)
    loaded = PeftModel.from_pretrained(base, runs / "tiny")
    assert loaded.base_model.model.score.weight.shape[0] == 2
    assert "held-out accuracy" in capsys.readouterr().out


def perplexities(runs: Path) -> tuple[float, float]:
    """Before and after training, as a run's card says."""
    card = (runs / "tiny/README.md").read_text()
    before, after = re.findall(r"(?:before|after) training \(step \d+\) \| ([\d.]+)", card)
    return float(before), float(after)


LEARNS_FAST = {
    "epsilon": 1e4,
    "steps": 8,
    "learning_rate": 0.03,
    "expected_batch_size": 30,
    "allow_held_out_overlap": True,
}


def test_answers_to_prompts_are_learned(
    train: Train,
    tmp_path: Path,
) -> None:
    """Completions that follow from their prompts become likelier, on prompts held out too."""
    records: list[dict[str, object]] = [
        {"ask": f"{WORDS[i % 5]} {'joy' if i % 2 else 'dull'}", "say": "face" if i % 2 else "music"}
        for i in range(60)
    ]
    runs = train(
        train_data=write(tmp_path / "asked.jsonl", records),
        held_out_data=write(tmp_path / "held_out.jsonl", records[:10]),
        prompt_field="ask",
        completion_field="say",
        learn_end=False,
        **LEARNS_FAST,
    )
    before, after = perplexities(runs)
    assert after < 0.8 * before


def test_the_shipped_chat_configuration_trains(
    train: Train,
    material: Path,
    tmp_path: Path,
) -> None:
    """Chats of the form that its comment shows go in; what the assistant says is learned."""
    shipped = ROOT / "recipes/configs/smollm2_chat.yaml"
    (shown,) = re.findall(r"^# (\{.*\})$", shipped.read_text(), re.MULTILINE)
    model = tmp_path / "talker"
    shutil.copytree(material / "model", model)
    (model / "chat_template.jinja").write_text(
        "{% for m in messages %}<s>{{ m.role }} {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant{% endif %}"
    )
    chats: list[dict[str, object]] = [json.loads(shown)]
    for i in range(59):
        question = {"role": "user", "content": f"{WORDS[i % 5]} {'joy' if i % 2 else 'dull'}"}
        answer = {"role": "assistant", "content": "face" if i % 2 else "music"}
        chats.append({"messages": [question, answer]})
    changes = {"config": shipped, "model": model, "epochs": "null", "warmup_steps": 0}
    runs = train(
        train_data=write(tmp_path / "chats.jsonl", chats),
        held_out_data=write(tmp_path / "held_out.jsonl", chats[1:11]),
        **changes | LEARNS_FAST,
    )
    before, after = perplexities(runs)
    assert after < 0.8 * before


def tmp_path_model(runs: Path) -> str:
    """The base that a run's adapter names."""
    config = json.loads((runs / "tiny" / "adapter_config.json").read_text())
    return str(config["base_model_name_or_path"])


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/configs").glob("*.yaml")), ids=str)
def test_every_configuration_is_read(path: Path) -> None:
    """The YAMLs of this folder are complete and name no setting that is unknown."""
    config = load_config(arguments=["--config", str(path)])
    assert config.epsilon == yaml.safe_load(path.read_text())["epsilon"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels": ("a", "b")}, "which has no classes"),
        ({"task": "sequence-classification"}, "at least two different classes"),
        ({"task": "token-classification", "labels": ("a", "a")}, "at least two different classes"),
        (
            {"task": "sequence-classification", "labels": ("a", "b"), "messages_field": "m"},
            "leave prompt_field",
        ),
    ],
)
def test_tasks_and_labels_must_fit(settings: dict[str, object], words: str) -> None:
    """Before anything is read: classes need names, and text for a causal model has none."""
    whole: dict[str, object] = {
        "model": "m",
        "train_data": "d.jsonl",
        "epsilon": 8.0,
        "expected_batch_size": 8,
        "steps": 2,
    }
    with pytest.raises(ConfigurationError, match=words):
        TrainingConfig(**(whole | settings))  # type: ignore[arg-type]
