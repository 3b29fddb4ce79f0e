"""What the README shows is what happens."""

import doctest
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "accounting" / "README.md"


def test_the_examples_print_what_they_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every line of code in the README runs, and prints exactly what stands under it."""
    monkeypatch.chdir(tmp_path)
    blocks = README.read_text().split("```python\n")[1:]
    code = "\n".join(block.partition("```")[0] for block in blocks)
    test = doctest.DocTestParser().get_doctest(code, {}, "README", str(README), 0)
    assert len(blocks) >= 2
    assert len(test.examples) >= 6
    complaints: list[str] = []
    outcome = doctest.DocTestRunner().run(test, out=complaints.append)
    assert outcome.failed == 0, "".join(complaints)
