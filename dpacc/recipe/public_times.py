"""Times that reports may show: how long a step takes follows how many examples it drew.

TensorBoard, Weights & Biases and trackio stamp every figure with the moment at which it was logged.
Here they stamp it with the start of the run and one second a step, and neither sample the machine
nor keep what is printed. What they cannot be told stays in the hands of whoever watches a run live:
moments at which lines arrive, files grow, or steps end.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from accelerate import Accelerator

from dpacc.errors import ConfigurationError

TRAINING_TIMES = frozenset({"train_runtime", "train_samples_per_second", "train_steps_per_second"})
"""What transformers reports of a training's duration."""

COMPUTED_WITHOUT_NOISE = TRAINING_TIMES | {"loss", "grad_norm", "train_loss", "total_flos"}
"""What it reports of private examples, those times among it."""

WANDB_QUIET = {"x_disable_stats": True, "console": "off"}
"""Settings of Weights & Biases: no samples of the machine, no printed lines with their moments."""

TRACKIO_QUIET = {"auto_log_cpu": False, "auto_log_gpu": False}
"""Options of trackio's `init`: no samples of the machine."""

_DATED = "_dpacc_dated_by_steps"


def date_trackers(accelerator: Accelerator) -> None:
    """Let the trackers that `accelerator` has begun date what they log by its step."""
    for tracker in accelerator.trackers:
        if tracker.name == "tensorboard":
            date_events(tracker.writer)
        elif tracker.name == "wandb" and tracker.tracker is not None:
            date_history(tracker.tracker)
        elif tracker.name == "trackio" and accelerator.is_main_process:
            date_rows(tracker.tracker)


def quiet_reports(callbacks: Iterable[Any]) -> None:
    """Let those of a Trainer's callbacks that begin such runs begin them as here described."""
    for callback in callbacks:
        for name, kind in (("_wandb", _QuietWandb), ("_trackio", _QuietTrackio)):
            library = getattr(callback, name, None)
            if library is not None and not isinstance(library, _Quiet):
                setattr(callback, name, kind(library))


def date_reports(callbacks: Iterable[Any]) -> None:
    """Let those of a Trainer's callbacks that write event files date what they log by its step."""
    for callback in callbacks:
        writer = getattr(callback, "tb_writer", None)
        if writer is not None:
            date_events(writer)


class _Quiet:
    """A tracker's library, as its callback sees it, with runs that are begun otherwise."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._require_quiet()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._library, name)

    def _require_quiet(self) -> None:
        """Refuse what the callback would go on with and nobody can change any more."""


class _QuietWandb(_Quiet):
    def init(self, *rest: Any, **given: Any) -> Any:
        run = self._library.init(*rest, **given | {"settings": WANDB_QUIET})
        date_history(run)
        return run

    def log(self, *rest: Any, **given: Any) -> None:
        # The library's own function is the run's as it was when the run was begun.
        self._library.run.log(*rest, **given)

    def _require_quiet(self) -> None:
        run = self._library.run
        if run is None or run.settings.mode == "disabled":
            return
        if not (run.settings.x_disable_stats and run.settings.console == "off"):
            raise ConfigurationError(
                "the W&B run that was begun samples the machine, whose memory follows the private "
                "batch, or keeps printed lines with their moments; finish it, or begin it with "
                "settings=wandb.Settings(x_disable_stats=True, console='off')"
            )
        date_history(run)


class _QuietTrackio(_Quiet):
    def init(self, *rest: Any, **given: Any) -> Any:
        refuse_remote_trackio(given.get("space_id"))
        run = self._library.init(*rest, **given | TRACKIO_QUIET)
        date_rows(run)
        return run


def refuse_remote_trackio(space: str | None = None) -> None:
    """Refuse to send rows elsewhere while the run goes on, where they are stamped on arrival.

    Args:
        space: of the hub, where the environment names none.

    Raises:
        ConfigurationError: they would go to a Space or a server.
    """
    named = {"trackio_space_id": space} | {
        name: os.environ.get(name) for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL")
    }
    for name, value in named.items():
        if value:
            raise ConfigurationError(
                f"{name}={value} dates trackio's rows by when they arrive, and so by how many "
                "examples a step drew; leave it out, and send the finished run with trackio sync"
            )


def date_events(writer: Any) -> None:
    """Let a TensorBoard writer date every event by its step; a second call does nothing."""
    file = writer._get_file_writer()
    if getattr(file.add_event, _DATED, False):
        return
    begun, add_event = time.time(), file.add_event

    def add(event: Any, step: int | None = None, walltime: float | None = None) -> None:
        add_event(event, step, begun + (step or 0))

    setattr(add, _DATED, True)
    file.add_event = add


def date_history(run: Any) -> None:
    """Let a Weights & Biases run date every row by its step; a second call does nothing.

    Raises:
        ConfigurationError: this version's stopwatch, which times rows too, cannot be stopped.
    """
    if getattr(run.log, _DATED, False) or run.settings.mode == "disabled":
        return
    _stop_watch(run)
    begun, log = time.time(), run.log

    def dated(data: dict[str, Any], step: int | None = None, *rest: Any, **options: Any) -> None:
        at = step if step is not None else data.get("train/global_step", 0)
        log({**data, "_timestamp": begun + at}, step, *rest, **options)

    setattr(dated, _DATED, True)
    run.log = dated


def _stop_watch(run: Any) -> None:
    """Whatever a row says of itself, it is also given the time that the run has taken so far."""
    interface = getattr(run, "_interface", None) or getattr(
        getattr(run, "_backend", None), "interface", None
    )
    if interface is None:
        raise ConfigurationError(
            "this version of wandb times each row by a watch that cannot be stopped; install "
            "wandb==0.31, or report to tensorboard or trackio"
        )
    interface.publish_pause()


def date_rows(run: Any) -> None:
    """Let a trackio run on this machine date every row, and its configuration, by its step.

    Raises:
        ConfigurationError: this version of trackio writes its rows in another way.
    """
    write = getattr(run, "_write_logs_to_sqlite", None)
    if write is None:
        raise ConfigurationError(
            "this version of trackio cannot be told when a row was logged; install trackio==0.43, "
            "or report to tensorboard or wandb"
        )
    begun = time.time()

    def dated(logs: list[dict[str, Any]]) -> None:
        at = [log["metrics"].get("train/global_step", log["step"]) for log in logs]
        moments = [datetime.fromtimestamp(begun + step, UTC).isoformat() for step in at]
        if run._storage_mode == "jsonl":
            write([log | {"timestamp": moment} for log, moment in zip(logs, moments, strict=True)])
        else:
            _store_rows(run, logs, moments)
            _date_config(run, datetime.fromtimestamp(begun, UTC).isoformat())

    run._write_logs_to_sqlite = dated


def _store_rows(run: Any, logs: list[dict[str, Any]], moments: list[str]) -> None:
    from trackio.sqlite_storage import SQLiteStorage

    SQLiteStorage.bulk_log(
        project=run.project,
        run=run.name,
        run_id=run.id,
        metrics_list=[log["metrics"] for log in logs],
        steps=[log["step"] for log in logs],
        timestamps=moments,
        config=next((log["config"] for log in logs if log["config"]), None),
        log_ids=[log["log_id"] for log in logs],
    )


def _date_config(run: Any, begun: str) -> None:
    """The first rows, which it is written with, come half a second after the first step."""
    from trackio.sqlite_storage import SQLiteStorage

    with (
        SQLiteStorage._get_process_lock(run.project),
        SQLiteStorage._get_connection(SQLiteStorage.get_project_db_path(run.project)) as base,
    ):
        base.execute("UPDATE configs SET created_at = ? WHERE run_id = ?", (begun, run.id))
        base.commit()
