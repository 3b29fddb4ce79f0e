"""A configuration's text is read as the configuration, whatever stands in it."""

from __future__ import annotations

from pathlib import Path

from dpacc.artifacts.kept.configuration_text import configuration_text
from dpacc.recipe.config import TrainingConfig, load_config


def test_it_is_read_as_it_was(tmp_path: Path) -> None:
    """Names with every sign that YAML has a meaning for, lists, small numbers, no and null."""
    config = TrainingConfig(
        model="yes",
        train_data="notes: #1 'é'.csv",
        epsilon=0.5,
        delta=1e-7,
        task="sequence-classification",
        labels=("no", "1", "a, b", "null "),
        label_field="on",
        unit_field="~x",
        expected_batch_size=3,
        epochs=1e-3,
        lora_target_modules=("q_proj", "v_proj"),
        gradient_checkpointing=True,
    )
    text = configuration_text(config=config, head="a\n\n" + "b " * 90, shown=("dtype",))
    (tmp_path / "c.yaml").write_text(text)
    assert load_config(arguments=["--config", str(tmp_path / "c.yaml")]) == config
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "dtype: auto" in text
    assert "seed" not in text
