"""Books whose notes are lost between a ledger and whoever reads its ε."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_FEDERATION = "tests/accounting/federation/test_guarantees.py"
_CENTRAL = f"{DPACC}/federated/aggregation/test_central_noise.py"
_FORGOTTEN = f"{DPACC}/federated/clients/test_forgotten_books.py"
_EVERYWHERE = f"{DPACC}/artifacts/test_stated_everywhere.py"

BOOKS_BUGS = (
    Bug(
        "server's seed left out of its rounds",
        "a server's ledger notes a fixed seed, and what `dpacc compose` reads does not",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "return rounds | said_beside(self._ledger.notes)",
                "return rounds",
            ),
        ),
        (f"{_CENTRAL}::test_a_servers_fixed_seed_is_in_what_compose_reads",),
    ),
    Bug(
        "notes read and not priced",
        "a client-level federation is priced as if its notes were not there",
        (
            Patch(
                "dpacc_accounting.federation.guarantees",
                '                released=each["released"].noted(federation.notes),\n',
                '                released=each["released"],\n',
            ),
        ),
        (f"{_FEDERATION}::test_notes_of_a_client_level_federation_stand_beside_every_price",),
    ),
    Bug(
        "an older copy takes a note back",
        "a federation's history believes the last books alone, from before a seed was fixed",
        (
            Patch(
                "dpacc.federated.server.history",
                "for report in books for each in getattr(report, name)",
                "for each in getattr(books[-1], name)",
            ),
        ),
        (f"{_FORGOTTEN}::test_what_a_client_once_said_of_its_books_is_not_forgotten",),
    ),
    Bug(
        "oddly named notes dropped",
        "a client's note reaches no server if its subject holds a space or a capital",
        (Patch("dpacc.federated.updates.said_notes", "{_flag(n.subject)}", "{n.subject}"),),
        (f"{_EVERYWHERE}::test_no_flag_is_lost_for_how_a_note_is_called",),
    ),
    Bug(
        "earlier runs' notes left out of the sum",
        "the ε of a run together with earlier ones is said without what their ledgers note",
        (
            Patch(
                "dpacc.artifacts.earlier_runs",
                "all cost together: {price.noted(spent.notes)}",
                "all cost together: {price}",
            ),
        ),
        (
            f"{DPACC}/artifacts/test_earlier_runs.py::test_what_qualifies_an_earlier_run_stands_beside_the_sum",
        ),
    ),
    Bug(
        "a federation drawn without its notes",
        "the picture of a federation shows ε and not what voids it",
        (Patch("dpacc.artifacts.pictures", "{units}{beneath(found.told)}", "{units}"),),
        (f"{_EVERYWHERE}::test_a_figure_says_of_what_its_epsilon_is",),
    ),
    Bug(
        "progress without a word",
        "a run's log shows ε of its budget, of a run whose ledger voids it",
        (
            Patch(
                "dpacc.cli.terminal", "        if guarantee.void_because:\n", "        if False:\n"
            ),
        ),
        (f"{_EVERYWHERE}::test_lines_of_progress_carry_it",),
    ),
    Bug(
        "a void ledger audited as a plan",
        "an audit of a ledger shows the plan's ε and nothing of the ledger's notes",
        (
            Patch(
                "dpacc.cli.commands.audit",
                "else replace(found, notes=books.record.notes)",
                "else found",
            ),
        ),
        ("tests/cli/test_audit.py::test_a_plan_or_a_ledger_is_rehearsed_by_the_engine",),
    ),
    Bug(
        "an adapter's past unsaid",
        "a run goes on from an adapter that something else trained, and its statement says nothing",
        (
            Patch(
                "dpacc.step.admission.starting_point",
                "notes = [_TRAINED] if trained else []",
                "notes = []",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_starting_point.py::test_an_adapter_that_was_trained_before_is_said_to_be",
        ),
    ),
    Bug(
        "a run's own past held against it",
        "a run that goes on says that its adapter was trained outside its guarantee",
        (
            Patch(
                "dpacc.step.engine",
                "self._trained_before and not self.run_ledger.steps_charged",
                "is_trained(self._model)",
            ),
        ),
        (
            f"{DPACC}/step/admission/test_starting_point.py::test_a_run_that_goes_on_was_not_trained_before",
        ),
    ),
)
