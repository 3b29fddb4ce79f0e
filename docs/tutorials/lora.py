# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Private LoRA, from a file of text to a published adapter
#
# A small language model learns from 500 private sentences. What comes out may be published: an
# adapter, a card that says what is promised, and a report for who reads no code. It takes a few
# minutes on two processor cores.
#
# The model and the sentences are those of `make train`; `python recipes/fetch_demo.py` fetches
# both.

# %%
import json
import os
import runpy
import shlex
import tempfile
import warnings
from pathlib import Path

import dpacc
import matplotlib.pyplot as plt

ROOT = Path(dpacc.__file__).parents[1]
MODEL = "data/smollm2-135m-instruct"
REVIEWS = "data/movie_reviews"
RECORDS = 500
HELD_OUT = 100

plt.rcParams["figure.figsize"] = (6.4, 3.0)
plt.rcParams["figure.dpi"] = 130
os.environ["TQDM_DISABLE"] = "1"
os.environ["JUPYTER_COLUMNS"] = "66"
warnings.filterwarnings("ignore", message="IProgress")
os.chdir(tempfile.mkdtemp())
Path("data").symlink_to(ROOT / "data")

# %% [markdown]
# Commands on this page are what you would type into a terminal, between quotes.

# %%
from dpacc.cli.main import dpacc as command


def terminal(line):
    program, *words = shlex.split(line)
    try:
        command.main(words, prog_name=program, standalone_mode=False)
    except SystemExit as end:
        if end.code:
            raise


# %% [markdown]
# ## The file
#
# One record a line. Here each is a sentence of a film review, by somebody else.

# %%
for name, source, count in (
    ("notes.jsonl", "train.jsonl", RECORDS),
    ("public.jsonl", "held_out.jsonl", HELD_OUT),
):
    lines = Path(REVIEWS, source).read_text().splitlines()[:count]
    Path(name).write_text("\n".join(lines) + "\n")

print(Path("notes.jsonl").read_text()[:200])

# %% [markdown]
# `notes.jsonl` is private. `public.jsonl` is not: it only measures how well the model does, exactly
# and without noise. No private record may be in it, and dpacc refuses a run where one is.
#
# ## A configuration
#
# `dpacc init` looks at which fields there are, and writes a configuration with a comment on every
# setting. Two things only you know: ε, and whose a record is. Here each record is somebody
# else's, so `--unit_field null`. If one patient had several, it would be `--unit_field patient`.

# %%
terminal(
    f"dpacc init notes.jsonl --model {MODEL} --epsilon 8 --unit_field null "
    "--held_out_data public.jsonl --lora_target_modules q_proj,v_proj "
    "--expected_batch_size 64 --steps 8 --name notes --output notes.yaml"
)

# %% [markdown]
# δ was not given, so it is N^-1.1, and 0.001 at most: below one over the number of records. The
# noise follows from ε, δ, the batch and the steps. It is fixed before any record is looked at.
#
# The line `noise` compares it with the most that the data could say. Five hundred records are few:
# with more of them the noise would be the same, and matter less.

# %%
print(Path("notes.yaml").read_text()[:1500])

# %% [markdown]
# ## Training
#
# `recipes/train.py` is a script to copy and edit. In a terminal it is started by the line that
# `dpacc init` printed, here from this notebook.
#
# In each step every record is drawn by a secret coin. The gradient of each is clipped by itself,
# they are added up, the step is written to the ledger, and noise is added once. Neither losses nor
# batch sizes are shown: they are private.

# %%
train = runpy.run_path(str(ROOT / "recipes/train.py"))["main"]
train(["--config", "notes.yaml"])

# %% [markdown]
# ## What it left
#
# The run's folder stands for itself.

# %%
folder = Path("runs/notes")
for path in sorted(folder.iterdir()):
    print(f"{path.stat().st_size:>9,} bytes  {path.name}")

# %% [markdown]
# `metrics.jsonl` says where the run stood after each step. ε was known in advance; the first step
# costs most.

# %%
course = [json.loads(line) for line in (folder / "metrics.jsonl").open()]
course = [row for row in course if "step" in row]

fig, axes = plt.subplots()
axes.plot(
    [row["step"] for row in course], [row["epsilon"] for row in course], "o-"
)
axes.axhline(8, color="k", linestyle=":", label="the budget")
axes.set(xlabel="step", ylabel="ε spent", ylim=(0, 9))
axes.legend()
fig.tight_layout()

# %% [markdown]
# ## What is promised
#
# The ledger knows what was really released. `dpacc spend` prices it, without looking at what the
# configuration had planned.

# %%
terminal("dpacc spend runs/notes")

# %% [markdown]
# Other code should arrive at the same figure. `dpacc verify` asks a Rényi accountant and, where it
# is installed, Google's dp-accounting.

# %%
terminal("dpacc verify runs/notes")

# %% [markdown]
# In words, with what is *not* covered:

# %%
terminal("dpacc explain runs/notes")

# %% [markdown]
# ## The adapter
#
# It is an ordinary PEFT adapter, and small beside the model. Whatever is computed from it later is
# covered by the same ε.

# %%
import torch
from dpacc.recipe.models import load_adapter, load_base

base = load_base(model=MODEL)
model = load_adapter(model=base.model, folder=folder).eval()
words = base.tokenizer("This film", return_tensors="pt")
torch.manual_seed(0)
with torch.no_grad():
    written = model.generate(
        **words, max_new_tokens=24, do_sample=True, top_p=0.9
    )
print(base.tokenizer.decode(written[0], skip_special_tokens=True))

# %% [markdown]
# ## A report
#
# One document for a privacy officer, an ethics board or an auditor. It is a page that opens
# without a network, and the same as a PDF. Everything in it is priced anew from the ledger.

# %%
terminal("dpacc report runs/notes --html report.html --pdf report.pdf")
for name in ("report.html", "report.pdf"):
    print(f"{Path(name).stat().st_size:>9,} bytes  {name}")

# %% [markdown]
# ## Publishing
#
# These files of the folder are for others. `push_to_hub: owner/name` in the configuration uploads
# them, and nothing else, when the run is finished. `config.yaml` stays: it names the private file.

# %%
from dpacc.artifacts.hub import PUBLISHED

print("\n".join(name for name in PUBLISHED if (folder / name).exists()))

# %% [markdown]
# The card is the first thing that others read.

# %%
card = (folder / "README.md").read_text().split("---", 2)[2]
print(card.strip()[:430])

# %% [markdown]
# Whoever gets the folder can run `dpacc spend`, `dpacc verify` and `dpacc report` on it, and needs
# neither the data nor your word.
#
# ## What to remember
#
# - This ε holds for one record more or less, for this run alone. A second run on the same file
#   costs more: a [budget](../budget.md) keeps the total.
# - Trying several settings and keeping the best is several runs; a
#   [private sweep](../recipes.md#compare-settings) pays for it.
# - ε = 8 is usual and weak; 1 is strong. [What an attacker can gain](differential_privacy.py)
#   says what either means.
# - More on [your own data](../recipes.md), and where guarantees are lost in practice:
#   [sharp edges](../sharp_edges.md).
