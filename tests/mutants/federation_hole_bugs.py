"""Holes that a server, a stranger or a restored disk could use in a federation."""
# ruff: noqa: E501 - excerpts of source stay on their lines

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.checks import DPACC
from tests.mutants.planting import Patch

_CODE = f"{DPACC}/recipe/test_remote_code.py"
_LEARNS = f"{DPACC}/federated/test_what_a_server_learns.py"
_FORGOT = f"{DPACC}/federated/clients/test_forgotten_books.py"
_WHO = f"{DPACC}/federated/test_who_took_part.py"
_KEPT = f"{DPACC}/federated/server/test_kept_state.py"
_NODE = f"{DPACC}/federated/test_deployment.py"
_ONCE = f"{DPACC}/federated/secure_sum/test_one_sum_a_round.py"
_NOISE = f"{DPACC}/federated/secure_sum/test_shared_noise.py"

FEDERATION_HOLE_BUGS = (
    Bug(
        "a base's own code after a yes",
        "whoever answers a terminal's question lets a folder's Python run beside the data",
        (
            Patch(
                "dpacc.recipe.models",
                "output_loading_info=True, trust_remote_code=False, **options",
                "output_loading_info=True, **options",
            ),
            Patch(
                "dpacc.recipe.pretrained",
                "source, trust_remote_code=False\n",
                "source\n",
            ),
        ),
        (
            f"{_CODE}::test_a_folder_with_code_of_its_own_is_refused_though_somebody_says_yes",
            f"{_CODE}::test_a_configuration_that_asks_for_a_model_of_its_own_is_not_followed",
        ),
    ),
    Bug(
        "classes of the server's choice",
        "a node's records are checked against the classes that the server lists, and its answer says whether all are among them",
        (
            Patch(
                "dpacc.federated.deployment.node_client",
                "return _client(node, run.lora)",
                "return _client(__import__('dataclasses').replace(node, labels=run.labels), run.lora)",
            ),
        ),
        (f"{_LEARNS}::test_one_record_more_changes_no_byte_of_a_refusal",),
    ),
    Bug(
        "base of the server's choice",
        "records are read by the tokenizer of whatever model the server names, and the answer says whether one could not be",
        (
            Patch(
                "dpacc.federated.clients.private_client",
                "base=self._own_files.take_base(),",
                "base=OwnFiles(__import__('dataclasses').replace(self._config, model=str(asked.get('model', self._config.model)))).take_base(),",
            ),
        ),
        (f"{_LEARNS}::test_a_base_of_the_servers_choice_is_not_used",),
    ),
    Bug(
        "kind of error told",
        "a refusal names what kind of error the records raised",
        (
            Patch(
                "dpacc.federated.requests",
                '_LOG.exception("client %s could not answer", client)\n        return refusal(COULD_NOT, message)',
                "return refusal(type(__import__('sys').exc_info()[1]).__name__, message)",
            ),
        ),
        (f"{_LEARNS}::test_a_record_that_spoils_later_says_no_more",),
    ),
    Bug(
        "failure asked for again",
        "a client that failed among its records can be asked, with another adapter, whether it fails again",
        (
            Patch(
                "dpacc.federated.requests",
                'self.path.write_text(json.dumps({"failed": type(error).__name__}))',
                "del error",
            ),
        ),
        (f"{_LEARNS}::test_a_client_that_failed_among_its_records_fails_once",),
    ),
    Bug(
        "rows counted to the server",
        "beside its update a client sends how many rows it holds, as averages with weights want",
        (
            Patch(
                "dpacc.federated.clients.private_client",
                '"steps-taken": update.steps,',
                '"steps-taken": update.steps,\n                "num-examples": len(training._examples),',
            ),
        ),
        (
            f"{_LEARNS}::test_every_field_that_leaves_a_client_is_known",
            f"{_LEARNS}::test_no_weight_follows_the_number_of_rows",
        ),
    ),
    Bug(
        "any number of passes",
        "a server may ask for as many passes over a client's data in a round as it likes",
        (Patch("dpacc.federated.requests", "if wanted > most:", "if False:"),),
        (f"{_LEARNS}::test_one_record_more_changes_no_byte_of_a_refusal",),
    ),
    Bug(
        "round summed again",
        "one update goes into two sums, which differ by whoever is in one of them alone",
        (
            Patch(
                "dpacc.federated.secure_sum.summing_client",
                "self._rounds.refuse_second(packing.run, packing.number)",
                "pass",
            ),
        ),
        (f"{_ONCE}::test_five_then_four_do_not_show_the_fifth",),
    ),
    Bug(
        "sum kept in memory",
        "that an update went into a sum is not on the disk when it leaves",
        (
            Patch(
                "dpacc.federated.secure_sum.rounds_summed",
                "        sync_file(file.fileno())\n",
                "",
            ),
        ),
        (f"{_ONCE}::test_it_is_on_the_disk_before_anything_leaves",),
    ),
    Bug(
        "sum in a lost file",
        "the file that says which updates were summed is not in its folder's list on the disk",
        (
            Patch(
                "dpacc.federated.secure_sum.rounds_summed",
                "        sync_folder(path.parent)\n",
                "        pass\n",
            ),
        ),
        (f"{_ONCE}::test_it_is_on_the_disk_before_anything_leaves",),
    ),
    Bug(
        "older ledger goes on",
        "a client whose ledger was restored takes steps again that a server has seen",
        (
            Patch(
                "dpacc.federated.clients.private_client",
                "or charged < seen:",
                "or False:",
            ),
        ),
        (f"{_FORGOT}::test_a_client_on_an_older_ledger_gives_nothing",),
    ),
    Bug(
        "restored steps for nothing",
        "steps that a restored ledger counts twice as one are priced once",
        (
            Patch(
                "dpacc.federated.server.history",
                "max(each.steps_charged - seen, each.steps_taken)",
                "max(each.steps_charged - seen, 0)",
            ),
        ),
        (
            f"{_FORGOT}::test_what_it_gives_all_the_same_is_counted_and_not_used",
            f"{_FORGOT}::test_steps_are_counted_by_what_was_given",
        ),
    ),
    Bug(
        "restored update averaged",
        "the server uses an update that its client's ledger does not hold",
        (
            Patch(
                "dpacc.federated.server.strategy",
                "if known.steps_charged >= seen + known.steps_taken:",
                "if True:",
            ),
        ),
        (
            f"{_FORGOT}::test_what_it_gives_all_the_same_is_counted_and_not_used",
            f"{_FORGOT}::test_its_numbers_do_not_enter_a_sum",
        ),
    ),
    Bug(
        "sum of the server's choice",
        "how a sum is shut, and among how many, is what the server says",
        (
            Patch(
                "dpacc.federated.deployment.node_client",
                "return _client(node, run.lora)",
                "return _client(__import__('dataclasses').replace(node, secure_clients=run.num_clients, secure_protocol=run.secure_protocol, secure_colluding=run.secure_colluding), run.lora)",
            ),
        ),
        (f"{_NODE}::test_a_nodes_own_file_decides_which_sum_it_takes_part_in",),
    ),
    Bug(
        "unsigned keys unsaid",
        "a ledger of shared noise does not say that a server may invent the others",
        (
            Patch(
                "dpacc.federated.secure_sum.shared_noise",
                "if subject not in known:",
                "if False:",
            ),
        ),
        (f"{_NOISE}::test_every_ledger_says_whom_its_noise_relies_on",),
    ),
    Bug(
        "name taken over",
        "a node that says another's name is given its place in the books",
        (
            Patch(
                "dpacc.federated.server.history",
                "while known in self.nodes:",
                "while False:",
            ),
        ),
        (f"{_WHO}::test_a_name_belongs_to_the_node_that_bore_it_first",),
    ),
    Bug(
        "a state before its adapter",
        "what a restarted server goes on from names an adapter that has not reached the disk",
        (
            Patch(
                "dpacc.federated.server.kept_state",
                "write_file(path=adapter, content=content)",
                "adapter.write_bytes(content)",
            ),
        ),
        (f"{_KEPT}::test_all_that_a_state_names_is_on_the_disk_before_it",),
    ),
    Bug(
        "names in the adapter's file",
        "the file of the shared adapter, which may be published, says who took part",
        (
            Patch(
                "dpacc.federated.server.kept_state",
                "save(state.arrays)",
                'save(state.arrays, metadata={"history": json.dumps(state.history.to_json())})',
            ),
        ),
        (f"{_WHO}::test_no_file_of_a_model_names_who_took_part",),
    ),
    Bug(
        "patients priced as examples",
        "a client that protects whole patients is listed with an epsilon for one example",
        (
            Patch(
                "dpacc_accounting.federation.guarantees",
                "server=replace(server[name], unit=units[name]).noted(notes[name]),",
                "server=server[name].noted(notes[name]),",
            ),
        ),
        (f"{_WHO}::test_each_price_is_of_its_clients_own_unit",),
    ),
    Bug(
        "later rounds at the first's noise",
        "a client whose noise shrank between rounds is priced as if it had kept what it began with",
        (
            Patch(
                "dpacc.federated.server.history",
                "**({} if noise == first else noise),",
                "",
            ),
        ),
        (f"{_FORGOT}::test_rounds_of_less_noise_are_priced_as_such",),
    ),
    Bug(
        "a task's promises are passed over",
        "a task that asks for discrete noise is taken, and clients add another kind without a word",
        (
            Patch(
                "dpacc.federated.settings",
                "            if name not in _OF_A_TASK:\n",
                "            if not name:\n",
            ),
        ),
        (f"{_WHO}::test_a_task_promises_nothing_that_no_client_does",),
    ),
)
