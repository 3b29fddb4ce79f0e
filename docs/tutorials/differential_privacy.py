# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Differential privacy, from one count to a federation
#
# What ε and δ mean, what makes them small, and whose data they speak of. Nothing here needs a
# language model: numpy, matplotlib and the accountant are enough. All of it runs in a minute.

# %%
import matplotlib.pyplot as plt
import numpy as np
from dpacc_accounting import (
    Gaussian,
    PoissonSampled,
    Repeated,
    delta,
    epsilon,
)

plt.rcParams["figure.figsize"] = (6.4, 3.0)
plt.rcParams["figure.dpi"] = 130

# %% [markdown]
# ## What an exact answer gives away
#
# A hospital counts how many of its ten patients have a disease. It publishes the count before Ann
# comes, and again after.

# %%
patients = [1, 0, 0, 1, 1, 0, 0, 0, 1, 0]
ann = 1
print("before Ann:", sum(patients))
print("with Ann:  ", sum([*patients, ann]))

# %% [markdown]
# The difference is Ann's diagnosis. No name was published, and none was needed.
#
# The two data sets are *neighbours*: one has one person more. This page uses this
# *add-or-remove adjacency* everywhere. The person is the *privacy unit*.

# %% [markdown]
# ## Noise makes neighbours look alike
#
# One person moves the count by at most 1; this is its *sensitivity*. Now the hospital adds
# Gaussian noise of standard deviation σ times that.

# %%
sigma = 2.0
dice = np.random.default_rng(0)
without_ann = sum(patients) + sigma * dice.standard_normal(100_000)
with_ann = sum(patients) + ann + sigma * dice.standard_normal(100_000)

fig, axes = plt.subplots()
for answers, label in ((without_ann, "without Ann"), (with_ann, "with Ann")):
    axes.hist(answers, bins=100, density=True, alpha=0.5, label=label)
axes.set(xlabel="published count", ylabel="density", title="σ = 2")
axes.legend()
fig.tight_layout()

# %% [markdown]
# Whoever reads a published 5 cannot say which of the two it came from. Most counts are nearly as
# likely without Ann as with her.

# %% [markdown]
# ## ε and δ
#
# A release is (ε, δ)-*differentially private* if anything that can happen is at most
# e<sup>ε</sup> times as likely with Ann as without her, and the other way round, but for a chance
# of δ.
#
# δ is chosen first, well below 1 over the number of people. Then there is a least ε for it.

# %%
release = Gaussian(noise_multiplier=sigma)
once = epsilon(event=release, delta=1e-5, unit="patient")
print(once)

# %% [markdown]
# An ε says little without the rest of that line: its δ, the adjacency, the unit and the method.
# `PLD`, the privacy loss distribution, is exact but for a small slack, and rounded up. dpacc
# prints the whole line wherever it states an ε.
#
# More noise, smaller ε:

# %%
for s in (0.5, 1.0, 2.0, 4.0, 8.0):
    noisy = Gaussian(noise_multiplier=s)
    print(f"σ = {s:g}:", epsilon(event=noisy, delta=1e-5, unit="patient"))

# %% [markdown]
# One release has a whole curve of pairs: a larger ε leaves a smaller δ.

# %%
some_epsilons = np.linspace(0, 4, 25)
deltas = [delta(event=release, epsilon=e).delta for e in some_epsilons]

fig, axes = plt.subplots()
axes.semilogy(some_epsilons, deltas)
axes.set(xlabel="ε", ylabel="δ", title="one count, σ = 2")
fig.tight_layout()

# %% [markdown]
# ## What an attacker can gain
#
# An attacker wants to know whether Ann is in the data. He calls "she is" too often (false
# positives) or misses her (false negatives). No attack can do better than these curves, whatever
# the attacker knows and however much he computes.

# %%
from dpacc_accounting import attack_risk, tradeoff_curve

false_positives = np.linspace(0, 1, 101)
fig, axes = plt.subplots(figsize=(4.2, 3.6))
for s in (0.5, 2.0, 8.0):
    curve = tradeoff_curve(event=Gaussian(noise_multiplier=s))
    found = [
        1 - curve.false_negatives(false_positives=a) for a in false_positives
    ]
    axes.plot(false_positives, found, label=f"σ = {s:g}")
axes.plot([0, 1], [0, 1], "k:", label="guessing")
axes.set(xlabel="false positives", ylabel="most true positives")
axes.legend()
fig.tight_layout()

# %% [markdown]
# With much noise the best attack hardly beats guessing. How many of those who are in the data an
# attacker finds who accuses one in a hundred of the others:

# %%
for s in (0.5, 2.0, 8.0):
    noisy = Gaussian(noise_multiplier=s)
    risk = attack_risk(event=noisy, false_positives=0.01)
    print(f"σ = {s:g}: the best attack finds {risk.true_positives:.1%}")

# %% [markdown]
# ## Every answer costs
#
# Noise averages out. Whoever gets the count a hundred times, with fresh noise, knows it well.
# So releases about the same people add up; this is *composition*.

# %%
times = np.array([1, 2, 5, 10, 20, 50, 100])
many = [Repeated(event=release, times=int(k)) for k in times]
exact = [epsilon(event=each, delta=1e-5).epsilon for each in many]

fig, axes = plt.subplots()
axes.plot(times, times * exact[0], "k:", label="ε added up (and δ too)")
axes.plot(times, exact, "o-", label="composed exactly, δ = 1e-5")
axes.set(xlabel="releases", ylabel="ε", title="σ = 2 each")
axes.legend()
fig.tight_layout()

# %% [markdown]
# Composed exactly, a hundred releases cost far less than a hundred times one. That is what an
# accountant is for. It never forgets a release, though: dpacc writes each one to a *ledger* before
# it happens.

# %% [markdown]
# ## Clipping: nobody moves a sum by much
#
# A count moves by 1. A gradient of a neural network may have any length, so one strange record
# could move the sum as far as it likes. Each record's gradient is therefore *clipped* to
# length C, by itself, before anything is added up.


# %%
def clipped(gradients, norm):
    lengths = np.linalg.norm(gradients, axis=1, keepdims=True)
    return gradients * np.minimum(1.0, norm / np.maximum(lengths, 1e-12))


gradients = np.array([[0.3, 0.4], [3.0, 4.0], [300.0, 400.0]])
print(np.linalg.norm(gradients, axis=1), "before")
print(
    np.linalg.norm(clipped(gradients, norm=1.0), axis=1),
    "after clipping to 1",
)

# %% [markdown]
# Now one record moves the sum by at most C, and noise of standard deviation σC hides it. It has to
# be each record's own gradient: clipping the mean of a batch bounds nobody.

# %% [markdown]
# ## Sampling: a secret coin protects, too
#
# If each person joins a step only by a secret coin that shows heads with chance q, then most steps
# tell nothing of Ann at all. This is *amplification by Poisson sampling*.

# %%
step = Gaussian(noise_multiplier=1.0)
for q in (0.01, 0.03, 0.1, 0.3, 1.0):
    steps = Repeated(
        event=PoissonSampled(probability=q, event=step), times=100
    )
    print(f"q = {q:g}, 100 steps:", epsilon(event=steps, delta=1e-5))

# %% [markdown]
# The coin must be real and secret. Batches cut from a shuffled order, as data loaders make them,
# are *not* Poisson samples, and this ε is not theirs.

# %% [markdown]
# ## Private learning
#
# Put together, this is DP-SGD ([arXiv 1607.00133](https://arxiv.org/abs/1607.00133)): sample,
# clip each gradient, add up, add noise, take a step, repeat. Here it learns to tell two clouds of
# points apart. First the noise that a budget asks for:

# %%
from dpacc_accounting import calibrate_noise

people = 2000
target = {"epsilon": 1.0, "delta": 1e-5}
plan = calibrate_noise(
    dataset_size=people, batch_size=200, steps=60, **target, unit="person"
)
print(
    f"σ = {plan.noise_multiplier}, q = {plan.sample_rate}, {plan.steps} steps"
)

# %% [markdown]
# Then the data and the loop. The noise here comes from numpy with a fixed seed, so that this page
# always looks the same. A real run must not do that: whoever knows the seed can take the noise
# off. dpacc draws it from AES with a secret key.


# %%
def clouds(count):
    kinds = dice.integers(2, size=count)
    points = (
        dice.standard_normal((count, 2)) + np.where(kinds, 1.0, -1.0)[:, None]
    )
    return np.column_stack([points, np.ones(count)]), kinds


def learn(points, kinds, *, sigma, norm=1.0, rate=2.0):
    weights = np.zeros(3)
    for _ in range(plan.steps):
        drawn = dice.random(people) < plan.sample_rate
        x, kind = points[drawn], kinds[drawn]
        chances = 1 / (1 + np.exp(-x @ weights))
        gradients = clipped((chances - kind)[:, None] * x, norm)
        noise = sigma * norm * dice.standard_normal(3)
        mean = (gradients.sum(axis=0) + noise) / (plan.sample_rate * people)
        weights -= rate * mean
    return weights


points, kinds = clouds(people)
private = learn(points, kinds, sigma=plan.noise_multiplier)
exactly = learn(points, kinds, sigma=0.0)

# %% [markdown]
# The step divides by q·N, a public number. Dividing by how many people were drawn would tell how
# many there were.

# %%
new_points, new_kinds = clouds(5000)


def share_right(weights):
    return np.mean((new_points @ weights > 0) == new_kinds)


print(f"right on new points, no noise: {share_right(exactly):.1%}")
print(f"right on new points, private:  {share_right(private):.1%}")
print(plan.guarantee, "by Poisson sampling")

# %%
fig, axes = plt.subplots(figsize=(4.6, 3.6))
axes.scatter(
    *points[:400, :2].T, c=kinds[:400], cmap="coolwarm", s=6, alpha=0.5
)
across = np.array([-3.5, 3.5])
for (a, b, c), style, label in (
    (exactly, "k--", "no noise"),
    (private, "k-", "private"),
):
    axes.plot(across, -(a * across + c) / b, style, label=label)
axes.set(xlim=(-4, 4), ylim=(-4, 4))
axes.legend()
fig.tight_layout()

# %% [markdown]
# The best line there is would find 92.1%; what lies above is the luck of these points. Two thousand
# people pay little for privacy here, because what they have in common is strong and the noise is
# the same however many they are. With fifty people it would drown them.

# %% [markdown]
# ## Federations: whose data, and who looks?
#
# Several hospitals train together and share no record. Two questions come first.
#
# **Who is the unit?** At *example level* each hospital runs DP-SGD on its own patients, and ε is a
# patient's. At *client level* a whole hospital (or a phone, with all that its owner wrote) is the
# unit.
#
# **Who looks?** The *server* sees every message. Others see the *released* model only.
#
# First, two hospitals at example level, twenty rounds of five steps each:

# %%
from dpacc_accounting import price_federation, read_federation

hospitals = {
    "level": "example",
    "unit": "patient",
    "delta": 1e-6,
    "defaults": {"rounds": 20, "local_steps": 5, "noise_multiplier": 1.0},
    "clients": [
        {"name": "large", "dataset_size": 5000, "batch_size": 50},
        {"name": "small", "dataset_size": 500, "batch_size": 50},
    ],
}
federation = read_federation(document=hospitals)
for price in price_federation(federation=federation).prices:
    print(f"{price.name}: {price.server}")

# %% [markdown]
# The same noise costs the small hospital more: with as large a batch out of fewer patients each of
# them is drawn more often. A patient's ε is that of their own hospital; a patient of both would
# pay for both.
#
# Now a thousand phones at client level. Each joins a round by a coin of 1%. The server adds the
# noise.

# %%
phones = {
    "level": "client",
    "delta": 1e-6,
    "rounds": 200,
    "sampling": "poisson",
    "sampling_rate": 0.01,
    "noise_multiplier": 1.0,
}
federation = read_federation(document=phones)
(price,) = price_federation(federation=federation).prices
print("whoever gets the models:", price.released)
print("the server:             ", price.server)

# %% [markdown]
# Against the server there is *no* guarantee: it sees each phone's update before it adds noise, and
# knows whose coin showed heads. It must be trusted, or must see only noised sums. How, the
# tutorial on [secure aggregation](secure_aggregation.py) shows.

# %%
rounds = np.array([10, 50, 100, 200, 400])
hidden, seen = [], []
for count in rounds:
    coins = PoissonSampled(probability=0.01, event=step)
    secret = Repeated(event=coins, times=int(count))
    known = Repeated(event=step, times=max(1, round(0.01 * count)))
    hidden.append(epsilon(event=secret, delta=1e-6).epsilon)
    seen.append(epsilon(event=known, delta=1e-6).epsilon)

fig, axes = plt.subplots()
axes.plot(rounds, hidden, "o-", label="nobody knows who took part")
axes.plot(rounds, seen, "s--", label="known: one round in a hundred")
axes.set(xlabel="rounds", ylabel="ε of one phone at δ = 1e-6")
axes.legend()
fig.tight_layout()

# %% [markdown]
# The dashed line is for a phone that joined one round in a hundred (one at least), where it is
# known which. Keeping participation secret is worth much. Where it cannot be kept secret, do not
# claim it.

# %% [markdown]
# ## What ε does not cover
#
# - What everybody would say without Ann, too: that smoking causes cancer is no breach of her
#   privacy.
# - Several records of one person, unless the person is the unit.
# - Other runs on the same data: they compose, like the counts above. A
#   [budget](../budget.md) keeps their total.
# - Choosing settings by looking at many runs, unless the search is paid for.
# - How long a step took, and what the base model learned before.
#
# Next: a [private fine-tune](lora.py) of a language model. Words are in the
# [glossary](../glossary.md), where guarantees are lost in practice in
# [sharp edges](../sharp_edges.md).
