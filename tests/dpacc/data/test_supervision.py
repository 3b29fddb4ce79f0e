"""The right tokens are learned, and no example is ever dropped."""

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dpacc.errors import ConfigurationError
from dpacc.data.supervision import IGNORED, tokenize_examples

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
CHAT = [
    {"role": "user", "content": "hello"},
    {"role": "assistant", "content": "good day"},
    {"role": "user", "content": "more"},
    {"role": "assistant", "content": "no"},
]


def byte_tokenizer(**options):
    """One token a byte, and <end>."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, **{"eos_token": "<end>", **options})


@pytest.fixture(scope="module")
def tokenizer():
    """A tokenizer with an end token and a chat template."""
    made = byte_tokenizer(pad_token="<end>")
    made.chat_template = TEMPLATE
    return made


def learned(tokenizer, example):
    """The text that an example teaches."""
    assert len(example["input_ids"]) == len(example["labels"])
    pairs = zip(example["input_ids"], example["labels"], strict=True)
    assert all(label in (token, IGNORED) for token, label in pairs)
    return tokenizer.decode([label for label in example["labels"] if label != IGNORED])


def test_all_of_a_plain_text_is_learned_and_that_it_ends(tokenizer):
    """Every token of a text is a label, and the end token follows."""
    (example,) = tokenize_examples(records=[{"text": "abc"}], tokenizer=tokenizer, max_length=10)
    assert example["labels"] == example["input_ids"]
    assert learned(tokenizer, example) == "abc<end>"


@pytest.mark.parametrize(("length", "kept"), [(2, "ab"), (3, "abc"), (4, "abc<end>")])
def test_a_cut_text_does_not_end(tokenizer, length, kept):
    """Truncation keeps the first tokens; a text that goes on gets no end token."""
    (example,) = tokenize_examples(
        records=[{"text": "abc"}], tokenizer=tokenizer, max_length=length
    )
    assert learned(tokenizer, example) == kept


def test_only_the_completion_is_learned(tokenizer):
    """The prompt's labels are -100; the completion's and the end's are their tokens."""
    (example,) = tokenize_examples(
        records=[{"question": "1+1=", "answer": " 2"}],
        tokenizer=tokenizer,
        max_length=10,
        prompt_field="question",
        completion_field="answer",
    )
    assert tokenizer.decode(example["input_ids"]) == "1+1= 2<end>"
    assert learned(tokenizer, example) == " 2<end>"


def test_only_the_assistants_turns_are_learned(tokenizer):
    """Each assistant turn is learned with the token that ends it, and nothing else is."""
    (example,) = tokenize_examples(
        records=[{"chat": CHAT}], tokenizer=tokenizer, max_length=100, messages_field="chat"
    )
    assert tokenizer.decode(example["input_ids"]) == tokenizer.apply_chat_template(
        CHAT, tokenize=False
    )
    assert learned(tokenizer, example) == "good day<end>no<end>"


def test_no_example_is_dropped(tokenizer):
    """Chats that leave nothing to learn stay, with loss zero: their number is in the plan."""
    chats = [{"m": CHAT[:1]}, {"m": []}]
    examples = tokenize_examples(
        records=chats, tokenizer=tokenizer, max_length=5, messages_field="m"
    )
    assert [learned(tokenizer, example) for example in examples] == ["", ""]
    assert all(1 <= len(example["input_ids"]) <= 5 for example in examples)


def test_an_empty_text_becomes_one_token_that_teaches_nothing():
    """Without an end token, an empty text is one filler token, for a model cannot read none."""
    tokenizer = byte_tokenizer(eos_token=None)
    (example,) = tokenize_examples(records=[{"text": ""}], tokenizer=tokenizer, max_length=5)
    assert example == {"input_ids": [0], "labels": [IGNORED]}


def test_many_texts_keep_their_order(tokenizer):
    """Texts are tokenized in batches and come out one for one."""
    texts = [str(number) for number in range(2_500)]
    examples = tokenize_examples(
        records=[{"text": text} for text in texts], tokenizer=tokenizer, max_length=10
    )
    assert [learned(tokenizer, example) for example in examples] == [f"{t}<end>" for t in texts]


def test_chats_need_a_chat_template():
    """A tokenizer without one is refused with what to do instead."""
    with pytest.raises(ConfigurationError, match="no chat template: use --prompt_field"):
        tokenize_examples(
            records=[{"m": CHAT}], tokenizer=byte_tokenizer(), max_length=9, messages_field="m"
        )


def test_a_prompt_gives_way_to_what_is_learned():
    """At least half of what is kept, or all of the completion, is learned; the first token stays.

    The budget would else be spent on prompts.
    """
    tokenizer = byte_tokenizer(bos_token="^")
    pairs = [("a long prompt", "gone"), ("a long prompt", "x"), ("p", "long answer"), ("", "abc")]
    kept = []
    for length in (6, 2):
        examples = tokenize_examples(
            records=[{"p": f"^{prompt}", "c": completion} for prompt, completion in pairs],
            tokenizer=tokenizer,
            max_length=length,
            prompt_field="p",
            completion_field="c",
        )
        assert all(len(example["input_ids"]) <= length for example in examples)
        kept.append([tokenizer.decode(example["input_ids"]) for example in examples])
        assert all(learned(tokenizer, example) for example in examples)
    assert kept[0] == ["^ptgon", "^mptx<end>", "^plong", "^abc<end>"]
    assert kept[1] == ["^g", "^x", "^l", "^a"]


def test_a_chat_that_begins_too_long_gives_way_too(tokenizer):
    """A user's first turn that fills the length leaves room for half of the answer."""
    chat = [{"role": "user", "content": "x" * 90}, {"role": "assistant", "content": "good day"}]
    (example,) = tokenize_examples(
        records=[{"m": chat}], tokenizer=tokenizer, max_length=20, messages_field="m"
    )
    assert tokenizer.decode(example["input_ids"]) == "[assistant]good day<end>"


def test_the_length_of_a_private_text_is_not_shown(tokenizer, caplog, capfd):
    """The tokenizer's own warning about long texts would show it."""
    transformers.utils.logging.enable_propagation()
    tokenize_examples(
        records=[{"p": "x" * 999, "c": "y"}],
        tokenizer=byte_tokenizer(model_max_length=10),
        max_length=8,
        prompt_field="p",
        completion_field="c",
    )
    transformers.utils.logging.disable_propagation()
    assert caplog.text == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("message", "part"),
    [
        ("my diagnosis", "message 0"),
        ({"role": "user"}, "message 0"),
        ({"role": "user", "content": ["my diagnosis"]}, "message 0"),
    ],
)
def test_a_malformed_chat_is_named_and_never_shown(tokenizer, message, part):
    """The error counts the record and the message, and quotes neither."""
    with pytest.raises(ConfigurationError) as refused:
        tokenize_examples(
            records=[{"m": CHAT}, {"m": [message]}],
            tokenizer=tokenizer,
            max_length=9,
            messages_field="m",
        )
    assert "record 2" in str(refused.value)
    assert part in str(refused.value)
    assert refused.value.__context__ is None
    assert "diagnosis" not in str(refused.value)


def test_a_template_that_refuses_is_quoted_by_name_only():
    """A template may quote a chat in its own error, so that text is not passed on."""
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = (
        "{{ raise_exception('bad: ' + messages[0].content) if messages[0].content != 'fine' }}fine"
    )
    chats = [[{"role": "user", "content": text}] for text in ("my diagnosis", "fine", "my illness")]
    with pytest.raises(
        ConfigurationError, match="records 1, 3: the chat template refused it"
    ) as no:
        tokenize_examples(
            records=[{"m": chat} for chat in chats],
            tokenizer=tokenizer,
            max_length=9,
            messages_field="m",
        )
    assert "TemplateError" in str(no.value)
    assert "diagnosis" not in str(no.value)
    assert no.value.__context__ is None
