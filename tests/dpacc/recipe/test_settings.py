"""Settings are read from YAML and the command line, and anything doubtful is refused in a line."""

from dataclasses import dataclass
from typing import Literal

import pytest

from dpacc.errors import ConfigurationError
from dpacc.recipe.settings import check_limits, describe_settings, read_settings, setting


@dataclass(frozen=True, kw_only=True)
class Oven:
    """A small set of settings with one field of every type."""

    degrees: float = setting("How hot.", above=0, at_most=300)
    dish: str = setting("What is in it.", default="pie")
    minutes: int | None = setting("How long.", default=None, at_least=1)
    fan: bool = setting("Whether air is moved.", default=False)
    heat: Literal["top", "bottom"] = setting("Where from.", default="top")
    trays: tuple[str, ...] = setting("What stands in it.", default=("wire",))

    def __post_init__(self):
        check_limits(settings=self)


def read(*arguments):
    """What the oven is told by these arguments."""
    return read_settings(kind=Oven, arguments=arguments, usage="Bake.")


@pytest.fixture
def yaml_file(tmp_path):
    """Write a YAML file and return its path as text."""

    def write(text):
        path = tmp_path / "oven.yaml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def test_the_command_line_overrides_the_file(yaml_file):
    """A value given after --config wins over the file's; others stay."""
    path = yaml_file("degrees: 180\nminutes: 40\n")
    oven = read("--config", path, "--degrees", "200")
    assert (oven.degrees, oven.minutes, oven.dish) == (200.0, 40, "pie")


@pytest.mark.parametrize(
    "arguments", [("--degrees=180",), ("--degrees", "180"), ("--degrees", "1.8e2")]
)
def test_a_number_may_be_spelt_in_several_ways(arguments):
    """--name value and --name=value mean the same, and 1.8e2 is 180."""
    assert read(*arguments).degrees == 180.0


def test_a_list_in_the_file_is_taken_as_it_is(yaml_file):
    """Also the space that a name begins with."""
    path = yaml_file('degrees: 180\ntrays: [" wire", stone]\n')
    assert read("--config", path).trays == (" wire", "stone")


def test_hyphens_and_underscores_are_alike(yaml_file):
    """A name may be written with - or _, in the file and on the command line."""

    @dataclass(frozen=True, kw_only=True)
    class Timer:
        run_time: int = setting("Minutes.")

    path = yaml_file("run-time: 1\n")
    assert read_settings(kind=Timer, arguments=["--run-time", "3"]).run_time == 3
    assert read_settings(kind=Timer, arguments=["--run_time", "3"]).run_time == 3
    assert read_settings(kind=Timer, arguments=["--config", path]).run_time == 1


@pytest.mark.parametrize(
    ("text", "value"), [("1e-5", 1e-5), ("1E+2", 100.0), ("1.5e-3", 1.5e-3), ("2", 2.0)]
)
def test_yaml_numbers_with_an_exponent_are_numbers(yaml_file, text, value):
    """1e-5, which YAML 1.1 takes for text, is read as a number."""
    assert read("--config", yaml_file(f"degrees: {text}\n")).degrees == value


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (("--fan",), "fan", True),
        (("--fan", "no"), "fan", False),
        (("--fan", "--minutes", "3"), "fan", True),
        (("--minutes", "null"), "minutes", None),
        (("--minutes", "none"), "minutes", None),
        (("--minutes", "30.0"), "minutes", 30),
        (("--dish", "007"), "dish", "007"),
        (("--trays", "wire,stone"), "trays", ("wire", "stone")),
        (("--trays", "[wire, 'stone']"), "trays", ("wire", "stone")),
        (("--trays", "' wire', \" stone\""), "trays", (" wire", " stone")),
        (("--heat", "bottom"), "heat", "bottom"),
    ],
)
def test_words_become_the_fields_type(arguments, field, value):
    """Each field's type decides how a word on the command line is read."""
    assert getattr(read("--degrees", "180", *arguments), field) == value


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("--degres", "180"), ["degres", "did you mean degrees?"]),
        (("--qqqq", "180"), ["qqqq", "--help"]),
        ((), ["degrees is required", "--degrees"]),
        (("--degrees", "hot"), ["degrees='hot'", "a number"]),
        (("--degrees", "nan"), ["degrees='nan'", "a number"]),
        (("--degrees", "inf"), ["degrees='inf'", "a number"]),
        (("--degrees", "-1"), ["degrees=-1.0", "above 0"]),
        (("--degrees", "301"), ["degrees=301.0", "at most 300"]),
        (("--degrees", "1", "--minutes", "0"), ["minutes=0", "at least 1"]),
        (("--degrees", "1", "--minutes", "1.5"), ["minutes='1.5'", "whole number"]),
        (("--degrees", "1", "--heat", "left"), ["heat='left'", "top|bottom"]),
        (("--degrees", "1", "--fan", "maybe"), ["fan='maybe'", "true|false"]),
        (("--degrees", "1", "--trays", "a,,b"), ["trays='a,,b'", "list of names"]),
        (("--degrees",), ["--degrees has no value"]),
        (("180",), ["unexpected argument '180'"]),
        (("--config", "nowhere.yaml"), ["nowhere.yaml", "No such file"]),
    ],
)
def test_doubtful_arguments_are_refused_in_one_line(arguments, parts):
    """Every refusal is a single line that shows the value and what would do."""
    with pytest.raises(ConfigurationError) as refusal:
        read(*arguments)
    message = str(refusal.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("degrees: 1\ndegrees: 2\n", ["degrees (line 2)", "given twice"]),
        ("a-b: 1\na_b: 2\n", ["a_b (line 2)", "given twice"]),
        ("degrees: 1\ndegres: 2\n", ["degres", "did you mean degrees?"]),
        ("degrees: [1\n", ["not valid YAML", "line"]),
        ("- 180\n", ["`name: value`"]),
        ("", ["`name: value`"]),
        ("degrees: true\n", ["degrees=True", "a number"]),
        ("degrees: 1\ndish: 7\n", ["dish=7", "text"]),
        ("degrees: 1\ntrays: []\n", ["trays=[]", "list of names"]),
        ("degrees: null\n", ["degrees=null", "a number"]),
        ("degrees: !!python/object/apply:os.getcwd []\n", ["not valid YAML"]),
    ],
)
def test_doubtful_files_are_refused_in_one_line(yaml_file, text, parts):
    """A duplicate, a misspelling, a wrong type, and YAML that runs code are all refused."""
    with pytest.raises(ConfigurationError) as refusal:
        read("--config", yaml_file(text))
    message = str(refusal.value)
    assert all(part in message for part in parts), message
    assert "\n" not in message


def test_bytes_that_are_no_text_are_refused(tmp_path):
    """A configuration that is not UTF-8 is named as such."""
    path = tmp_path / "oven.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        read("--config", str(path))


def test_help_lists_every_setting(capsys):
    """--help prints each name, its type, its default and its meaning, and exits with 0."""
    with pytest.raises(SystemExit) as leaving:
        read("--help")
    text = capsys.readouterr().out
    assert leaving.value.code == 0
    assert text.strip() == describe_settings(kind=Oven, usage="Bake.")
    assert "--degrees a number  (required)" in text
    assert "--minutes a whole number or null  (default null)" in text
    assert "--fan true|false  (default false)" in text
    assert "--heat top|bottom  (default top)" in text
    assert "What stands in it." in text
