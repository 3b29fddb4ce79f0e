# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # What a server sees, with secure aggregation and without
#
# Three clinics train one adapter. Their letters stay at home; only updates travel. Is that enough?
# This page looks at what arrives at the server, attacks it, and then hides it in a sum. It takes
# a few minutes on two processor cores.

# %%
import json
import os
import tempfile
import warnings
from pathlib import Path

import dpacc
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(dpacc.__file__).parents[1]
MODEL = str(ROOT / "data/smollm2-135m-instruct")

plt.rcParams["figure.dpi"] = 130
os.environ["TQDM_DISABLE"] = "1"
warnings.filterwarnings("ignore", message="IProgress")
os.chdir(tempfile.mkdtemp())

# %% [markdown]
# ## Three clinics
#
# Each has letters of its own kind.

# %%
subjects = {
    "north": ["her heart beats too fast", "chest pain after the stairs"],
    "east": ["he coughs at night", "the lungs sound clear again"],
    "south": ["a broken wrist in plaster", "the knee bends without pain"],
}
openings = [
    "Dear colleague,",
    "Seen today:",
    "For your information:",
    "Note:",
]


def write(name, sentences):
    texts = [f"{first} {text}" for first in openings for text in sentences]
    lines = [json.dumps({"text": text}) for text in texts]
    Path(f"{name}.jsonl").write_text("\n".join(lines))


for name, sentences in subjects.items():
    write(name, sentences)
print(Path("north.jsonl").read_text()[:180])

# %% [markdown]
# The unit here is a whole clinic with all its letters, which is called *client level*. Each clinic
# trains a small adapter without noise. Noise is added to the sum of the three updates.

# %%
from dpacc.federated import ClientPrivacy, LoraSettings, TrustingClient

adapter = LoraSettings(
    rank=4,
    alpha=8.0,
    method="ffa",
    target_modules=("q_proj", "v_proj"),
)
privacy = ClientPrivacy(
    noise_multiplier=1.0,
    clipping_norm=0.5,
    delta=1e-5,
    unit="clinic",
)


def clinic(name):
    return TrustingClient(
        client_id=name,
        data_path=f"{name}.jsonl",
        model_name=MODEL,
        lora_config=adapter,
        batch_size=4,
        task={"max_length": 32},
        folder=f"run/{name}",
    )


# %% [markdown]
# ## Listening at the wire
#
# This wrapper changes nothing. It keeps a copy of what leaves a client for the server.


# %%
class Wire:
    def __init__(self, client):
        self.client, self.heard = client, None

    def __getattr__(self, name):
        return getattr(self.client, name)

    @property
    def app(self):
        answer = self.client.app

        def ask(message, context):
            reply = answer(message, context)
            if "arrays" in reply.content:
                self.heard = reply.content["arrays"]
            return reply

        return ask


# %% [markdown]
# One round, and the numbers that the server got from each client, in one row each:


# %%
from dpacc.federated import FederatedServer
from dpacc.federated.server.history import read_history


def one_round(clients, folder, **settings):
    server = FederatedServer(
        model_name=MODEL,
        num_clients=len(clients),
        rounds=1,
        lora_config=adapter,
        client_privacy=privacy,
        folder=folder,
        **settings,
    )
    wires = [Wire(client) for client in clients]
    history = server.train(clients=wires)
    arrays = [[a.numpy().ravel() for a in w.heard.values()] for w in wires]
    return history, np.array([np.concatenate(each) for each in arrays])


history, plain = one_round([clinic(name) for name in subjects], "run/plain")
print(history.rounds[0].survivors)
print(plain.shape[1], "numbers from each clinic, such as")
print(plain[0, :6])

# %% [markdown]
# ## An attack
#
# The server has heard rumours: sentences that might come from the clinics, in no order. It wants
# to know who treats hearts. So it trains an adapter on each rumour by itself, and looks which
# clinic's update points the same way.

# %%
rumours = {
    "lungs": subjects["east"][:1],
    "bones": subjects["south"][:1],
    "hearts": subjects["north"][:1],
}
for name, sentences in rumours.items():
    write(name, sentences)
_, guesses = one_round([clinic(name) for name in rumours], "run/guesses")


# %%
def cosines(updates):
    updates = updates - updates.mean(axis=0)
    own = guesses - guesses.mean(axis=0)
    lengths = np.linalg.norm(updates, axis=1)[:, None]
    return updates @ own.T / lengths / np.linalg.norm(own, axis=1)


def table(found, title):
    fig, axes = plt.subplots(figsize=(4.4, 2.8))
    picture = axes.imshow(found, cmap="Blues", vmin=0, vmax=0.8)
    axes.set_xticks(
        range(3), [f"rumour of {name}" for name in rumours], rotation=20
    )
    axes.set_yticks(range(3), list(subjects))
    for (row, column), value in np.ndenumerate(found):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center")
    fig.colorbar(picture)
    axes.set_title(title)
    fig.tight_layout()


found = cosines(plain)
table(found, "without secure aggregation")

# %%
names = list(rumours)
for name, row in zip(subjects, found, strict=True):
    print(f"{name}: the server believes it treats {names[row.argmax()]}")

# %% [markdown]
# Letters never travelled, and the server knows all the same. An update is a summary of what it was
# trained on. (The mean over the clinics is taken off first: it is what all letters share.)
#
# ## How a sum hides its parts
#
# Any two clients agree on a secret mask, one random number for each number of the update. One adds
# it, the other subtracts it. With whole numbers modulo 2³² a masked number is *uniform*: every
# value is equally likely, whatever the update says. In the sum the masks cancel.

# %%
dice = np.random.default_rng(0)
a, b, c = np.array([[5], [7], [11]], dtype=np.uint32)
ab, bc, ca = dice.integers(2**32, size=(3, 1), dtype=np.uint32)
sent = [a + ab - ca, b - ab + bc, c - bc + ca]
print("sent:", *sent)
print("sum: ", np.sum(sent, dtype=np.uint32))

# %% [markdown]
# A real mask must not come from a fixed seed. dpacc makes one from fresh X25519 keys in each round,
# stretched by AES. Seeds are shared among the clients too, so that a sum may still open when some
# of them drop out ([Bonawitz et al., 2017](https://eprint.iacr.org/2017/281)).
#
# ## The same round in a secure sum
#
# Server and clinics name the same `SecureSum`. Each clinic clips its update, adds *its share of the
# noise*, and masks. `colluding=1` says that one clinic may tell the server its own share, so the
# other two hold the whole noise.

# %%
from dpacc.federated import SecureClient, SecureSum

agreed = SecureSum(clients=3, colluding=1)
hidden = [
    SecureClient(
        client=clinic(name),
        secure_sum=agreed,
        privacy=privacy,
        most_rounds=1,
        folder=f"run/hidden-{name}",
    )
    for name in subjects
]
history, masked = one_round(hidden, "run/hidden", secure_sum=agreed)
print(history.rounds[0].survivors)
print(masked[0, :6])

# %%
fig, (left, right) = plt.subplots(1, 2, figsize=(6.8, 2.8))
left.hist(plain[0], bins=60)
left.set(title="an update", xlabel="number", yscale="log")
right.hist(masked[0], bins=60)
right.set(title="the same clinic, masked", xlabel="number")
fig.tight_layout()

# %% [markdown]
# On the right nothing is left of the update: all values from 0 to 2³² are as common. The attack
# again, on what the server gets now:

# %%
found_masked = cosines(masked.astype(np.uint32).view(np.int32).astype(float))
table(found_masked, "with secure aggregation")

# %% [markdown]
# All cosines are near zero. What remains is chance.
#
# ## What the sum still tells
#
# A sum of three updates is about all three clinics. It is published with the adapter, so it needs
# noise of its own; hiding the parts does not replace it. What the opened sum cost stands in the
# server's ledger, and each clinic charged a ledger of its own before its numbers left:

# %%
price = history.guarantee().prices[-1]
print(price.server)

# %% [markdown]
# Each clinic takes part in every round here, and nothing is amplified by sampling. With three
# clinics this noise drowns what they have to say: client level is for hundreds of clients and
# more. A few organisations protect single patients instead, at *example level*: each adds noise in
# its own training, and a secure sum hides that noised update besides.
#
# ## What it costs

# %%
for title, each in (("plain", "run/plain"), ("secure sum", "run/hidden")):
    (report,) = read_history(path=Path(each, "state.json")).rounds
    print(f"{title:>10}: {report.bytes_received:,} bytes from all clinics")

# %% [markdown]
# A masked number takes four bytes, as a plain one does. The keys are small beside them.
#
# ## What it does not do
#
# - **It trusts the server to pass on keys.** Keys are signed by nobody. A server that invents
#   clients, or swaps keys, could open one clinic's numbers. Then only the noise in them protects
#   it: `colluding` counts those that may be invented.
# - **It checks no update.** A hostile clinic can spoil the sum, and no defence can look for it.
# - **It hides nothing that all see:** who took part, when, and the sum.
#
# Next: [a federation over TLS](production.py). More:
# [federations](../federation_privacy.md#secure-aggregation), and from whom what is protected in the
# [threat model](../threat_model.md). What ε means is in the
# [first tutorial](differential_privacy.py).
