"""Upload a finished run to the hub, when asked: what its card speaks of, kept private there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dpacc.artifacts.proof import RUN_FILE
from dpacc.artifacts.run_folder import PICTURE
from dpacc.errors import ConfigurationError, DpaccError

PUBLISHED = (
    "adapter_config.json",
    "adapter_model.safetensors",
    "README.md",
    "privacy.json",
    "ledger.jsonl",
    RUN_FILE,
    PICTURE,
)
"""Nothing else of a run's folder is for others: checkpoints, journals and trackers' files stay."""


def reserve_repository(repository: str) -> None:
    """Make the repository, private if it is new, before a run spends anything for it.

    Raises:
        ConfigurationError: the hub does not let us.
    """
    from huggingface_hub import HfApi

    failure = _failure_of(lambda: HfApi().create_repo(repository, private=True, exist_ok=True))
    if failure is not None:
        raise ConfigurationError(
            f"push_to_hub={repository} cannot be written to: {failure}; log in with `hf auth "
            "login`, or leave it out"
        )


def upload_run(*, folder: Path, repository: str, files: Sequence[str] | None = PUBLISHED) -> None:
    """Upload the adapter of `folder`, with its card, proof and ledger.

    Args:
        folder: what a run left, or a merged model.
        repository: owner/name.
        files: names of what is uploaded; None is everything.

    Raises:
        DpaccError: it could not be uploaded; the folder is as it was.
    """
    from huggingface_hub import HfApi

    failure = _failure_of(
        lambda: HfApi().upload_folder(
            repo_id=repository,
            folder_path=folder,
            allow_patterns=None if files is None else list(files),
        )
    )
    if failure is not None:
        command = ["hf", "upload", repository, str(folder)]
        command += [f"--include {name}" for name in files or ()]
        raise DpaccError(
            f"the run is saved in {folder}, and its upload failed: {failure}; try again with "
            f"`{' '.join(command)}`"
        )


def _failure_of(action: Callable[[], object]) -> str | None:
    """What went wrong, in one line; the network and the hub have many classes of errors."""
    try:
        action()
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return None
