"""Ways in which synthetic text says more than its adapter may, or less than its card must."""

from __future__ import annotations

from tests.mutants.bug import Bug
from tests.mutants.planting import Patch

_RECIPE = "tests/recipes/test_synthesize.py"
_REFUSED = "tests/recipes/test_synthesize_refused.py"
_ROOM = "dpacc.artifacts.synthetic"
_COUNTS = "tests/dpacc/artifacts/test_label_counts.py"
_VLLM = "tests/dpacc/artifacts/test_vllm_writer.py"
_ECHO = "tests/dpacc/audit/test_synthetic_canaries.py"

SYNTHETIC_BUGS = (
    Bug(
        "synthetic card forgets what voids",
        "the card beside synthetic text promises the plan's ε, whatever the run's ledger notes",
        (
            Patch(
                f"{_ROOM}.card",
                "claim = claim_of(plan=record.plan, record=record)",
                "claim = claim_of(plan=record.plan)",
            ),
        ),
        (f"{_RECIPE}::test_the_card_of_a_void_run_claims_nothing",),
    ),
    Bug(
        "synthetic prompts from training data",
        "private prompts are given to the model, and stand in the synthetic file as they are",
        (Patch(f"{_ROOM}.sources", "    if same:", "    if False:"),),
        (
            f"{_REFUSED}::test_prompts_from_the_training_data_are_refused[one record of it]",
            f"{_REFUSED}::test_what_users_asked_in_private_chats_is_no_prompt",
        ),
    ),
    Bug(
        "synthetic text by another adapter",
        "what an adapter of unknown cost wrote gets a card with the ε of the run's ledger",
        (Patch(f"{_ROOM}.released", "    if other:", "    if False:"),),
        (f"{_REFUSED}::test_an_adapter_whose_cost_nobody_knows_writes_nothing[another]",),
    ),
    Bug(
        "synthetic text without training texts",
        "a synthetic text that stands in the private data is left out, which tells that it does",
        (
            Patch(
                f"{_ROOM}.records",
                "    if not text.strip():",
                "    data = __import__('pathlib').Path(config.train_data)\n"
                "    if not text.strip() or data.exists() and text in data.read_text():",
            ),
        ),
        (f"{_RECIPE}::test_the_training_data_has_no_part_in_what_is_written",),
    ),
    Bug(
        "echo of canaries that all took part",
        "canaries whose coin says no are learned too, so that an audit finds no difference, ever",
        (
            Patch(
                "dpacc.audit.text_canaries",
                "return [text if inside else left_out(text) for text, inside in pairs]",
                "return [text for text, inside in pairs]",
            ),
        ),
        (f"{_ECHO}::test_canaries_that_are_out_teach_nothing",),
    ),
    Bug(
        "echo of canaries in public text",
        "canaries are scored by public text alone, so that what an adapter wrote is not looked at",
        (
            Patch(
                "dpacc.audit.synthetic_canaries",
                "for texts in (ours, theirs)",
                "for texts in (theirs, theirs)",
            ),
        ),
        (f"{_ECHO}::test_a_writer_that_repeats_canaries_is_found_out_by_its_texts_alone",),
    ),
    Bug(
        "label counts by records",
        "a person with many records moves a count by more than the one that the noise hides",
        (
            Patch(
                f"{_ROOM}.label_counts",
                "votes = Counter(max(known, key=lambda label: said[label]) "
                "for said in each.values())",
                "votes = sum(each.values(), Counter())",
            ),
        ),
        (f"{_COUNTS}::test_a_unit_moves_one_count_by_one",),
    ),
    Bug(
        "label counts that nobody charged",
        "exact counts, put where the noised ones were, are taken at the price of those",
        (
            Patch(
                f"{_ROOM}.label_counts",
                "    if not record.releases or saved.get(COUNTS) != "
                "hashlib.sha256(content).hexdigest():",
                "    if not record.releases:",
            ),
        ),
        (f"{_COUNTS}::test_counts_are_read_with_the_ledger_that_paid_for_them",),
    ),
    Bug(
        "synthetic card forgets label counts",
        "a file whose labels follow private counts states the training's ε alone",
        (Patch(f"{_ROOM}.card", "    if counted is None:", "    if True:"),),
        (f"{_COUNTS}::test_what_is_written_is_priced_by_both_releases",),
    ),
    Bug(
        "vLLM reports to its makers",
        "each start tells a host of others which model and machine write from private data",
        (
            Patch(
                f"{_ROOM}.vllm_writer",
                '"VLLM_NO_USAGE_STATS": "1",',
                '"VLLM_NO_USAGE_STATS": "0",',
            ),
        ),
        (f"{_VLLM}::test_nothing_is_told_to_the_makers_of_vllm",),
    ),
    Bug(
        "a served file without its statement",
        "a model goes from hand to hand, and nothing in its file says what is promised, or not",
        (
            Patch(
                "dpacc.artifacts.serving.gguf_file",
                "    for key, text in said.items():",
                "    for key, text in ():",
            ),
        ),
        ("tests/dpacc/artifacts/serving/test_gguf_file.py::test_the_statement_is_in_the_file",),
    ),
    Bug(
        "the doctor takes any synthetic file",
        "records that no card is about, private ones among them, pass under another file's ε",
        (
            Patch(
                "dpacc.doctor.synthetic_text",
                "    same = hashlib.sha256(file.read_bytes()).hexdigest() == checksum\n",
                "    same = bool(checksum)\n",
            ),
        ),
        ("tests/dpacc/doctor/test_synthetic_text.py::test_a_file_is_what_its_cards_say",),
    ),
)
