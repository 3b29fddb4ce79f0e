"""Mistakes at a federation's two doors: what it takes from clients, and what it publishes."""
# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_REPLIES = f"{DPACC}/federated/server/test_replies.py"
_CULPRITS = f"{DPACC}/federated/secure_sum/test_culprits.py"
_SECAGG = f"{DPACC}/federated/secure_sum/test_secagg.py"
_SETTINGS = f"{DPACC}/federated/test_settings.py"
_NOISE = f"{DPACC}/federated/aggregation/test_robust_noise.py"
_PUBLISHED = f"{DPACC}/federated/server/test_published_adapter.py"

FEDERATION_REPLY_BUGS = (
    Bug(
        "published without its correction",
        "what a rule folded into the base is left out of the published adapter, and all budgets were spent for it",
        (
            Patch(
                "dpacc.federated.server.published_adapter",
                "if any(name.startswith(CORRECTION) for name in arrays):",
                "if False:",
            ),
        ),
        (f"{_PUBLISHED}::test_the_saved_adapter_is_the_model_that_was_measured",),
    ),
    Bug(
        "void price on the card",
        "the card of a federation's adapter states a client's price although a note voids it",
        (
            Patch(
                "dpacc.federated.server.adapter_card",
                "if found.void_because:",
                "if False:",
            ),
        ),
        (f"{_PUBLISHED}::test_a_voided_price_is_no_number_on_the_card",),
    ),
    Bug(
        "names on the card",
        "the card of a published adapter names the organisations that took part",
        (
            Patch(
                "dpacc.federated.server.adapter_card",
                "return _row(name, price.server, price.released)",
                "return _row(price.name, price.server, price.released)",
            ),
        ),
        (f"{_PUBLISHED}::test_the_card_tells_each_clients_price_in_both_views_and_no_name",),
    ),
    Bug(
        "books beyond belief",
        "whatever a client says of its ledger is entered in the federation's books, which then nobody can price",
        (
            Patch(
                "dpacc.federated.server.replies",
                "if not _believable(known, void=bool(void)):",
                "if False:",
            ),
        ),
        (f"{_REPLIES}::test_a_reply_that_does_not_fit_is_refused",),
    ),
    Bug(
        "record of another kind",
        "one reply with a record of another kind ends the server's run, for which all others have paid",
        (
            Patch(
                "dpacc.federated.server.replies",
                "if name in records and not isinstance(records[name], kind):",
                "if False:",
            ),
        ),
        (
            f"{_REPLIES}::test_a_reply_that_does_not_fit_is_refused",
            f"{_REPLIES}::test_one_reply_leaves_the_round_to_the_others",
        ),
    ),
    Bug(
        "numbers beyond belief",
        "one client's numbers, each finite, make the model of all infinite",
        (
            Patch(
                "dpacc.federated.updates.layout",
                "if values.size and float(np.abs(values).max()) > LARGEST:",
                "if False:",
            ),
        ),
        (f"{_REPLIES}::test_one_reply_leaves_the_round_to_the_others",),
    ),
    Bug(
        "weak key passed on",
        "a key with which nothing can be agreed goes to all others, whose budgets are spent before they fail",
        (
            Patch(
                "dpacc.federated.secure_sum.unmasking",
                "if not is_public_key(mask_key) or not is_public_key(seal_key):",
                "if False:",
            ),
        ),
        (f"{_CULPRITS}::test_who_offers_no_keys_or_shares_is_left_out_before_anybody_trains",),
    ),
    Bug(
        "weak key taken",
        "a client trains, and charges, for a sum whose list of keys holds what is none",
        (
            Patch(
                "dpacc.federated.secure_sum.masking",
                "if not all(is_public_key(keys[node]) for node in some for keys in (masks, seals)):",
                "if False:",
            ),
        ),
        (f"{_SECAGG}::test_a_list_of_keys_that_does_not_fit_is_refused",),
    ),
    Bug(
        "share not compared",
        "a client trains on shares that their dealer did not commit to, so that the culprit cannot be told",
        (
            Patch(
                "dpacc.federated.secure_sum.masking",
                "if said[peer] != committed(",
                "if False and said[peer] != committed(",
            ),
        ),
        (
            f"{_CULPRITS}::test_shares_that_were_not_committed_to_stop_the_round_before_it_costs_anything",
        ),
    ),
    Bug(
        "any sum believed",
        "one client's random numbers under its mask become the adapter of all",
        (
            Patch(
                "dpacc.federated.secure_sum.summands",
                "if total.size and float(np.abs(total).max()) > most:",
                "if False:",
            ),
        ),
        (f"{_CULPRITS}::test_numbers_that_are_no_update_move_nothing",),
    ),
    Bug(
        "culprit asked again",
        "a client that spoiled a sum is asked again, and spends the others' budgets round after round",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "set(grid.get_node_ids()) - set(self._history.expelled)",
                "set(grid.get_node_ids())",
            ),
        ),
        (
            f"{_CULPRITS}::test_shares_of_another_secret_cost_one_round_and_are_blamed_on_their_dealer",
        ),
    ),
    Bug(
        "another base averaged",
        "a client that trains on another base, or whose classes stand in another order, spends its budget to spoil the others' adapter",
        (
            Patch(
                "dpacc.federated.requests",
                "    if differing:\n",
                '    if "adapter" in differing:\n',
            ),
        ),
        (
            f"{_SETTINGS}::test_a_client_of_another_base_is_not_averaged",
            f"{_SETTINGS}::test_a_client_with_its_classes_in_another_order_is_not_averaged",
        ),
    ),
    Bug(
        "senseless budget taken",
        "a federation is begun with a client's epsilon or rounds below what can be, and fails after others have paid",
        (
            Patch(
                "dpacc.federated.setting_limits",
                "if not math.isfinite(number) or not 0 < number <= at_most:",
                "if not math.isfinite(number):",
            ),
        ),
        (f"{_SETTINGS}::test_a_wrong_setting_is_refused_where_it_is_given",),
    ),
    Bug(
        "updates without noise of their own",
        "two hostile clients that send the same update are averaged with those that hold noise",
        (
            Patch(
                "dpacc.federated.aggregation.robust",
                "return found if len(found) <= hostile else set()",
                "return set()",
            ),
        ),
        (f"{_NOISE}::test_krum_goes_where_a_quiet_attacker_wants",),
    ),
)
