"""A finished adapter on its base, asked how likely it finds texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc.data.supervision import Example, tokenize_examples
from dpacc.errors import ConfigurationError
from dpacc.recipe.evaluation import losses_of_texts
from dpacc.recipe.examples import pad_examples
from dpacc.recipe.models import load_base

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from dpacc.audit.verdict import Scores


class FinishedAdapter:
    """The folder of a run, loaded for attacks.

    Args:
        folder: holds `adapter_config.json`.
        model: the base; by default the one that the adapter names.
        max_length: tokens read of each text.

    Raises:
        ConfigurationError: there is no adapter, or its base cannot be read.
    """

    def __init__(self, folder: Path, *, model: str | None = None, max_length: int = 512) -> None:
        from peft import PeftConfig, PeftModel

        try:
            named = PeftConfig.from_pretrained(str(folder)).base_model_name_or_path
        except (ValueError, OSError):
            raise ConfigurationError(
                f"{folder} holds no adapter (adapter_config.json); give a run's folder"
            ) from None
        base = load_base(model=model or named)
        self._tokenizer: PreTrainedTokenizerBase = base.tokenizer
        self._model: PeftModel = PeftModel.from_pretrained(base.model, str(folder))
        self._max_length = max_length

    def losses(self, texts: Sequence[str]) -> Scores:
        """[n], each text's mean loss over its tokens with the adapter."""
        return self._losses(self._tokenized(texts))

    def gains(self, texts: Sequence[str]) -> Scores:
        """[n], how far the adapter lowers each text's loss below the base model's.

        The base takes out how hard a text is, which otherwise hides who was trained on.
        """
        examples = self._tokenized(texts)
        with self._model.disable_adapter():
            before = self._losses(examples)
        return before - self._losses(examples)

    def _tokenized(self, texts: Sequence[str]) -> list[Example]:
        return tokenize_examples(
            records=[{"text": text} for text in texts],
            tokenizer=self._tokenizer,
            max_length=self._max_length,
        )

    def _losses(self, examples: Sequence[Example]) -> Scores:
        pad = partial(pad_examples, pad_token_id=self._tokenizer.pad_token_id)
        return losses_of_texts(model=self._model, examples=examples, collate=pad)
