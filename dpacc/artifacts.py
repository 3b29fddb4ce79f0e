"""What a run leaves in a folder: the adapter, the proof, the card and the picture.

Nothing here is computed from private data without noise. Each file appears whole or not at all.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpacc_accounting import read_ledger, statement
from dpacc_accounting.record import LedgerError
from safetensors import SafetensorError

from dpacc.chart import Measurement, draw_progress
from dpacc.checkpoint import cannot_write, write_durably
from dpacc.config import TrainingConfig
from dpacc.errors import ConfigurationError
from dpacc.model_card import write_card
from dpacc.settings import require_local

if TYPE_CHECKING:
    from dpacc_accounting import Guarantee
    from peft import PeftModel

    from dpacc.plan import PrivacyPlan

PICTURE = "privacy_utility.png"
_HEADING = "# Privacy statement"
_BEGUN: list[Path] = []


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
    try:
        records = [read_ledger(path=path) for path in folder.rglob("*.jsonl")]
    except LedgerError:
        return False
    return not any(record.releases for record in records)


def save_run(
    *,
    folder: Path,
    model: PeftModel,
    config: TrainingConfig,
    plan: PrivacyPlan,
    guarantee: Guarantee,
    statement: str,
    ledger_head: str,
    measurements: Sequence[Measurement],
) -> None:
    """Write the adapter, `privacy.json`, the model card and the picture into `folder`.

    For the main process alone.

    Args:
        folder: what [`new_run_folder`][dpacc.artifacts.new_run_folder] returned.
        model: the trained PEFT model.
        config: what the run was told.
        plan: what was promised.
        guarantee: what was spent.
        statement: the guarantee in words, in Markdown.
        ledger_head: hash of the ledger's last line, by which a shortened ledger is noticed.
        measurements: where the run stood, in order of steps.
    """
    proof = privacy_document(
        plan=plan, guarantee=guarantee, ledger="ledger.jsonl", ledger_head=ledger_head
    )
    picture = draw_progress(
        measurements=measurements, target_epsilon=plan.target_epsilon, title=config.name
    )
    card = write_card(
        config=config, statement=statement, measurements=measurements, picture=PICTURE
    )
    save_adapter(model=model, folder=folder)
    write_file(path=folder / "privacy.json", content=proof)
    write_file(path=folder / PICTURE, content=picture)
    write_file(path=folder / "README.md", content=card.encode())


def privacy_document(
    *, plan: PrivacyPlan, guarantee: Guarantee, ledger: str, ledger_head: str
) -> bytes:
    """`privacy.json`: the guarantee, and what it rests on, for machines."""
    return _json(
        {
            "dpacc": version("dpacc"),
            "guarantee": guarantee.to_json(),
            "plan": plan.to_json(),
            "ledger": {"file": ledger, "head": ledger_head},
        }
    )


def state_privacy(*, folder: Path, plan: PrivacyPlan, ledger: Path) -> None:
    """Write `privacy.json`, and the statement at the end of the model card in `folder`.

    Both speak of the releases up to now, on which whatever lies there rests.

    Args:
        folder: where adapters were saved.
        plan: what was promised.
        ledger: what was released.
    """
    record = read_ledger(path=ledger)
    guarantee = plan.guarantee(steps=len(record.releases))
    document = privacy_document(
        plan=plan, guarantee=guarantee, ledger=ledger.name, ledger_head=record.head
    )
    write_file(path=folder / "privacy.json", content=document)
    card = folder / "README.md"
    words = card.read_text(encoding="utf-8") if card.exists() else ""
    kept = words.partition(f"\n{_HEADING}")[0].rstrip()
    claim = statement(plan=record.plan, record=record, guarantee=guarantee)
    write_file(path=card, content=f"{kept}\n\n{claim}\n".lstrip().encode())


def save_adapter(*, model: PeftModel, folder: Path) -> None:
    """Write the adapter's weights and configuration, as `PeftModel.from_pretrained` reads them."""
    scratch = folder / ".adapter.partial"
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        # Embeddings are never trained here; looking for changed ones would ask the hub.
        model.save_pretrained(scratch, save_embedding_layers=False)
        for file in scratch.iterdir():
            file.replace(folder / file.name)
    except (OSError, SafetensorError) as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def write_file(*, path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all."""
    scratch = path.with_name(f".{path.name}.partial")
    try:
        write_durably(scratch, content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


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


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
