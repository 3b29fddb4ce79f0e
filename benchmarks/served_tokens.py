"""A merged model's next-token probabilities: transformers' beside those of a llama.cpp server.

    llama-server -m merged/smollm2-reviews-q8_0.gguf --port 8080
    python benchmarks/served_tokens.py --merged merged --server http://127.0.0.1:8080

Ends with 1 where a prompt is other tokens there, or the log-probability of one of its eight
likeliest next tokens differs by more than `--most`. The server may be any that speaks llama.cpp's
`/tokenize` and `/completion`; xllamacpp, a package, starts one.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.request import Request, urlopen

import click
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

PROMPTS = (
    "The film",
    "A dull story, but",
    "I never",
    "  Two  spaces,\nand a line",
    "naïve 日本語 🙂",
)
_LIKELIEST = 8


@click.command(help=__doc__)
@click.option("--merged", required=True, help="The folder that recipes/merge.py wrote.")
@click.option("--server", default="http://127.0.0.1:8080", show_default=True)
@click.option("--most", default=0.5, show_default=True, help="The largest difference allowed.")
def main(merged: str, server: str, most: float) -> None:
    """Prompt by prompt."""
    tokenizer = AutoTokenizer.from_pretrained(merged, trust_remote_code=False)
    model = AutoModelForCausalLM.from_pretrained(
        merged, dtype=torch.float32, trust_remote_code=False
    ).eval()
    largest = 0.0
    for prompt in PROMPTS:
        tokens = tokenizer(prompt)["input_ids"]
        told = ask(server, "tokenize", content=prompt, add_special=True)["tokens"]
        if told != tokens:
            sys.exit(f"NOT SO: {prompt!r} is {tokens} here and {told} there")
        with torch.no_grad():
            ours = model(torch.tensor([tokens])).logits[0, -1].log_softmax(dim=-1)
        wanted = {"n_predict": 1, "n_probs": _LIKELIEST, "cache_prompt": False}
        said = ask(server, "completion", prompt=tokens, **wanted)["completion_probabilities"][0]
        differences = [
            abs(each["logprob"] - float(ours[each["id"]])) for each in said["top_logprobs"]
        ]
        largest = max(largest, *differences)
        click.echo(f"{prompt!r}: {len(tokens)} tokens alike, within {max(differences):.4f}")
    click.echo(f"{'ok' if largest <= most else 'NOT SO'}: all within {most}")
    sys.exit(largest > most)


def ask(server: str, what: str, **given: Any) -> Any:
    """One answer of the server."""
    body = json.dumps(given).encode()
    request = Request(f"{server}/{what}", body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=600) as answer:
        return json.load(answer)


if __name__ == "__main__":
    main()
