"""Would reference adapters tell more of a canary's coin than overlaps that are known?

    python benchmarks/reference_adapters.py

A finished adapter moves by p = Kc + σ·N(0, K) along canaries whose gradients overlap by K, with the
coins c. Here K is that of random directions with a part in common, and p is drawn by that law, so
that hundreds of reference runs cost nothing. Scores: p as it is; the likelihood ratio of p_i under
the normal laws that reference runs with canary i and without it had (LiRA, arXiv 2112.03570, with
one variance for all, as few runs allow); and `presence`, which takes no run but K.
"""

from __future__ import annotations

import click
import numpy as np
from dpacc_accounting import Gaussian
from numpy.typing import NDArray

from dpacc.audit import Claim, judge
from dpacc.audit.last_adapter import presence

Numbers = NDArray[np.float64]
Coins = NDArray[np.bool_]


def overlapping(*, canaries: int, width: int, shared: float, rng: np.random.Generator) -> Numbers:
    """K, [m, m]: products of unit directions, of which a part is common to all."""
    common = shared * rng.uniform(0.3, 1.7, size=(canaries, 1)) * rng.standard_normal(width)
    directions = rng.standard_normal((canaries, width)) + common
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    found: Numbers = directions @ directions.T
    return found


def likelihood_ratio(*, along: Numbers, coins: Coins, runs: Numbers) -> Numbers:
    """log N(p_i; in_i, v) − log N(p_i; out_i, v), with means and v from reference runs.

    Args:
        along: p of the run that is attacked, [m].
        coins: of the reference runs, [runs, m].
        runs: their p, [runs, m].
    """
    inside, outside = (np.where(each, runs, np.nan) for each in (coins, ~coins))
    means = [np.nanmean(each, axis=0) for each in (inside, outside)]
    variance = np.mean([np.nanvar(each, axis=0) for each in (inside, outside)])
    found: Numbers = ((along - means[1]) ** 2 - (along - means[0]) ** 2) / (2 * variance)
    return found


def attacks(
    *, overlaps: Numbers, claim: Claim, sigma: float, reference: int, rng: np.random.Generator
) -> tuple[Coins, dict[str, Numbers]]:
    """The coins of one run, and each attack's scores."""
    count = len(overlaps)
    root = np.linalg.cholesky(overlaps + 1e-9 * np.eye(count))

    def draw(c: Coins) -> Numbers:
        found: Numbers = overlaps @ c + sigma * (root @ rng.standard_normal(count))
        return found

    coins = rng.random((reference + 1, count)) < 0.5
    runs = np.array([draw(each) for each in coins])
    return coins[0], {
        "as it is": runs[0],
        "reference": likelihood_ratio(along=runs[0], coins=coins[1:], runs=runs[1:]),
        "presence": presence(along=runs[0], overlaps=overlaps, mu=claim.mu),
    }


def auc(scores: Numbers, coins: Coins) -> float:
    """How often a canary that is in scores higher than one that is out."""
    places = np.argsort(np.argsort(scores))[coins]
    inside, outside = coins.sum(), (~coins).sum()
    return float((places.sum() - inside * (inside - 1) / 2) / (inside * outside))


@click.command(help=__doc__)
@click.option("--sigma", default=0.9, show_default=True)
@click.option("--canaries", default=500, show_default=True)
@click.option("--reference", default=64, show_default=True, help="Reference runs.")
@click.option("--repeats", default=10, show_default=True)
def main(sigma: float, canaries: int, reference: int, repeats: int) -> None:
    """A line for each size of the common part: mean cosine, and AUC and bound of each attack."""
    claim = Claim.of_event(event=Gaussian(noise_multiplier=sigma), delta=1e-5)
    click.echo(f"claimed ε {claim.guarantee.epsilon:.3f}")
    for shared in (0.0, 0.27, 0.6):
        rng = np.random.default_rng(0)
        found: dict[str, list[tuple[float, float]]] = {}
        for _ in range(repeats):
            overlaps = overlapping(canaries=canaries, width=6000, shared=shared, rng=rng)
            coins, scores = attacks(
                overlaps=overlaps, claim=claim, sigma=sigma, reference=reference, rng=rng
            )
            for name, each in scores.items():
                bound = judge(included=coins, scores=each, claim=claim).epsilon
                found.setdefault(name, []).append((auc(each, coins), bound))
        cosine = (overlaps.sum() - canaries) / (canaries * (canaries - 1))
        told = {name: np.mean(each, axis=0).round(3).tolist() for name, each in found.items()}
        click.echo(f"mean cosine {cosine:.3f}: {told}")


if __name__ == "__main__":
    main()
