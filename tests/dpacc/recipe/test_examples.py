"""Examples are read by their configuration, and no error shows what is in them."""

import json
from functools import partial

import pytest

from dpacc.errors import ConfigurationError
from dpacc.recipe.config import TrainingConfig
from dpacc.recipe.examples import load_held_out_examples, load_training_examples, pad_examples
from dpacc.recipe.predictions import held_out_texts
from tests.dpacc.data.test_supervision import TEMPLATE, byte_tokenizer

SECRET = "my diagnosis"


class Letters:
    """A tokenizer whose tokens are the letters' own numbers; 0 ends a text."""

    eos_token_id = 0
    pad_token_id = 0

    def __call__(self, texts, *, truncation, max_length):
        """Number the letters."""
        return {"input_ids": [[ord(letter) for letter in text][:max_length] for text in texts]}


def configured(**changes):
    """A configuration with these settings."""
    return TrainingConfig(
        **{"model": "m", "train_data": "none", "epsilon": 1.0, "steps": 1, **changes},
        expected_batch_size=1,
    )


def test_the_held_out_choice_depends_on_the_seed_alone(write):
    """`held_out_examples` of the records are taken, the same at every call with one seed."""
    path = write("notes.txt", "\n".join(f"note {n}" for n in range(100)))
    choose = partial(load_held_out_examples, tokenizer=Letters())
    config = configured(held_out_data=path, held_out_examples=10, seed=1)
    other = configured(held_out_data=path, held_out_examples=10, seed=2)
    everything = configured(held_out_data=path, held_out_examples=None)
    assert len(choose(config=config)) == 10
    assert choose(config=config) == choose(config=config)
    assert choose(config=config) != choose(config=other)
    assert len(choose(config=everything)) == 100
    assert choose(config=configured()) == []


def test_training_keeps_every_record_in_order(write):
    """No record is left out: their number is part of the privacy plan."""
    path = write("notes.jsonl", '{"note": "ab"}\n{"note": ""}\n{"note": "c"}\n')
    examples = load_training_examples(
        config=configured(train_data=path, text_field="note"), tokenizer=Letters()
    )
    assert [example["input_ids"] for example in examples] == [[97, 98, 0], [0], [99, 0]]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"messages_field": "chat"}, "chat"),
        ({"prompt_field": "question", "completion_field": "answer"}, "question"),
        ({"text_field": "body"}, "body"),
    ],
)
def test_the_configured_fields_are_the_ones_read(write, changes, missing):
    """Messages, prompt and completion, or text: whichever is configured must be there."""
    path = write("notes.jsonl", '{"text": "a"}\n')
    with pytest.raises(ConfigurationError, match=f"no field '{missing}'"):
        load_training_examples(config=configured(train_data=path, **changes), tokenizer=Letters())


def test_a_completion_that_is_no_answer_is_named_by_its_place_and_never_shown(write):
    """It would teach a word that the others' losses know nothing of."""
    path = write("notes.jsonl", f'{{"p": "q", "c": "a"}}\n{{"p": "q", "c": "{SECRET}"}}\n')
    asked = {"prompt_field": "p", "completion_field": "c", "answers": ("a", "b")}
    config = configured(train_data=path, learn_end=False, **asked)
    with pytest.raises(ConfigurationError, match=r"notes.jsonl:2: field 'c' is none of") as error:
        load_training_examples(config=config, tokenizer=Letters())
    assert SECRET not in str(error.value)


CHATS = '{"m": [{"role": "user", "content": "hello"}%s]}\n'
SAYS = ', {"role": "assistant", "content": "hello", "weight": %d}'


@pytest.mark.parametrize("end", ["", SAYS % 0])
def test_chats_of_which_no_turn_is_learned_spend_nothing(write, end):
    """A budget that would teach nothing is refused, with the reason."""
    tokenizer = byte_tokenizer(eos_token="<end>")
    tokenizer.chat_template = TEMPLATE
    for rows, fine in ((CHATS % end, False), (CHATS % end + CHATS % (SAYS % 1), True)):
        config = configured(train_data=write("chats.jsonl", rows), messages_field="m")
        if fine:
            assert len(load_training_examples(config=config, tokenizer=tokenizer)) == 2
            continue
        with pytest.raises(ConfigurationError, match="no chat holds words of the role `assistant`"):
            load_training_examples(config=config, tokenizer=tokenizer)


def test_texts_of_which_nothing_is_learned_spend_nothing(write):
    """A single token has none before it by which it could be foreseen."""
    config = configured(train_data=write("notes.jsonl", '{"text": "a"}\n' * 3), learn_end=False)
    with pytest.raises(ConfigurationError, match="no text holds two tokens"):
        load_training_examples(config=config, tokenizer=byte_tokenizer())


def test_a_prompt_in_several_fields_is_joined(write):
    """Empty and missing parts are left out; a blank line stands before the completion."""
    rows = [
        '{"instruction": "Add", "input": "1 2", "output": "3"}',
        '{"instruction": "Sing", "input": "", "output": "la"}',
        '{"instruction": "Hum", "input": null, "output": "m"}',
        '{"instruction": "Cry", "output": "o"}',
    ]
    asked = {"prompt_field": "instruction,input", "completion_field": "output"}
    config = configured(train_data=write("alpaca.jsonl", "\n".join(rows)), **asked)
    tokenizer = byte_tokenizer()
    examples = load_training_examples(config=config, tokenizer=tokenizer)
    assert [tokenizer.decode(example["input_ids"]) for example in examples] == [
        "Add\n\n1 2\n\n3<end>",
        "Sing\n\nla<end>",
        "Hum\n\nm<end>",
        "Cry\n\no<end>",
    ]


PAIR = {
    "prompt": [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "hm"},
        {"role": "user", "content": "more"},
    ],
    "completion": [{"role": "assistant", "content": "no"}],
}
ASKED = {"prompt_field": "prompt", "completion_field": "completion"}


def test_a_prompt_and_a_completion_of_messages_are_one_chat(write):
    """Read as by TRL: of the assistant's turns only the completion's are learned; tools stay."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for t in tools or [] %}<{{ t.name }}>{% endfor %}" + TEMPLATE
    path = write("pairs.jsonl", json.dumps(PAIR | {"tools": [{"name": "look"}]}))
    config = configured(train_data=path, **ASKED)
    (example,) = load_training_examples(config=config, tokenizer=tokenizer)
    held_out = configured(train_data=path, held_out_data=path, **ASKED)
    assert held_out_texts(config=held_out) == ([], []), "no text is there to be continued"
    learned = [label for label in example["labels"] if label != -100]
    assert tokenizer.decode(learned) == "no<end>"
    assert tokenizer.decode(example["input_ids"]) == (
        "<look>[user]hello<end>[assistant]hm<end>[user]more<end>[assistant]no<end>"
    )


TEXTS = {"prompt": SECRET, "completion": SECRET}


@pytest.mark.parametrize(
    ("rows", "changes", "told"),
    [
        ([PAIR | {"prompt": SECRET}], {}, "'prompt' and 'completion' must both be text, or both"),
        ([PAIR | {"completion": SECRET}], {}, "must both be text, or both lists of messages"),
        ([PAIR, TEXTS], {}, "hold text in some records and lists of messages in others"),
        ([PAIR | {"completion": []}], {}, "field 'completion': needs at least one message"),
        ([PAIR | {"prompt": [SECRET]}], {}, "field 'prompt': message 0 needs text in `role`"),
        ([PAIR | {"tools": SECRET}], {}, "field `tools` needs a list of objects"),
        ([PAIR | {"prompt": 3}], {}, "field 'prompt' must be text or a list"),
        ([PAIR], {"answers": ("a", "b"), "learn_end": False}, "none of the answers"),
    ],
)
def test_prompts_and_completions_of_two_kinds_are_refused_in_one_line(write, rows, changes, told):
    """By fields and places, and never with their content."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = TEMPLATE
    path = write("pairs.jsonl", "\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigurationError) as error:
        load_training_examples(
            config=configured(train_data=path, **ASKED, **changes), tokenizer=tokenizer
        )
    assert told in str(error.value)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value)


def test_tools_reach_the_chat_template(write):
    """What a record says beside its messages is not dropped."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{% for t in tools or [] %}<{{ t.name }}>{% endfor %}" + TEMPLATE
    chat = CHATS % (SAYS % 1)
    rows = [chat.replace("]}", '], "tools": [{"name": "look"}]}'), chat]
    rows.append(chat.replace("]}", '], "tools": "[{\\"name\\": \\"go\\"}]"}'))
    config = configured(train_data=write("chats.jsonl", "".join(rows)), messages_field="m")
    examples = load_training_examples(config=config, tokenizer=tokenizer)
    begun = [tokenizer.decode(example["input_ids"])[:7] for example in examples]
    assert begun == ["<look>[", "[user]h", "<go>[us"]


def test_padding_fills_each_field_with_what_changes_nothing():
    """Tokens are padded with the pad token, labels with -100, masks with 0, on the right."""
    batch = pad_examples(
        [
            {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "token_type_ids": [1, 1, 1]},
            {"input_ids": [8], "labels": [8], "token_type_ids": [1]},
        ],
        pad_token_id=9,
    )
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 9, 9]]
    assert batch["labels"].tolist() == [[-100, 6, 7], [8, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["token_type_ids"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_padding_keeps_a_mask_that_was_given():
    """An example's own attention mask is not overwritten."""
    batch = pad_examples([{"input_ids": [5, 6], "attention_mask": [0, 1]}], pad_token_id=0)
    assert batch["attention_mask"].tolist() == [[0, 1]]


def test_classes_pass_through_padding():
    """A number per example, such as its class, becomes one number a row."""
    batch = pad_examples(
        [{"input_ids": [1, 2], "labels": 3}, {"input_ids": [4], "labels": 0}], pad_token_id=0
    )
    assert batch["labels"].tolist() == [3, 0]


@pytest.mark.parametrize(("multiple", "width"), [(1, 3), (8, 8), (3, 3), (2, 4)])
def test_width_can_be_rounded_up(multiple, width):
    """`pad_to_multiple_of` rounds the width up, never down."""
    batch = pad_examples([{"input_ids": [1, 2, 3]}], pad_token_id=0, pad_to_multiple_of=multiple)
    assert batch["input_ids"].shape == (1, width)
