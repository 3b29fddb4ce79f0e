"""What Ollama makes a model of: a file of lines beside the GGUF file."""

from __future__ import annotations

MODELFILE = "Modelfile"

_LINES = """\
# ollama create {name} -f Modelfile
# What is promised to those in its training data, if anything is, stands in README.md and
# privacy.json here, and in {file} under dpacc.card and dpacc.privacy.
FROM ./{file}
{template}PARAMETER temperature 1
"""
# Training showed prompts and texts as they are.
_AS_IT_IS = 'TEMPLATE """{{ .Prompt }}"""\n'
_OF_THE_FILE = "# No TEMPLATE: that of chats is in the file; `ollama show` says what is taken.\n"


def modelfile(*, name: str, file: str, chats: bool) -> str:
    """The lines, for a GGUF file in the same folder.

    Args:
        name: of the model.
        file: of the weights.
        chats: whether it learned from chats; else prompts go to it as they are.

    >>> print(modelfile(name="notes", file="notes-q8_0.gguf", chats=False).splitlines()[3])
    FROM ./notes-q8_0.gguf
    """
    template = _OF_THE_FILE if chats else _AS_IT_IS
    return _LINES.format(name=name, file=file, template=template)
