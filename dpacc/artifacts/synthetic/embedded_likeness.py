"""What embeddings say of synthetic texts: how near they lie to public ones, and what they teach."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from dpacc.artifacts.synthetic.divergence import Vectors, mauve
from dpacc.artifacts.synthetic.likeness import label_field_of, written_texts
from dpacc.artifacts.synthetic.train_on_synthetic import LogisticRegression, two_fold_accuracy
from dpacc.data.records import Record
from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig

Embed = Callable[[Sequence[str]], Vectors]

NEARNESS = "MAUVE with half of the held-out texts"
TAUGHT = "accuracy of a classifier trained on them"


def compare_embedded(
    *,
    synthetic: Sequence[Record],
    held_out: Sequence[Record],
    config: TrainingConfig,
    embed: Embed,
) -> dict[str, dict[str, float]]:
    """MAUVE, and accuracy on held-out texts, of synthetic and of public texts.

    Every other held-out text is what is compared with; the others are the yardstick, and as many
    synthetic ones are taken. A classifier trained on synthetic texts is asked about all held-out
    ones; the public yardstick is trained on either half, and asked about the other one.

    Args:
        synthetic: records that were written.
        held_out: public records of the same form.
        config: of the run.
        embed: gives [n, d] for n texts.

    Returns:
        For `synthetic` and `held-out` each figure by name; accuracies where there are labels.

    Source: Pillutla et al. 2021 (arXiv 2102.01454); Esteban et al. 2017 (arXiv 1706.02633), train
    on synthetic and test on real.
    """
    ours = embed(written_texts(records=synthetic, config=config))
    theirs = embed(written_texts(records=held_out, config=config))
    half, other = theirs[::2], theirs[1::2]
    size = min(len(ours), len(other))
    found = {
        "synthetic": {NEARNESS: mauve(ours[:size], half)},
        "held-out": {NEARNESS: mauve(other[:size], half)},
    }
    label = label_field_of(records=held_out, config=config)
    if label is None:
        return found
    labels = [str(record[label]) for record in held_out]
    inputs = _inputs(theirs, held_out, label, config, embed)
    found["synthetic"][TAUGHT] = LogisticRegression(
        _inputs(ours, synthetic, label, config, embed), [str(each[label]) for each in synthetic]
    ).accuracy(inputs, labels)
    found["held-out"][TAUGHT] = two_fold_accuracy(inputs, labels)
    return found


def accuracy_of_training(
    *,
    training: Sequence[Record],
    held_out: Sequence[Record],
    config: TrainingConfig,
    embed: Embed,
    records: int,
) -> float:
    """Accuracy on held-out texts of the same classifier, trained without privacy on private ones.

    Args:
        training: private records.
        held_out: public records.
        config: of the run; its seed chooses which private records are learned.
        embed: gives [n, d] for n texts.
        records: how many are learned at most: as many as there are synthetic ones.

    Raises:
        ConfigurationError: the held-out records have no labels.
    """
    label = label_field_of(records=held_out, config=config)
    if label is None:
        raise ConfigurationError(
            "neither prompts nor completions of the held-out records are labels (at most 20 "
            "different ones), so that no classifier can be trained: leave show_private_accuracy out"
        )
    chosen = random.Random(config.seed).sample(list(training), min(records, len(training)))
    learned, asked = (embed(_asked_about(each, label, config)) for each in (chosen, held_out))
    fitted = LogisticRegression(learned, [str(record[label]) for record in chosen])
    return fitted.accuracy(asked, [str(record[label]) for record in held_out])


def _inputs(
    written: Vectors, records: Sequence[Record], label: str, config: TrainingConfig, embed: Embed
) -> Vectors:
    """Embeddings of what is classified: what was written, or its prompt where that is the label."""
    if label != config.completion_field:
        return written
    return embed(_asked_about(records, label, config))


def _asked_about(records: Sequence[Record], label: str, config: TrainingConfig) -> list[str]:
    if label != config.completion_field:
        return written_texts(records=records, config=config)
    return [str(record[config.prompt_field or ""]) for record in records]
