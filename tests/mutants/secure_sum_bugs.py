"""Mistakes in sums among drawn neighbours, in signed sums, and in sums that keep no update."""
# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_SUMS = f"{DPACC}/federated/secure_sum"
_DRAWN = f"{_SUMS}/test_neighbourhoods.py"
_AGREED = f"{_SUMS}/signed/test_agreement.py"
_ROLL = f"{_SUMS}/signed/test_roll.py"
_SIGNED = f"{_SUMS}/signed/test_signatures.py"
_TOLD = f"{_SUMS}/signed/test_told_neighbours.py"
_ONCE = f"{_SUMS}/test_one_sum_a_round.py"
_STREAM = f"{DPACC}/federated/server/test_reply_stream.py"
_EXACT = f"{DPACC}/federated/aggregation/test_exact_sum.py"
_MASKING = "dpacc.federated.secure_sum.masking"
_AGREEMENT = "dpacc.federated.secure_sum.signed.agreement"
_SIZES = "dpacc.federated.secure_sum.neighbourhoods"

SECURE_SUM_BUGS = (
    Bug(
        "neighbours by the server",
        "a client takes as its neighbours those whom the server's list names first",
        (
            Patch(
                _MASKING,
                "secrets.SystemRandom().sample(others, found.neighbours)",
                "others[: found.neighbours]",
            ),
        ),
        (f"{_DRAWN}::test_nobody_but_a_client_decides_whom_it_draws",),
    ),
    Bug(
        "a neighbourhood's threshold of half",
        "so few of a neighbourhood's shares yield a secret that a server that tells two stories gets both",
        (
            Patch(
                _SIZES,
                "least = 2 * found.fewest - found.neighbours - 1",
                "least = found.fewest",
            ),
        ),
        (
            f"{_DRAWN}::test_what_is_chosen_is_safe_and_one_neighbour_less_is_not",
            f"{_DRAWN}::test_both_secrets_are_as_likely_as_stated",
        ),
    ),
    Bug(
        "the whole's threshold for a neighbourhood",
        "shares are dealt to neighbours as if everybody held one, so that no sum is ever dealt",
        (
            Patch(
                _MASKING,
                "len(circle), party.settings.fewest_shares",
                "len(circle), party.settings.fewest",
            ),
        ),
        (f"{_DRAWN}::test_a_sum_among_neighbours_is_exact_whoever_drops_out",),
    ),
    Bug(
        "survivors of one neighbourhood alone",
        "a client gives shares on a list that leaves others out, so that neighbourhoods may be told different ones",
        (
            Patch(
                _MASKING,
                "if {*arrived, *dropped} != {*party.present} or party.node not in arrived:",
                "if not {*arrived, *dropped} <= {*party.present} or party.node not in arrived:",
            ),
        ),
        (f"{_DRAWN}::test_lists_that_are_not_of_all_are_refused",),
    ),
    Bug(
        "stranded clients open",
        "a client of whose neighbours too few are left helps to open a sum in which it stands apart",
        (
            Patch(
                _MASKING,
                "if left < party.settings.fewest_shares:",
                "if False:",
            ),
        ),
        (f"{_DRAWN}::test_whose_neighbours_are_gone_neither_trains_nor_opens",),
    ),
    Bug(
        "parts that no draw joins",
        "the chance that a sum falls into parts is that of clients who drop out as they come, not as a server chooses",
        (
            Patch(
                _SIZES,
                "logs = _log_choose(honest, sizes) + outer + inner",
                "logs = outer + inner",
            ),
        ),
        (f"{_DRAWN}::test_a_cut_is_no_likelier_than_stated_whoever_drops_out",),
    ),
    Bug(
        "any key signs",
        "keys count as signed whose signer is on nobody's list",
        (
            Patch(
                _AGREEMENT,
                "if not party.keys.knows(signers[node]) or not is_signed(",
                "if not is_signed(",
            ),
        ),
        (f"{_AGREED}::test_a_server_cannot_invent_clients",),
    ),
    Bug(
        "one's own signature alone",
        "a client checks what it signed itself, and nobody else's keys",
        (
            Patch(
                _AGREEMENT,
                "for node in masks:",
                "for node in [party.node]:",
            ),
        ),
        (f"{_AGREED}::test_a_server_cannot_put_its_own_keys_in_anothers_name",),
    ),
    Bug(
        "two stories of who arrived",
        "a client gives shares on a list that it alone has signed",
        (
            Patch(
                _AGREEMENT,
                "if len(agreeing) < fewest:",
                "if len(agreeing) < 1:",
            ),
        ),
        (f"{_AGREED}::test_two_stories_of_who_arrived_open_nothing",),
    ),
    Bug(
        "signed one list, opened another",
        "a client gives shares on another list than the one that it signed",
        (
            Patch(
                _AGREEMENT,
                'if digest != party.state["confirmed"]:',
                "if False:",
            ),
            Patch(
                _AGREEMENT,
                "digest, fewest = _digest(party, arrived), party.settings.fewest",
                'digest, fewest = str(party.state["confirmed"]), party.settings.fewest',
            ),
        ),
        (f"{_AGREED}::test_two_stories_of_who_arrived_open_nothing",),
    ),
    Bug(
        "one of a pair masked",
        "a client masks with those whose boxes it is forwarded, whoever drew it",
        (Patch(_AGREEMENT, "or drew != sources | {party.node}:", "or False:"),),
        (f"{_TOLD}::test_nobody_is_left_out_of_the_sum_that_he_signs",),
    ),
    Bug(
        "who drew whom unsigned",
        "clients compare their own neighbours with what they are told, and do not sign it",
        (Patch(_AGREEMENT, "party.present, drawn, arrived)", "party.present, arrived)"),),
        (f"{_TOLD}::test_nobody_is_left_out_of_the_sum_that_he_signs",),
    ),
    Bug(
        "signers without holders",
        "signatures count of clients none of whose neighbours signed, who may be left out of the sum",
        (
            Patch(
                _AGREEMENT,
                "if circles := _circles(party):",
                "if False and (circles := _circles(party)):",
            ),
        ),
        (f"{_TOLD}::test_signers_whose_holders_sign_nothing_open_nothing",),
    ),
    Bug(
        "keys of another round",
        "a sum that was begun for one round is trained for in another",
        (
            Patch(
                "dpacc.federated.secure_sum.summing_client",
                "if not party.session.startswith(session_of(packing.run, packing.number)):",
                "if False:",
            ),
        ),
        (f"{_AGREED}::test_keys_are_for_one_run_and_round",),
    ),
    Bug(
        "draws without end",
        "a server begins sums and gives them up until whom a client drew suits it",
        (
            Patch(
                "dpacc.federated.secure_sum.summing_client",
                "                self._begun.count()\n",
                "                pass\n",
            ),
        ),
        (f"{_ONCE}::test_no_server_begins_sums_until_a_draw_suits_it",),
    ),
    Bug(
        "draws told first",
        "whom a client drew is told before its disk has counted it",
        (
            Patch(
                "dpacc.federated.secure_sum.rounds_summed",
                "        sync_file(file.fileno())\n",
                "",
            ),
        ),
        (f"{_ONCE}::test_a_draw_is_on_the_disk_before_it_is_told",),
    ),
    Bug(
        "expelled by one's missing file",
        "one client that lacks another's key has that one left out of the run for good",
        (
            Patch(
                "dpacc.federated.secure_sum.signed.roll",
                'if said.count(f"{STRANGER}{name}") >= self._settings.fewest:',
                'if said.count(f"{STRANGER}{name}") > self._settings.colluding:',
            ),
        ),
        (f"{_ROLL}::test_who_lacks_anothers_key_is_told_so_and_expels_nobody",),
    ),
    Bug(
        "trained for a stranger",
        "where all must answer, that one does not know another is found when the others have trained",
        (
            Patch(
                "dpacc.federated.secure_sum.unmasking",
                '        self._require(len(answers), "know all others\' keys")\n        return {node: {} for node in answers}',
                "        return {node: {} for node in asked}",
            ),
        ),
        (
            f"{_ROLL}::test_where_all_must_answer_a_key_that_one_lacks_is_found_before_anybody_trains",
        ),
    ),
    Bug(
        "invented clients forgotten",
        "a ledger of sums that nobody signed says nothing of clients that a server may invent",
        (
            Patch(
                "dpacc.federated.secure_sum.shared_noise",
                "if not self.settings.signed:",
                "if self.settings.signed:",
            ),
        ),
        (f"{_SIGNED}::test_what_a_ledger_says_of_invented_clients_falls_with_signatures_alone",),
    ),
    Bug(
        "replies twice in a sum",
        "an update whose reply comes twice is added twice, and weighs double",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "node = waiting.pop(reply.metadata.reply_to_message_id, None)",
                "node = waiting.get(reply.metadata.reply_to_message_id)",
            ),
        ),
        (f"{_STREAM}::test_a_reply_that_comes_twice_is_added_once",),
    ),
    Bug(
        "clipped to more than C",
        "an update that is added as it comes is scaled by its norm's inverse alone, and short ones grow to C",
        (
            Patch(
                "dpacc.federated.aggregation.central_noise",
                "moved *= min(1 / self._most, 1 / length)",
                "moved *= max(1 / self._most, 1 / length)",
            ),
        ),
        (f"{_EXACT}::test_averages_of_clients_do_not_depend_on_who_is_faster",),
    ),
)
