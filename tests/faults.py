"""What machines do to a run, what happens then, and the test that shows it.

python -m tests.faults      writes the table in docs/assurance.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs/assurance.md"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
RECIPE = "tests/recipes/test_faults.py"
RESUMPTION = "tests/dpacc/step/test_resumption.py"
RANKS = "tests/dpacc/ranks/test_collectives.py"
LEDGER = "tests/accounting/ledger/test_ledger_endurance.py"
SERVER = "tests/dpacc/federated/server/test_federated_server.py"
TORN = "tests/dpacc/federated/test_torn_files.py"
CENTRAL = "tests/dpacc/federated/aggregation/test_central_noise.py"


@dataclass(frozen=True)
class Fault:
    """One fault, what comes of it, and where that is seen."""

    name: str
    outcome: str
    file: str
    test: str


FULL_DISK = "test_a_full_disk_stops_the_run_in_one_line_and_a_resume_goes_on"
BIT = "test_a_flipped_bit_is_found_wherever_it_is"
ONE_LINE = "one line; with room again, `--resume` finishes"
RESTORED = "one line names the file; restored, the run goes on"

FAULTS = (
    Fault("disk full as the ledger is opened", ONE_LINE, RECIPE, FULL_DISK),
    Fault("disk full at a charge", "no step without its charge; " + ONE_LINE, RECIPE, FULL_DISK),
    Fault("disk full at the journal", "the step stays charged; " + ONE_LINE, RECIPE, FULL_DISK),
    Fault("disk full at a checkpoint", ONE_LINE, RECIPE, FULL_DISK),
    Fault("disk full as the adapter is saved", ONE_LINE, RECIPE, FULL_DISK),
    Fault("disk full as the proof is saved", ONE_LINE, RECIPE, FULL_DISK),
    Fault(
        "half a line written, then the disk fails",
        "the half is taken back; the ledger is as before",
        LEDGER,
        "test_a_full_disk_charges_nothing",
    ),
    Fault(
        "the disk refuses even that",
        "later charges are refused; the half line reads as torn",
        LEDGER,
        "test_where_even_truncating_fails_the_ledger_stops",
    ),
    Fault(
        "read-only folder of runs, or of the run",
        "one line; nothing is written or charged",
        RECIPE,
        "test_a_read_only_folder_is_told_in_one_line",
    ),
    Fault(
        "torn ledger",
        "goes on behind its last whole line",
        RECIPE,
        "test_a_torn_ledger_goes_on_behind_its_last_whole_line",
    ),
    Fault("flipped bit in the ledger", RESTORED, RECIPE, BIT),
    Fault("flipped bit in a checkpoint's state", RESTORED, RECIPE, BIT),
    Fault("flipped bit in a checkpoint's tensors", RESTORED, RECIPE, BIT),
    Fault("flipped bit in the journal", RESTORED, RECIPE, BIT),
    Fault(
        "checkpoint cut short, or a file of it missing",
        "one line names it",
        RESUMPTION,
        "test_a_damaged_checkpoint_is_refused_in_one_line",
    ),
    Fault(
        "a rank's part of a checkpoint damaged",
        "one line names rank and file",
        RESUMPTION,
        "test_a_damaged_part_is_refused",
    ),
    Fault(
        "checkpoints lost",
        "one line; charged steps are not taken for a beginning",
        RECIPE,
        "test_lost_checkpoints_are_told_in_one_line",
    ),
    Fault(
        "ledger shortened",
        "refused: more was released than it holds",
        RESUMPTION,
        "test_a_shortened_ledger_is_refused",
    ),
    Fault(
        "another run's ledger or checkpoints",
        "refused by name",
        RESUMPTION,
        "test_another_runs_checkpoints_are_refused",
    ),
    Fault(
        "ledger deleted while the run goes on",
        "the next step is not taken; put back, the run goes on",
        RECIPE,
        "test_a_ledger_that_disappears_stops_the_run",
    ),
    Fault(
        "torn or garbled configuration",
        "one line; nothing is written",
        RECIPE,
        "test_a_broken_configuration_is_told_in_one_line",
    ),
    Fault(
        "killed anywhere in a step or a checkpoint",
        "at most the step in flight is lost, and stays charged",
        RESUMPTION,
        "test_a_killed_run_resumes_and_ends_where_it_would_have",
    ),
    Fault(
        "killed between the last step and saving",
        "a resume saves the same adapter without a step",
        RESUMPTION,
        "test_a_finished_run_that_died_before_saving_can_still_be_saved",
    ),
    Fault(
        "a rank killed amid a collective",
        "the other stops in one line; the books are true",
        RANKS,
        "test_a_rank_that_is_gone_stops_the_other",
    ),
    Fault(
        "a rank stopped (SIGSTOP) amid a collective",
        "the other stops in one line when its patience ends",
        RANKS,
        "test_a_rank_that_is_gone_stops_the_other",
    ),
    Fault(
        "ranks with other data or code",
        "all stop before the first step",
        RANKS,
        "test_ranks_that_disagree_stop_before_the_first_step",
    ),
    Fault(
        "clock jumps by a year, files from the future",
        "nothing changes",
        RECIPE,
        "test_jumps_of_the_clock_change_nothing",
    ),
    Fault(
        "a second run resumed in the same folder",
        "refused while the first holds the ledger",
        RECIPE,
        "test_a_second_run_in_the_same_folder_is_refused",
    ),
    Fault(
        "a new run of the same name",
        "gets a folder and a ledger of its own",
        "tests/recipes/test_train.py",
        "test_a_second_run_gets_its_own_folder_and_ledger",
    ),
    Fault(
        "data of another size at a resume",
        "refused: N is part of the plan",
        RECIPE,
        "test_data_of_another_size_is_refused",
    ),
    Fault(
        "other data of the same size at a resume",
        "goes on; old and new records are within what is charged",
        RECIPE,
        "test_other_data_of_the_same_size_is_charged_like_the_old",
    ),
    Fault(
        "a client's disk full",
        "nothing leaves it; the others' round goes on",
        SERVER,
        "test_nothing_leaves_a_client_whose_ledger_cannot_be_written",
    ),
    Fault(
        "torn state of the server",
        "refused by name; it does not begin again",
        TORN,
        "test_a_torn_state_of_the_server_is_refused_by_name",
    ),
    Fault(
        "torn answer of a client",
        "made anew, and charged anew",
        TORN,
        "test_an_answer_that_was_torn_is_made_anew_and_charged_anew",
    ),
    Fault(
        "a client restarts",
        "goes on where its ledger stands",
        SERVER,
        "test_a_client_that_restarts_goes_on_where_its_ledger_stands",
    ),
    Fault(
        "the server dies after clients have answered",
        "answers are sent again, not made again",
        SERVER,
        "test_a_server_that_restarts_goes_on_with_the_same_run",
    ),
    Fault(
        "the server dies between release and state",
        "the round is charged again",
        CENTRAL,
        "test_a_round_that_was_charged_and_not_kept_is_charged_again",
    ),
)


def table() -> str:
    """A line a fault."""
    lines = ["| fault | what happens | seen by |", "|---|---|---|"]
    for fault in FAULTS:
        lines.append(
            f"| {fault.name} | {fault.outcome} | `{Path(fault.file).stem}::{fault.test}` |"
        )
    return "\n".join([*lines, "", f"{len(FAULTS)} of {len(FAULTS)} survived."]) + "\n"


def write_table(page: Path) -> None:
    """Exchange what stands between the marks of the page."""
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{after}")


if __name__ == "__main__":
    write_table(PAGE)
