"""Look at synthetic records beside public held-out ones: lengths, variety, words, labels.

    python recipes/evaluate_synthetic.py --config recipes/configs/smollm2_reviews.yaml \\
        --synthetic synthetic.jsonl

The configuration is that of the training run. With an `--encoder`, embeddings say how near they
lie to public texts, and how well a classifier that is trained on them does on real ones.
`--show_private_overlap true` also says how many synthetic texts repeat a run of words of the
training data, and `--show_private_accuracy true` how well real training records would have taught
the same classifier. Both are computed from private data without noise: they are shown on a
terminal, to their owner, and are in no file and no JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dpacc.artifacts.figure_files import format_of
from dpacc.cli import terminal
from dpacc.errors import ConfigurationError, require_local
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.settings import read_settings, setting

_USAGE = "python recipes/evaluate_synthetic.py --config FILE.yaml --synthetic FILE.jsonl [settings]"


@dataclass(frozen=True, kw_only=True)
class LikenessConfig(TrainingConfig):
    """The settings of a run, and of how its synthetic records are looked at."""

    synthetic: str = setting("File that recipes/synthesize.py wrote.")
    show_private_overlap: bool = setting(
        "Say on the terminal how many texts repeat words of the training data. Not private.",
        default=False,
    )
    show_private_accuracy: bool = setting(
        "Say on the terminal what the classifier learns from as many training records. Needs an "
        "encoder. Not private.",
        default=False,
    )
    encoder: str | None = setting(
        "Folder or hub id of a pretrained model whose mean hidden states place texts; null leaves "
        "out what needs them.",
        default=None,
    )
    private_classifier: str | None = setting(
        "File that holds what recipes/evaluate.py --as_json true said of a privately trained "
        "classifier on the same held-out data, to stand beside.",
        default=None,
    )
    picture: str | None = setting(
        "File to draw into: lengths, and both columns; a .png, .pdf or .svg that does not exist.",
        default=None,
    )
    overlap_words: int = setting("How many words in a row are a repetition.", default=8, at_least=2)
    as_json: bool = setting("Print one JSON object.", default=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.held_out_data is None:
            raise ConfigurationError("nothing to compare with: name a file with --held_out_data")
        for name in ("show_private_overlap", "show_private_accuracy"):
            if getattr(self, name) and self.as_json:
                raise ConfigurationError(
                    f"{name} is for the eyes of the data's owner, and JSON is handed on: leave one "
                    "of them out"
                )
        if self.picture is not None:
            require_local(self.picture, name="picture")
            format_of(path=Path(self.picture))
            if Path(self.picture).expanduser().exists():
                raise ConfigurationError(f"{self.picture} exists: choose a new file with --picture")
        if self.show_private_accuracy and self.encoder is None:
            raise ConfigurationError(
                "show_private_accuracy needs embeddings: name a model with --encoder"
            )


def main(arguments: Sequence[str]) -> None:
    """Read the settings, compare, and show it."""
    config = read_settings(kind=LikenessConfig, arguments=arguments, usage=_USAGE)
    # Imported here, so that a mistake in the settings is told at once.
    from dpacc.artifacts.synthetic.likeness import columns, compare

    synthetic, held_out = read(config, config.synthetic), read(config, config.held_out_data)
    require_public(config, held_out)
    found = compare(synthetic=synthetic, held_out=held_out, config=config)
    embed = embedding(config)
    if embed is not None:
        from dpacc.artifacts.synthetic.embedded_likeness import compare_embedded

        placed = compare_embedded(
            synthetic=synthetic, held_out=held_out, config=config, embed=embed
        )
        found = {name: figures | placed[name] for name, figures in found.items()}
    if config.picture is not None:
        draw(config, synthetic, held_out, found)
    if config.private_classifier is not None:
        found["a privately trained classifier"] = read_accuracy(config.private_classifier)
    if config.as_json:
        terminal.show_json(found)
        return
    terminal.show_table(
        title=Path(config.synthetic).name, columns=["", *found], rows=columns(found)
    )
    private: list[tuple[str, str]] = []
    if config.show_private_overlap:
        private += overlap(config, synthetic, held_out)
    if config.show_private_accuracy:
        private += accuracy(config, len(synthetic), held_out, embed)
    if private:
        terminal.show_facts(
            title="NOT private, for the owner's eyes: computed from private data without noise",
            facts=private,
        )


def draw(
    config: LikenessConfig,
    synthetic: list[Any],
    held_out: list[Any],
    found: dict[str, dict[str, float]],
) -> None:
    """The picture, of synthetic and public texts alone."""
    from dpacc.artifacts.run_folder import write_file
    from dpacc.artifacts.synthetic.likeness import texts_of
    from dpacc.artifacts.synthetic.picture import draw_likeness

    path = Path(config.picture or "").expanduser()
    texts = {"synthetic": synthetic, "held-out": held_out}
    drawn = draw_likeness(
        texts={name: texts_of(records=each, config=config) for name, each in texts.items()},
        figures=found,
        form=format_of(path=path),
    )
    write_file(path=path, content=drawn)


def embedding(config: LikenessConfig) -> Any:
    """Gives the embeddings of texts; None without an encoder."""
    if config.encoder is None:
        return None
    from accelerate import Accelerator

    from dpacc.artifacts.synthetic.embeddings import embed, load_encoder

    encoder = load_encoder(model=config.encoder, device=Accelerator().device)
    return lambda texts: embed(encoder=encoder, texts=texts, max_length=config.max_length)


def read(config: LikenessConfig, source: str | None, *, split: str | None = None) -> list[Any]:
    """All records of a file, which have the fields of the training data."""
    from dpacc.recipe.examples import read_held_out_records

    split = split or config.held_out_split
    alone: dict[str, Any] = {
        "held_out_data": source,
        "held_out_examples": None,
        "held_out_split": split,
        "picture": None,  # it was drawn, perhaps, and is not to be drawn again
    }
    return read_held_out_records(config=replace(config, **alone))


def require_public(config: LikenessConfig, held_out: list[Any]) -> None:
    """Refuse held-out records that stand in the training data, where that is at hand."""
    from dpacc.data.overlap import require_apart

    if Path(config.train_data).expanduser().exists():
        require_apart(
            private=private_records(config),
            held_out=held_out,
            what=f"held_out_data={config.held_out_data}",
            remedy="name other data with --held_out_data",
        )


def read_accuracy(source: str) -> dict[str, float]:
    """The accuracy that recipes/evaluate.py measured, in the row of the others."""
    from dpacc.artifacts.synthetic.embedded_likeness import TAUGHT

    try:
        said = json.loads(Path(source).expanduser().read_text(encoding="utf-8"))
        return {TAUGHT: float(said["accuracy"])}
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(
            f"private_classifier={source} holds no accuracy: give it the output of "
            "recipes/evaluate.py --as_json true for a classifier"
        ) from None


def overlap(
    config: LikenessConfig, synthetic: list[Any], held_out: list[Any]
) -> list[tuple[str, str]]:
    """How many texts repeat training data, beside public texts that nobody wrote from it."""
    from dpacc.artifacts.synthetic.likeness import repeated_ngrams, texts_of

    private = texts_of(records=private_records(config), config=config)
    return [
        (
            name,
            f"{repeated_ngrams(texts, others=private, n=config.overlap_words):.2%} hold "
            f"{config.overlap_words} words in a row that stand in the training data",
        )
        for name, texts in (
            ("synthetic", texts_of(records=synthetic, config=config)),
            ("held-out", texts_of(records=held_out, config=config)),
        )
    ]


def accuracy(
    config: LikenessConfig, records: int, held_out: list[Any], embed: Any
) -> list[tuple[str, str]]:
    """How well as many training records teach, without any privacy, what synthetic ones teach."""
    from dpacc.artifacts.synthetic.embedded_likeness import accuracy_of_training

    found = accuracy_of_training(
        training=private_records(config),
        held_out=held_out,
        config=config,
        embed=embed,
        records=records,
    )
    return [("training data", f"{found:.2%} right by a classifier trained on as many of them")]


def private_records(config: LikenessConfig) -> list[Any]:
    """The training data."""
    return read(config, config.train_data, split=config.train_split)


if __name__ == "__main__":
    with terminal.one_line_errors():
        main(sys.argv[1:])
