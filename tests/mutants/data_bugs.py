"""Mistakes about what people bring, and about what is kept of runs that they began."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_RECORDS = f"{DPACC}/data/test_records.py"
_TRAIN = "tests/recipes/test_train.py"
_INTERRUPTED = "tests/recipes/test_train_interrupted.py"
_KEPT = f"{DPACC}/artifacts/kept"
_SPANS = f"{DPACC}/data/test_chat_spans.py"

DATA_BUGS = (
    Bug(
        "a δ of one in N",
        "publishing one example drawn at random counts as private",
        (
            Patch(
                "dpacc_accounting.pricing.small_delta",
                "if delta * dataset_size >= 1 and dataset_size > 1:",
                "if delta * dataset_size > dataset_size:",
            ),
        ),
        (
            "tests/accounting/pricing/test_small_delta.py::"
            "test_every_solver_refuses_one_in_n_and_warns_above_what_n_asks",
        ),
    ),
    Bug(
        "a charged ledger is cleared away",
        "a run that stops after its first charge takes its ledger with it",
        (
            Patch(
                "dpacc.artifacts.run_folder",
                "    return not any(record.releases for record in records)\n",
                "    return True\n",
            ),
        ),
        (f"{_INTERRUPTED}::test_a_run_that_was_charged_keeps_its_ledger",),
    ),
    Bug(
        "a second budget without a word",
        "a job that is queued again spends ε anew where it could go on",
        (
            Patch(
                "dpacc.artifacts.earlier_runs",
                "    found = _charged(Path(output_dir).expanduser(), name)\n",
                "    found: dict[Path, LedgerRecord] = {}\n",
            ),
        ),
        (
            f"{DPACC}/artifacts/test_earlier_runs.py::"
            "test_a_run_that_can_go_on_is_offered_and_no_second_budget_spent",
            f"{DPACC}/artifacts/test_earlier_runs.py::test_all_runs_of_one_name_are_priced_together",
        ),
    ),
    Bug(
        "another base of the same layout",
        "an adapter is measured and merged on weights that it was not trained on, without a word",
        (
            Patch(
                "dpacc.artifacts.kept.base_weights",
                "            digest.update(file.read(size))\n",
                "            file.read(size)\n",
            ),
        ),
        (
            f"{_KEPT}/test_base_weights.py::test_other_weights_of_the_same_layout_are_another_base",
            f"{_KEPT}/test_run_settings.py::test_a_base_goes_by_its_weights_where_they_are_known",
        ),
    ),
    Bug(
        "classes that changed places in the folder",
        "a classifier's answers bear one another's names after config.yaml was edited",
        (
            Patch(
                "dpacc.artifacts.kept.run_settings",
                "    kept = said.get(CONFIG_FILE) if isinstance(said, dict) else None\n",
                "    kept = None\n",
            ),
        ),
        (
            f"{_KEPT}/test_run_settings.py::"
            "test_a_configuration_that_was_changed_in_its_folder_is_not_read",
        ),
    ),
    Bug(
        "steps that are taken again stand twice",
        "the lines of a resumed run show what its abandoned steps measured, too",
        (
            Patch(
                "dpacc.artifacts.kept.metrics",
                "[each for each in earlier if each.step < start]",
                "[each for each in earlier if each.step <= start]",
            ),
        ),
        (f"{_KEPT}/test_metrics.py::test_a_resumed_run_takes_the_place_of_what_it_takes_again",),
    ),
    Bug(
        "keys of a record shown",
        "an error lists what single records call their fields, which may be people's names",
        (
            Patch(
                "dpacc.data.records", "else shared & record.keys()", "else shared | record.keys()"
            ),
        ),
        (f"{_RECORDS}::test_names_that_could_be_somebodys_are_not_listed",),
    ),
    Bug(
        "the length of a text shown",
        "the tokenizer warns of a private text with the number of its tokens",
        (
            Patch(
                "dpacc.data.supervision",
                "return tokenizer(text, truncation=True, max_length=_ALL_TOKENS, **options)",
                "return tokenizer(text, **options)",
            ),
        ),
        (f"{DPACC}/data/test_supervision.py::test_the_length_of_a_private_text_is_not_shown",),
    ),
    Bug(
        "a turn of weight 0 is learned",
        "what its owner marked as read only moves the adapters",
        (
            Patch(
                "dpacc.data.chats",
                ' and message.get("weight") != 0\n',
                "\n",
            ),
        ),
        (f"{_SPANS}::test_a_turn_of_weight_0_is_read_only",),
    ),
)
