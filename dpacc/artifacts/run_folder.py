"""What a run leaves in a folder: the adapter, the proof, the card and the picture.

Nothing here is computed from private data without noise. Each file appears whole or not at all.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dpacc_accounting import read_ledger, statement
from dpacc_accounting.ledger.claims import claim_of
from dpacc_accounting.ledger.disk import replace_durably
from dpacc_accounting.ledger.record import LedgerError
from dpacc_accounting.ledger.writer import record_saved
from safetensors import SafetensorError

from dpacc.artifacts.kept.base_weights import weights_checksum
from dpacc.artifacts.kept.metrics import METRICS_FILE
from dpacc.artifacts.kept.run_settings import CONFIG_FILE, settings_document
from dpacc.artifacts.model_card import shown_settings, write_card
from dpacc.artifacts.progress_chart import Measurement, draw_progress
from dpacc.artifacts.proof import (
    RUN_FILE,
    adapter_checksums,
    checksums,
    privacy_document,
    run_document,
)
from dpacc.errors import ConfigurationError, cannot_write, disk_refusals_told, require_local
from dpacc.recipe.config import TrainingConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from dpacc.step.run_ledger import RunLedger

PICTURE = "privacy_utility.png"
_HEADING = "# Privacy statement"
_BEGUN: list[Path] = []


def own_folder(path: Path | str) -> None:
    """Make a folder that only its owner may enter; one that is there stays as it is."""
    Path(path).expanduser().mkdir(mode=0o700, parents=True, exist_ok=True)


def new_run_folder(*, output_dir: str | Path, name: str) -> Path:
    """Create `output_dir/name`, or `name-2`, `name-3`, … where it exists; only its owner may enter.

    For the main process alone: another rank's call would make a folder of its own.

    Raises:
        ConfigurationError: the folder cannot be created.
    """
    require_local(output_dir, name="output_dir")
    parent = Path(output_dir).expanduser()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = _first_free(parent, name)
    except OSError as error:
        raise ConfigurationError(
            f"cannot create a folder in output_dir={output_dir}: {error.strerror}; "
            "choose another with --output_dir"
        ) from error
    _BEGUN.append(folder)
    return folder


@contextmanager
def unspent_folders_removed() -> Iterator[None]:
    """Remove the folders that runs begin inside it, if an error ends it before any is charged."""
    _BEGUN.clear()
    try:
        yield
    except BaseException:
        for folder in filter(_is_unspent, _BEGUN):
            shutil.rmtree(folder, ignore_errors=True)
            # The folder of all runs too, if this was to be the first.
            with suppress(OSError):
                folder.parent.rmdir()
        raise


def _is_unspent(folder: Path) -> bool:
    """Whether every ledger in a run's folder, its clients' too, is readable and empty."""
    ledgers = (path for path in folder.rglob("*.jsonl") if path.name != METRICS_FILE)
    try:
        records = [read_ledger(path=path) for path in ledgers]
    except LedgerError:
        return False
    return not any(record.releases for record in records)


def save_run(
    *,
    folder: Path,
    model: PeftModel,
    config: TrainingConfig,
    ledger: Path,
    measurements: Sequence[Measurement],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Write all that the adapter is used by, and all that speaks for it, into `folder`.

    The adapter with tokenizer and configuration; `privacy.json`, `run.json`, card and picture.

    For the main process alone.

    Args:
        folder: what [`new_run_folder`][dpacc.artifacts.run_folder.new_run_folder] returned.
        model: the trained PEFT model.
        config: what the run was told.
        ledger: what was released, closed; everything that is stated comes from it, and it is told
            which adapter was saved.
        measurements: where the run stood, in order of steps.
        tokenizer: what the texts were read with.

    Raises:
        LedgerError: the ledger cannot be read or written.
    """
    save_adapter(model=model, folder=folder)
    write_file(path=folder / CONFIG_FILE, content=settings_document(config=config))
    companions = {CONFIG_FILE, *_save_tokenizer(tokenizer, folder)}
    companions |= {METRICS_FILE} if (folder / METRICS_FILE).is_file() else set()
    record_saved(ledger=ledger, files=adapter_checksums(folder=folder))
    record = read_ledger(path=ledger)
    picture = draw_progress(
        measurements=measurements,
        target_epsilon=record.plan.get("target_epsilon"),
        title=config.name,
        guarantee=claim_of(plan=record.plan, record=record),
    )
    card = write_card(
        config=config,
        statement=statement(plan=record.plan, record=record),
        measurements=measurements,
        picture=PICTURE,
    )
    write_file(
        path=folder / "privacy.json",
        content=privacy_document(
            record=record,
            ledger=ledger.name,
            files=checksums(folder=folder, names=companions),
            base_weights=weights_checksum(model=config.model),
        ),
    )
    told = {"task": config.task, "model": config.model} | shown_settings(config)
    course = run_document(settings=told, course=measurements)
    write_file(path=folder / RUN_FILE, content=course)
    write_file(path=folder / PICTURE, content=picture)
    write_file(path=folder / "README.md", content=card.encode())


def state_privacy(*, folder: Path, run_ledger: RunLedger) -> None:
    """Write `privacy.json`, and the statement at the end of the model card in `folder`.

    Both speak of the releases up to now, on which whatever lies there rests. For the main process
    alone.

    Args:
        folder: where adapters were saved.
        run_ledger: the run's ledger, which is told what was saved.
    """
    run_ledger.record_saved(files=adapter_checksums(folder=folder))
    record = read_ledger(path=run_ledger.path)
    document = privacy_document(record=record, ledger=run_ledger.path.name)
    write_file(path=folder / "privacy.json", content=document)
    card = folder / "README.md"
    words = card.read_text(encoding="utf-8") if card.exists() else ""
    kept = words.partition(f"\n{_HEADING}")[0].rstrip()
    claim = statement(plan=record.plan, record=record)
    write_file(path=card, content=f"{kept}\n\n{claim}\n".lstrip().encode())


def save_adapter(*, model: PeftModel, folder: Path) -> None:
    """Write the adapter's weights and configuration, as `PeftModel.from_pretrained` reads them."""
    # Embeddings are never trained here; looking for changed ones would ask the hub.
    _save_whole(folder, partial(model.save_pretrained, save_embedding_layers=False))


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[str]:
    return _save_whole(folder, tokenizer.save_pretrained)


def _save_whole(folder: Path, save: Callable[[Path], object]) -> list[str]:
    """What `save` writes, each file whole or not at all, and the names of the files."""
    scratch = folder / ".saved.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        save(scratch)
        files = sorted(scratch.iterdir())
        for file in files:
            file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return [file.name for file in files]


def write_file(*, path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    with disk_refusals_told(path):
        replace_durably(path=path, content=content)


def _first_free(parent: Path, name: str) -> Path:
    number = 1
    while True:
        folder = parent / (name if number == 1 else f"{name}-{number}")
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            number += 1
        else:
            return folder
