"""Collect what a run is worth beside what it has spent, as it goes on.

What is measured is on public data, or data that no guarantee covers. A metric of private data tells
about them exactly; it must say so, and the run's ledger says so before it is first computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from dpacc_accounting import Guarantee

from dpacc.errors import ConfigurationError
from dpacc.federated.monitoring.course import Course, Gain, Point
from dpacc.recipe.settings import Tracker

if TYPE_CHECKING:
    import plotly.graph_objects as go
    from accelerate import Accelerator
    from transformers import TrainerCallback

    from dpacc.federated.server.federated_server import FederatedServer
    from dpacc.federated.server.history import History, RoundReport
    from dpacc.trainer.private_trainer import PrivateTrainer

Metric = Callable[[Any], "float | Mapping[str, float]"]
"""From a model to a number, or to several by name."""

NOTE = "non-private-metrics"


class Engine(Protocol):
    """What charges a loop's steps: the project's `PrivacyEngine`."""

    @property
    def steps_charged(self) -> int:
        """How many steps the ledger holds."""

    def guarantee(self) -> Guarantee:
        """What they cost."""

    def note(self, *, subject: str, text: str) -> None:
        """Write to the ledger what qualifies that."""


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """One metric of the user's own."""

    measure: Metric
    is_private: bool


class UtilityMonitor:
    """Utility beside ε, per round or step, of a federation or of a run alone.

    ε comes from the ledger: of the engine that charges, or as a federation's server prices what was
    done; with its δ, adjacency, unit, method and notes.

    Args:
        name: of the run, in pictures and comparisons.
        trackers: "tensorboard", "wandb" and "trackio", which get every point.
        folder: of the run, where trackers keep files of their own; needed for them.

    Attributes:
        course: all that was collected.

    ```python
    monitor = UtilityMonitor(name="sites")

    @monitor.metric
    def accuracy(model):                                # on the server's own, public examples
        return measured(model)

    history = server.train(clients=clients, measure=monitor.measure,
                           on_round=monitor.for_server(server))
    monitor.marginal_gains("accuracy")                  # per ε, between rounds
    monitor.draw("privacy_utility.svg", metric="accuracy")
    ```
    """

    def __init__(
        self,
        *,
        name: str = "run",
        trackers: Sequence[Tracker] = (),
        folder: Path | str | None = None,
    ) -> None:
        self.course = Course(name=name)
        self._metrics: dict[str, _Measured] = {}
        self._noted: list[tuple[Engine, str]] = []
        self._accelerator: Accelerator | None = None
        if trackers:
            if folder is None:
                raise ConfigurationError(
                    f"trackers={','.join(trackers)} need folder=, where they keep their files"
                )
            self._accelerator = _begun(trackers, Path(folder))

    # --- what is measured ---------------------------------------------------------------------

    def metric(
        self,
        measure: Metric | None = None,
        *,
        name: str | None = None,
        falling: bool = False,
        is_private: bool = False,
    ) -> Any:
        """Decorate a function of the model: it is measured at every point.

        Args:
            measure: from the model to a number, or several by name; with nothing but this, the
                bare decorator.
            name: of the metric; by default the function's.
            falling: whether less of it is better, as of perplexity.
            is_private: whether it looks at private data. The ledger then says so before it does.

        Raises:
            ConfigurationError: two metrics of one name.
        """

        def enlist(function: Metric) -> Metric:
            called = name or str(getattr(function, "__name__", "metric"))
            if called in self._metrics:
                raise ConfigurationError(f"there are two metrics {called!r}: give one another name")
            self._metrics[called] = _Measured(measure=function, is_private=is_private)
            if falling:
                self.course.falling |= {called}
            return function

        return enlist if measure is None else enlist(measure)

    def measure(self, model: Any) -> dict[str, float]:
        """All public metrics of a model: `measure=` of a federation's server.

        Raises:
            ConfigurationError: a metric is of private data, of which this knows no ledger.
        """
        private = [name for name, each in self._metrics.items() if each.is_private]
        if private:
            raise ConfigurationError(
                f"{', '.join(private)} look at private data, and a federation's server keeps no "
                "ledger that could say so: measure on public data, or watch a run by its engine"
            )
        return self._measured(model)

    # --- where it is called from --------------------------------------------------------------

    def for_server(self, server: FederatedServer) -> Callable[[RoundReport], None]:
        """`on_round=` of a federation's server: a point after each round, and one before the first.

        What the rounds measured is taken as it is: give `measure=monitor.measure` as well.
        """

        def on_round(report: RoundReport) -> None:
            history = server.history
            if not self.course.points and history.start_quality:
                self.record(step=0, guarantee=None, metrics=history.start_quality)
            stated = priced(history)
            self.record(step=report.number, guarantee=stated, metrics=report.quality)

        return on_round

    def observe(
        self, *, engine: Engine, model: Any, besides: Mapping[str, float] | None = None
    ) -> Point:
        """A point of a loop of one's own: call it after `step.update()`, or before the first.

        Args:
            engine: what charges the steps.
            model: what is measured.
            besides: what was measured already, on data that no guarantee covers.
        """
        qualified = any(each.is_private for each in self._metrics.values())
        self.note_private(engine)
        spent = engine.guarantee() if engine.steps_charged or qualified else None
        found = {**(besides or {}), **self._measured(model)}
        return self.record(step=engine.steps_charged, guarantee=spent, metrics=found)

    def for_trainer(self, trainer: PrivateTrainer) -> TrainerCallback:
        """A callback for `trainer.add_callback`: a point whenever it evaluates."""
        from dpacc.federated.monitoring.trainer_callback import EvaluationPoints

        return EvaluationPoints(trainer=trainer, note=self.note_private, observe=self.observe)

    def record(
        self, *, step: int, guarantee: Guarantee | None, metrics: Mapping[str, float]
    ) -> Point:
        """A point, as it is given.

        Args:
            step: of the run.
            guarantee: what was spent by then, as its ledger says; None if nothing was.
            metrics: what was measured, by name.
        """
        numbers = {str(name): float(value) for name, value in metrics.items()}
        point = Point(step=step, guarantee=guarantee, metrics=numbers)
        self.course.points.append(point)
        if self._accelerator is not None:
            spent = {"epsilon": 0.0} if guarantee is None else guarantee.figures()
            self._accelerator.log({**spent, **numbers}, step=step)
        return point

    def note_private(self, engine: Engine) -> None:
        """Have the ledger say which metrics look at private data, before they do."""
        for name, each in self._metrics.items():
            told = any(known is engine and name == of for known, of in self._noted)
            if each.is_private and not told:
                text = f"{name}, computed from private data without noise, was recorded"
                engine.note(subject=NOTE, text=text)
                self._noted.append((engine, name))

    # --- what came of it ----------------------------------------------------------------------

    @property
    def points(self) -> list[Point]:
        """All points, in order."""
        return self.course.points

    def marginal_gains(self, metric: str) -> list[Gain]:
        """What each further ε brought; see `Course.marginal_gains`."""
        return self.course.marginal_gains(metric)

    def draw(self, path: Path | str, *, metric: str) -> None:
        """Write the privacy-utility curve as .png, .svg or .pdf."""
        from dpacc.artifacts.figure_files import format_of
        from dpacc.artifacts.run_folder import write_file
        from dpacc.federated.monitoring.curve import draw_curve

        form = format_of(path=Path(path))
        content = draw_curve(courses=[self.course], metric=metric, form=form)
        write_file(path=Path(path), content=content)

    def figure(self, *, metric: str) -> go.Figure:
        """The same as a Plotly figure, for a browser."""
        from dpacc.federated.monitoring.live_curve import live_curve

        return live_curve(courses=[self.course], metric=metric)

    def close(self) -> None:
        """End the trackers that this began."""
        if self._accelerator is not None:
            self._accelerator.end_training()
            self._accelerator = None

    def _measured(self, model: Any) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, each in self._metrics.items():
            value = each.measure(model)
            named = value if isinstance(value, Mapping) else {name: value}
            found |= {str(of): float(number) for of, number in named.items()}
        return found


def priced(history: History) -> Guarantee | None:
    """The largest ε of a client, or that of the released models where whole clients are the unit.

    None while no client's update has left.
    """
    if not history.is_priced:
        return None
    found = history.guarantee()
    worst = found.worst_released.released if found.level == "client" else found.worst_server.server
    return worst.noted(found.told)


def _begun(trackers: Sequence[Tracker], folder: Path) -> Accelerator:
    from dpacc.ranks.collectives import join_ranks
    from dpacc.recipe.trackers import start_trackers

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    accelerator = join_ranks()
    start_trackers(
        accelerator=accelerator, names=trackers, folder=folder, project="dpacc", settings={}
    )
    return accelerator
