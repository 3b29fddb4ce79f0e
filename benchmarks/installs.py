"""Build both distributions twice, and install them into empty environments of each Python.

    python benchmarks/installs.py python3.11 python3.12 python3.13
    python benchmarks/installs.py --train --bill dpacc.cdx.json python3.11

Of each interpreter: `pip install ./accounting` alone, which keeps books; both sdists, which plan
noise; and both wheels. `--train` adds the extra of that name to the wheels, gigabytes of it, and
trains a tiny random model. `--bill` writes what the wheels' environment holds as a software bill of
materials (CycloneDX 1.6), the same bytes each time. Packages come from where pip finds them, in the
versions of constraints.txt. Ends with 1 where two builds differ, or an installation does not do its
work. Needs no package itself.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PLAN = ["--dataset-size", "67349", "--batch-size", "256", "--epochs", "3"]
_BOOKS = """\
from importlib.util import find_spec
from dpacc_accounting import Ledger, calibrate_noise, epsilon, read_ledger
found = calibrate_noise(dataset_size=67349, batch_size=256, epochs=3, epsilon=8.0, delta=1e-5)
with Ledger.open(path="ledger.jsonl", plan={"steps": found.steps}) as ledger:
    ledger.charge(step=1, event=found.event)
spent = epsilon(event=read_ledger(path="ledger.jsonl").event, delta=1e-5)
assert 7.99 < spent.epsilon <= 8 and not find_spec("click") and not find_spec("torch")
"""
_MODEL = """\
import json
from pathlib import Path
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
words = ["<pad>", "<s>", "</s>", "<unk>", "the", "film", "was", "dull", "but", "its", "music"]
split = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
split.pre_tokenizer = Whitespace()
PreTrainedTokenizerFast(
    tokenizer_object=split, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
).save_pretrained("model")
LlamaForCausalLM(LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)).save_pretrained("model")
texts = (" ".join(words[4 + i % 4 : 7 + i % 5]) for i in range(60))
Path("texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\\n" for text in texts))
"""
_BILLS = "cyclonedx-bom==7.5.0"
_TRAIN = {
    **{"model": "model", "train_data": "texts.jsonl", "output_dir": "runs", "name": "tiny"},
    **{"epsilon": 8, "expected_batch_size": 12, "steps": 2, "lora_target_modules": "q_proj,v_proj"},
    "dtype": "float32",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Build; then each Python."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("pythons", nargs="+", metavar="PYTHON")
    parser.add_argument("--train", action="store_true", help="Also the extra, and a tiny run.")
    parser.add_argument("--bill", type=Path, metavar="FILE", help="Of the last Python's wheels.")
    told = parser.parse_args(arguments)
    pythons = [located(name) or parser.error(f"there is no {name}") for name in told.pythons]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wheels, sdists = build(pythons[0], folder)
        for python in pythons:
            inside = try_out(python, folder, wheels=wheels, sdists=sdists, train=told.train)
        if told.bill:
            told.bill.write_text(bill_of_materials(inside, folder), encoding="utf-8")


def located(name: str) -> str | None:
    """Where an interpreter lies, seen from any folder; a link into an environment stays one."""
    found = shutil.which(name)
    return found and str(Path(found).absolute())


def build(python: str, folder: Path) -> tuple[list[Path], list[Path]]:
    """Wheels and sdists, the accountant's first; the second build must give the same bytes."""
    builder = environment(python, folder / "builder", "build")
    for place in ("dist", "again"):
        for source in (ROOT / "accounting", ROOT):
            run(folder, builder, "-m", "build", "--outdir", folder / place, source)
    built = sorted((folder / "dist").iterdir(), key=lambda path: "accounting" not in path.name)
    for path in built:
        require(
            path.read_bytes() == (folder / "again" / path.name).read_bytes(),
            f"{path.name} is built alike twice",
        )
    return [p for p in built if p.suffix == ".whl"], [p for p in built if p.suffix == ".gz"]


def try_out(
    python: str, folder: Path, *, wheels: list[Path], sdists: list[Path], train: bool
) -> str:
    """One interpreter, in environments that hold nothing else; that of the wheels stays."""
    version = run(folder, python, "-c", "import platform; print(platform.python_version())").strip()
    place = folder / version
    place.mkdir()
    alone = environment(python, place / "alone", ROOT / "accounting")
    run(place, alone, "-I", "-c", _BOOKS)
    require(True, f"{version}: pip install ./accounting calibrates and keeps books, alone")
    plan(place, environment(python, place / "sdists", *sdists))
    require(True, f"{version}: sdists plan noise")
    last = wheels[-1]
    extra = [f"{last}[train]" if train else last]
    inside = environment(python, place / "wheels", *wheels[:-1], *extra)
    plan(place, inside)
    require(True, f"{version}: wheels plan noise")
    if train:
        run(place, inside, "-I", "-c", _MODEL)
        words = [f"--{key}={value}" for key, value in _TRAIN.items()]
        run(place, inside, "-I", "-m", "dpacc", "train", *words)
        run(place, inside, "-I", "-m", "dpacc", "verify", "runs/tiny")
        torch = run(place, inside, "-I", "-c", "import torch; print(torch.__version__)").strip()
        require(True, f"{version}: wheels train and verify, with torch {torch}")
    return inside


def bill_of_materials(inside: str, folder: Path) -> str:
    """An environment's packages, with versions and licences, checked by the format's schema."""
    for path in Path(inside).parents[1].rglob("direct_url.json"):
        path.unlink()  # where the wheel lay on this machine
    tool = environment(inside, folder / "bill", _BILLS)
    words = ["-m", "cyclonedx_py", "environment", "--output-reproducible"]
    words += ["--pyproject", str(ROOT / "pyproject.toml"), inside]
    first, again = run(folder, tool, *words), run(folder, tool, *words)
    require(first == again, "the bill of materials is valid, and the same twice")
    return first


def plan(folder: Path, python: str) -> None:
    """The command line answers, and its answer is a plan within its target."""
    words = ["--epsilon", "8", "--delta", "1e-5", *_PLAN, "--json"]
    command = Path(python).with_name(f"dpacc{Path(python).suffix}")
    answer = json.loads(run(folder, command, "calibrate", *words))
    require(
        0.463 < answer["noise_multiplier"] < 0.465, "a plan's noise is the known one", told=False
    )


def environment(python: str, place: Path, *packages: str | Path) -> str:
    """An empty environment with `packages`; its interpreter."""
    run(place.parent, python, "-m", "venv", place)
    inside = str(place / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(place.parent, inside, *pip, "--constraint", ROOT / "constraints.txt", *packages)
    return inside


def run(folder: Path, *command: str | Path) -> str:
    """What a command prints; ends with 1, and says why, where it fails.

    Neither a checkout on PYTHONPATH nor the folder it is called from lends it a package.
    """
    told = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=told,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", file=sys.stderr)
    require(done.returncode == 0, " ".join(map(str, command))[:200], told=False)
    return done.stdout


def require(holds: bool, what: str, *, told: bool = True) -> None:
    """Say what is so, or end with 1."""
    if told or not holds:
        print(f"{'ok' if holds else 'NOT SO'}: {what}", flush=True)
    if not holds:
        sys.exit(1)


if __name__ == "__main__":
    main()
