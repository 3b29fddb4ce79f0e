"""Mistakes in foreign chats, and in what is said or written beside a run's adapter, and when."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_REPORTS = f"{DPACC}/trainer/test_trainer_reports.py"
_WANDB = (
    f"{_REPORTS}::test_wandb_gets_rows_dated_by_their_steps_and_no_load_nor_line_of_the_machine"
)
_TRACKIO = f"{_REPORTS}::test_trackio_gets_rows_dated_by_their_steps_and_no_load_of_the_machine"
_FEDERATION = (
    f"{DPACC}/artifacts/test_written_files.py::test_what_a_federation_keeps_is_known_and_its_owners"
)
_REFUSED = f"{DPACC}/trainer/test_refused_trackers.py"

TIMES_BUGS = (
    Bug(
        "prompt's assistant learned",
        "the assistant's turns in a prompt of messages are learned with its completion",
        (Patch("dpacc.data.chats", '{**message, "weight": 0} for', "{**message} for"),),
        (
            f"{DPACC}/recipe/test_examples.py::test_a_prompt_and_a_completion_of_messages_are_one_chat",
        ),
    ),
    Bug(
        "steps timed in trackio",
        "trackio's rows say when they were logged, which follows how many examples a step drew",
        (Patch("dpacc.recipe.public_times", "    run._write_logs_to_sqlite = dated\n", ""),),
        (f"{_TRACKIO}[sqlite]", f"{_TRACKIO}[jsonl]"),
    ),
    Bug(
        "steps timed in a notebook",
        "a notebook, which is saved and passed on, says how fast private steps went",
        (
            Patch(
                "dpacc.cli.terminal",
                "            self._cell.show(done=done, words=line)",
                '            self._cell.show(done=done, words=f"{line}  {self._rate(done)}")',
            ),
        ),
        ("tests/cli/test_notebook.py::test_a_notebook_is_told_no_times",),
    ),
    Bug(
        "steps timed through wandb's module",
        "the Trainer's callback logs past the run whose rows are dated",
        (
            Patch(
                "dpacc.recipe.public_times",
                "        self._library.run.log(*rest, **given)",
                "        self._library.log(*rest, **given)",
            ),
        ),
        (_WANDB,),
    ),
    Bug(
        "wandb's watch runs",
        "beside its date, each row says how long the run has taken so far",
        (Patch("dpacc.recipe.public_times", "    _stop_watch(run)\n", ""),),
        (_WANDB,),
    ),
    Bug(
        "printed lines timed",
        "Weights & Biases keeps when each line was printed",
        (Patch("dpacc.recipe.public_times", ', "console": "off"}', "}"),),
        (_WANDB,),
    ),
    Bug(
        "other trackers pass",
        "a tracker dates its rows by when steps ended",
        (
            Patch(
                "dpacc.trainer.refused_trackers",
                "if name in DATED_BY_STEP or log_non_private_metrics:",
                "if True:",
            ),
        ),
        (f"{_REFUSED}::test_what_is_refused_as_an_option_is_refused_as_a_callback",),
    ),
    Bug(
        "energy passes",
        "a report says how much energy steps took, which follows how many examples they drew",
        (Patch("dpacc.trainer.refused_trackers", '= "codecarbon"', '= ""'),),
        (f"{_REFUSED}::test_who_logs_losses_anyway_may_report_anywhere_but_energy",),
    ),
    Bug(
        "rows sent as they come",
        "a Space or a server stamps trackio's rows when they arrive",
        (Patch("dpacc.recipe.trackers", "        refuse_remote_trackio()\n", "        pass\n"),),
        (
            f"{DPACC}/recipe/test_trackers.py::"
            "test_trackio_is_refused_where_another_machine_dates_its_rows",
        ),
    ),
    Bug(
        "sums readable",
        "others on a client's machine read in which rounds it took part",
        (
            Patch(
                "dpacc.federated.secure_sum.rounds_summed",
                "os.O_APPEND, 0o600",
                "os.O_APPEND, 0o644",
            ),
        ),
        (_FEDERATION,),
    ),
    Bug(
        "files readable",
        "others on the machine read who took part, in a folder that was there before",
        (Patch("dpacc_accounting.ledger.disk", "os.O_TRUNC, 0o600", "os.O_TRUNC, 0o644"),),
        (_FEDERATION,),
    ),
)
