# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Production: a federation over TLS, with budgets, restarts and an eye on it
#
# Two clinics and a coordinator, on one machine here; on three the lines are the same. Every
# program is a real one: Flower's SuperLink, a SuperNode for each clinic, TLS between them. Nothing
# on this page is simulated. It takes a few minutes on two processor cores.
#
# It needs `pip install 'dpacc[federated]'`, openssl and ssh-keygen.

# %%
import atexit
import contextlib
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dpacc
from dpacc.federated.server.history import read_history
from dpacc_accounting.guarantee import rounded_up

ROOT = Path(dpacc.__file__).parents[1]
MODEL = str(ROOT / "data/smollm2-135m-instruct")
APP = str(ROOT / "recipes/federation")

os.chdir(tempfile.mkdtemp())
Path("flower").mkdir()
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
os.environ["FLWR_HOME"] = str(Path("flower").resolve())

# %% [markdown]
# Commands are what you would type into a terminal. `run` waits for one to end, `start` lets it go
# on beside the others, as in a terminal of its own.

# %%
programs = {}


def run(line):
    done = subprocess.run(
        shlex.split(line), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(name, line):
    with Path(f"{name}.log").open("ab") as log:
        programs[name] = subprocess.Popen(
            shlex.split(line),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait(holds, seconds=1200):
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "see the .log files"
        time.sleep(0.2)


def stop(name):
    program = programs.pop(name)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(program.pid, signal.SIGKILL)
    program.wait()


def stop_all():
    for name in list(programs):
        stop(name)


_ = atexit.register(stop_all)

# %% [markdown]
# ## Keys
#
# The coordinator makes an authority, and a certificate for its own machine by it.

# %%
NEW = "-newkey ec -pkeyopt ec_paramgen_curve:P-384 -nodes"
run(
    f"openssl req -x509 -days 365 {NEW} -subj /CN=federation "
    "-keyout ca.key -out ca.crt"
)
run(
    f"openssl req {NEW} -subj /CN=link -keyout server.key -out server.csr "
    "-addext subjectAltName=DNS:localhost,IP:127.0.0.1"
)
_ = run(
    "openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -days 365 "
    "-copy_extensions copy -out server.crt"
)

# %% [markdown]
# Each clinic makes a key of its own. Only `north.key.pub` leaves it; `ca.crt` comes back.

# %%
for name in ("north", "south"):
    run(f"ssh-keygen -q -t ecdsa -b 384 -N '' -f {name}.key")

# %% [markdown]
# ## The coordinator
#
# `dpacc.federated.superlink` is Flower's SuperLink, which insists on TLS and registered keys, and
# takes commands from its own machine only. Its database outlives it.


# %%
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens():
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", PORT)) == 0


PORT = free_port()
LINK = (
    f"python -m dpacc.federated.superlink --port {PORT} --database link.db "
    "--ssl-ca-certfile ca.crt --ssl-certfile server.crt --ssl-keyfile server.key"
)
start("link", LINK)
wait(listens)

# %% [markdown]
# It registers both keys. A node with another one is turned away.

# %%
Path("flower/config.toml").write_text(
    f"""
[superlink.federation]
address = "127.0.0.1:{PORT}"
root-certificates = "{Path("ca.crt").resolve()}"
"""
)
for name in ("north", "south"):
    run(f"flwr supernode register {name}.key.pub federation")

# %% [markdown]
# ## A clinic and its budget
#
# Each clinic has letters, and a total that all runs on them may cost together, for ever.
# `dpacc budget init` writes it down beside a key that stays with the data.

# %%
subjects = {
    "north": ["her heart beats too fast", "chest pain after the stairs"],
    "south": ["a broken wrist in plaster", "the knee bends without pain"],
}
for name, sentences in subjects.items():
    texts = [f"Letter {n}: {s}" for n in range(20) for s in sentences]
    lines = [json.dumps({"text": text}) for text in texts]
    Path(f"{name}.jsonl").write_text("\n".join(lines))
    run(
        f"dpacc budget init {name}.budget.jsonl --name {name} "
        f"--epsilon 10 --delta 1e-3 --data {name}.jsonl"
    )

# %% [markdown]
# What a clinic decides, stands in a file of its own: how its records are read, its ε, how many
# rounds the noise is sized for, and the budget that they are taken from. A coordinator's word
# counts for none of this. Two rounds are planned; the noise is sized for three, so that one may be
# lost to a crash.

# %%
for name in subjects:
    Path(f"{name}.toml").write_text(
        f"""
client-id = "{name}"
data-path = "{name}.jsonl"
folder = "run/{name}"
model = "{MODEL}"
task = "causal-lm"
max-length = 24
epsilon = 8.0
delta = 1e-3
expected-batch-size = 8
most-rounds = 3
budget = "{name}.budget.jsonl"
"""
    )
print(Path("north.toml").read_text())

# %% [markdown]
# `--app` is the program that the clinic has read. The node stops if the coordinator sends another.

# %%
NODE = (
    f"python -m dpacc.federated.supernode --app {APP} "
    f"--superlink localhost:{PORT} --root-certificates ca.crt "
    "--auth-supernode-private-key {name}.key --node-config {name}.toml "
    "--port {port}"
)
for name in subjects:
    start(name, NODE.format(name=name, port=free_port()))

# %% [markdown]
# ## The run

# %%
Path("run.toml").write_text(
    f"""
model = "{MODEL}"
num-clients = 2
rounds = 2
epsilon = 8.0
delta = 1e-3
lora-rank = 4
folder = "{Path("run/server").resolve()}"
"""
)
began = time.monotonic()
print(run(f"flwr run {APP} federation --run-config run.toml"))

# %% [markdown]
# ## An eye on it
#
# After each round the coordinator's `state.json`, with the `rounds.jsonl` beside it, says who took
# part and what each has spent. Both name the clinics, and stay with the coordinator.

# %%
state = Path("run/server/state.json")


def rounds():
    if not state.exists():
        return []
    return read_history(path=state).rounds


wait(lambda: len(rounds()) == 1)
print("round", rounds()[0].number, "of 2:", *rounds()[0].survivors)
for name, book in rounds()[0].books.items():
    spent = rounded_up(book.epsilon, digits=4)
    print(f"{name}: ε = {spent} of {book.epsilon_budget} at δ = 0.001")

# %% [markdown]
# A clinic need not believe that. Its own ledger is on its own disk, and is written before anything
# leaves.

# %%
print(run("dpacc spend run/north/ledger.jsonl"))

# %% [markdown]
# `dpacc dashboard run` shows all of this in a browser while it goes on, priced from the ledgers.
# What it shows as a list:

# %%
for each in json.loads(run("dpacc dashboard run --json"))["runs"]:
    steps = f"{each['steps']} of {each['planned_steps']} steps"
    print(f"{each['name']}: {each['state']}, {steps}")

# %% [markdown]
# ## Everything dies
#
# Now all programs are killed at once, as a power cut would.

# %%
stop_all()

# %% [markdown]
# They are started again by the same lines. The SuperLink knows its nodes from its database, and the
# nodes know what they have charged from their ledgers.
#
# For up to a minute the SuperLink takes a dead node for alive, and turns away who comes with its
# key. So a node belongs under a service manager that starts it again until it stays, such as
# systemd with `Restart=always`. This is ours:

# %%
start("link", LINK)
wait(listens)
for name in subjects:
    start(name, NODE.format(name=name, port=free_port()))


def returned():
    for name in subjects:
        if programs[name].poll() is not None:
            stop(name)
            start(name, NODE.format(name=name, port=free_port()))
    return Path("link.log").read_text().count("Activated node_id") == 4


wait(returned)

# %% [markdown]
# Both are back. The same `flwr run` goes on from `state.json`.

# %%
print(run(f"flwr run {APP} federation --run-config run.toml"))
wait(Path("run/server/rounds.yaml").exists)
for each in rounds():
    print("round", each["number"], each["survivors"], each["failed"])
print(
    f"{time.monotonic() - began:.0f} seconds from the first run to the last"
)

# %% [markdown]
# Steps that were charged when the lights went out stay charged, whether or not their update
# arrived. Nothing is forgotten and nothing is counted twice.
#
# ## What it cost
#
# `dpacc compose` prices the rounds anew, for the coordinator's view and for whoever gets the model.

# %%
print(run("dpacc compose run/server/rounds.yaml"))

# %% [markdown]
# Each clinic's budget holds what the whole federation may cost there, since its first step.
# `commit` writes down what it really cost. What is left can go to other runs on the same letters.

# %%
run("dpacc budget commit north.budget.jsonl run/north/ledger.jsonl")
print(run("dpacc budget show north.budget.jsonl"))

# %% [markdown]
# ## What may be published
#
# `run/server/adapter` has the adapter and a card on which clinics are numbers. `rounds.yaml`,
# `history.json` and `state.json` name them, and stay.

# %%
for path in sorted(Path("run/server/adapter").iterdir()):
    print(f"{path.stat().st_size:>9,} bytes  {path.name}")
run("dpacc report run/server/rounds.yaml --html report.html")
print(f"{Path('report.html').stat().st_size:>9,} bytes  report.html")

# %%
stop_all()

# %% [markdown]
# ## Before you do this for real
#
# - Three machines instead of one: `--host 0.0.0.0` for the SuperLink, its name in the certificate,
#   and its address for the nodes. Only its one port needs to be reachable.
# - Forty letters are far too few to learn anything under this noise. `dpacc federate tune` says
#   what pays.
# - To hide each clinic's update from the coordinator as well, add
#   [secure aggregation](secure_aggregation.py): `secure-threshold = 2` on both sides.
# - Flower tells the coordinator how long each answer took. [Time is not
#   protected](../threat_model.md).
#
# All settings, and what each side trusts: [run a federation](../federation_operations.md).
