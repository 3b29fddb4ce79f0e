"""The card is what a model hub reads and what a reviewer needs, and gives nothing away."""

import yaml

from dpacc.artifacts.model_card import write_card
from dpacc.artifacts.progress_chart import Measurement
from dpacc.recipe.config import TrainingConfig

STATEMENT = "# Privacy statement\n\nε is 7.9.\n\n## Mechanism\n\nWith {braces} and # signs.\n"
CONFIG = TrainingConfig(
    learning_rate=5e-3,
    name="reviews",
    model="owner/base",
    train_data="/home/ada/patients.jsonl",
    held_out_data="/home/ada/others.jsonl",
    epsilon=8.0,
    expected_batch_size=64,
    steps=20,
    lora_target_modules=("q_proj", "v_proj"),
)


def card(*perplexities):
    """The card of a run with these perplexities, one a step."""
    measurements = [
        Measurement(step=step, epsilon=float(step), quality=value)
        for step, value in enumerate(perplexities)
    ]
    return write_card(
        config=CONFIG, statement=STATEMENT, measurements=measurements, picture="plot.png"
    )


def test_the_front_matter_is_what_hubs_read():
    """YAML between two lines of dashes names the base, the library and the tags."""
    _, front, _ = card().split("---\n", 2)
    fields = yaml.safe_load(front)
    assert fields["base_model"] == "owner/base"
    assert fields["library_name"] == "peft"
    assert "differential-privacy" in fields["tags"]


def test_the_statement_is_in_it_word_for_word():
    """Only its headings move one level down, below the card's title."""
    text = card()
    assert "\n## Privacy statement\n\nε is 7.9.\n\n### Mechanism\n" in text
    assert "With {braces} and # signs." in text
    assert [line for line in text.splitlines() if line.startswith("# ")] == ["# reviews"]


def test_quality_is_told_before_and_after():
    """The first and the last measured perplexity, and nothing invented where there is none."""
    text = card(169.5, None, 107.25, None)
    assert "| before training (step 0) | 169.5 |" in text
    assert "| after training (step 2) | 107.2 |" in text
    assert "not measured" in card(None, None)
    assert "not measured" in card()


def test_settings_are_listed_and_the_data_is_not_named():
    """How it was trained is there; where the private data lies is nobody's business."""
    text = card(2.0, 1.0)
    assert "| lora_target_modules | q_proj, v_proj |" in text
    assert "| learning_rate | 0.005 |" in text
    assert "![" in text
    assert "(plot.png)" in text
    assert "patients" not in text
    assert "/home" not in text
