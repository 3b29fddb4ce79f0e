"""Noise that every client adds a part of: how much is there, and what is charged for it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from dpacc_accounting import LedgerError, price_federation, read_federation, read_ledger
from dpacc_accounting.pricing.price import epsilon
from scipy import stats

from dpacc.cli.main import dpacc
from dpacc.errors import ConfigurationError
from dpacc.federated.aggregation.client_level import ClientPrivacy
from dpacc.federated.requests import COULD_NOT
from dpacc.federated.secure_sum.settings import SecureSum
from dpacc.federated.secure_sum.shared_noise import SharedNoise, SharedNoiseLedger
from dpacc.federated.secure_sum.summing_client import SecureClient
from dpacc.randomness.run_secret import RunSecret
from tests.dpacc.federated.secure_sum.sums import Federation, Fixed, updates

FIVE = SecureSum(clients=5, threshold=4, colluding=1)
PRIVACY = ClientPrivacy(noise_multiplier=2.0, clipping_norm=0.5, delta=1e-5)


def noise(dimension: int = 37, settings: SecureSum = FIVE, **changes: Any) -> SharedNoise:
    known = {"noise_multiplier": 2.0, "clipping_norm": 0.5, "delta": 1e-5}
    privacy = ClientPrivacy(**known | changes)
    return SharedNoise(privacy=privacy, settings=settings, dimension=dimension)


def federation(folder: Path, given: list[np.ndarray], **changes: Any) -> Federation:
    shared = noise(len(given[0]))
    ledger = SharedNoiseLedger(noise=shared, path=folder / "ledger.jsonl")
    settings: dict[str, Any] = {"privacy": PRIVACY, "most_rounds": 10, "folder": folder}
    return Federation(given, FIVE, ledger=ledger, **settings | changes)


@pytest.mark.parametrize("gone", [[], [2]])
def test_the_sum_holds_the_noise_that_was_charged(tmp_path: Path, gone: list[int]) -> None:
    """χ² over 50,000 numbers of m·s², m of five clients: also with one gone, 10⁻⁶ to fail.

    A variance 6% off is seen but for once in 10³. Of it, the honest ones' part is at least (σC)².
    """
    given = [np.zeros(50_000, np.float32)] * 5
    whole = federation(tmp_path, given, lost={"train": gone})
    whole.round()
    shared, present = noise(50_000), 5 - len(gone)
    units = whole.moved.astype(np.float64) * 5 / 0.5 / shared.grid.spacing
    variance = present * shared.scale**2
    squares = float(np.square(units).sum())
    for factor, fits in ((1.0, True), (1.06, False), (0.94, False)):
        p = stats.chi2(50_000).cdf(squares / (variance * factor))
        assert bool(5e-7 < p < 1 - 5e-7) is fits
    honest = (present - FIVE.colluding) * (shared.scale * shared.grid.spacing * 0.5) ** 2
    assert honest >= (2.0 * 0.5) ** 2
    (release,) = read_ledger(path=tmp_path / "ledger.jsonl").releases
    assert release.event.noise_multiplier == shared.multiplier(survivors=present)  # type: ignore[union-attr]
    charged = shared.multiplier(survivors=present) * shared.sensitivity
    assert charged**2 <= (present - 1) * shared.scale**2


def test_an_update_weighs_no_more_than_the_noise_is_sized_for() -> None:
    """Clipped and rounded, of any length and direction: within 1/γ + √d, measured in integers."""
    shared, draw = noise(1000, noise_multiplier=1e-4), np.random.default_rng(0)
    secret = RunSecret.from_fixed_seed(0)
    nothing = shared.share(np.zeros(1000), secret=secret, step=1)
    longest = 0.0
    for length in (1e-9, 0.3, 0.5, 0.500001, 7.0, 1e12):
        moved = draw.normal(size=1000)
        moved *= length / np.linalg.norm(moved)
        clean = shared.share(moved, secret=secret, step=1) - nothing
        longest = max(longest, math.sqrt(sum(int(each) ** 2 for each in clean)))
    assert 0.999 * shared.sensitivity < longest <= shared.sensitivity


def test_what_is_not_finite_counts_as_nothing() -> None:
    """A client whose training failed adds zeros and its noise: that it failed does not show."""
    shared, secret = noise(), RunSecret.from_fixed_seed(0)
    nothing = shared.share(np.zeros(37), secret=secret, step=1)
    broken = np.zeros(37)
    for value in (np.nan, np.inf, -np.inf):
        broken[5] = value
        assert np.array_equal(shared.share(broken, secret=secret, step=1), nothing)


@pytest.mark.parametrize("colluding", [0, 1, 2])
@pytest.mark.parametrize("sigma", [0.3, 1.0, 20.0])
def test_the_share_is_sized_for_the_guaranteed_honest(colluding: int, sigma: float) -> None:
    """s²·h ≥ (σ/γ)², and no share a grid point smaller would do."""
    settings = SecureSum(clients=9, threshold=7, colluding=colluding)
    shared = noise(settings=settings, noise_multiplier=sigma)
    wanted = (sigma * 2**shared.grid.fraction_bits) ** 2
    assert shared.scale**2 * settings.honest >= wanted > (shared.scale - 1) ** 2 * settings.honest
    assert shared.multiplier(survivors=7) == pytest.approx(sigma, rel=2e-5)
    assert shared.multiplier(survivors=9) == pytest.approx(
        sigma * math.sqrt((9 - colluding) / settings.honest), rel=2e-5
    )


def test_compose_reproduces_the_ledger(tmp_path: Path) -> None:
    """Three rounds, of five, four and five survivors: one ε by `dpacc compose`, from the ledger.

    By Rényi divergences of integer noise, at whole orders, it is within 0.5% of the ledger's
    Gaussians by the same method; by the ledger's privacy losses it is less.
    """
    whole = federation(tmp_path, updates(5))
    whole.round()
    whole.grid._lost = {"train": {3}}
    whole.round()
    whole.grid._lost, whole.grid._gone = {}, set()
    whole.round()
    ledger = whole.strategy._shared_ledger
    assert ledger is not None
    document = ledger.federation()
    assert document["schedule"] == [
        {"rounds": 1, "survivors": 5},
        {"rounds": 1, "survivors": 4},
        {"rounds": 1, "survivors": 5},
    ]
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(document))
    result = CliRunner().invoke(dpacc, ["compose", str(tmp_path / "rounds.yaml"), "--json"])
    assert result.exit_code == 0, result.output
    said = yaml.safe_load(result.stdout)["prices"]
    price = price_federation(federation=read_federation(document=document)).prices[-1]
    assert price.name == "as it went"
    assert said[-1]["server"]["epsilon"] == price.server.epsilon
    event = read_ledger(path=tmp_path / "ledger.jsonl").event
    by_rdp = epsilon(event=event, delta=1e-5, method="rdp").epsilon
    by_pld = epsilon(event=event, delta=1e-5, method="pld").epsilon
    assert price.server.epsilon == pytest.approx(by_rdp, rel=5e-3)
    assert by_pld < by_rdp < price.server.epsilon


def test_each_clients_own_ledger_counts_its_sums(tmp_path: Path) -> None:
    """At the guaranteed noise, before anything leaves; beyond most_rounds it stops, untrained."""
    whole = federation(tmp_path, updates(5), most_rounds=2)
    for _ in range(2):
        assert len(whole.round().survivors) == 5
    report = whole.round()
    assert report.survivors == ()
    assert all(why.startswith("budget spent") for why in report.failed.values())
    assert [each.asked for each in whole.fixed] == [2] * 5
    for each in whole.clients:
        record = read_ledger(path=tmp_path / each.client_id / "ledger.jsonl")
        assert [r.event for r in record.releases] == [noise().event(survivors=4)] * 2
    assert len(read_ledger(path=tmp_path / "ledger.jsonl").releases) == 2


def test_no_sum_is_opened_before_it_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the server's disk refuses, no client is asked for shares; too few are not charged."""
    whole = federation(tmp_path, updates(5))
    ledger = whole.strategy._shared_ledger
    assert ledger is not None
    whole.round()
    seen = len([1 for stage, _, _ in whole.grid.seen if stage.endswith("open")])
    monkeypatch.setattr(ledger, "charge", lambda survivors: _full_disk())
    with pytest.raises(LedgerError):
        whole.round()
    assert len([1 for stage, _, _ in whole.grid.seen if stage.endswith("open")]) == seen == 5
    monkeypatch.undo()
    whole.grid._lost = {"train": {1, 2}}
    assert whole.round().survivors == ()
    assert ledger.rounds_charged == 1


def _full_disk() -> None:
    raise LedgerError("cannot write")


def test_a_client_whose_disk_refuses_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own ledger cannot be written: it drops out of the sum, with no text of its own."""
    whole = federation(tmp_path, updates(5))
    whole.round()
    honest = os.fsync

    def refuse(descriptor: int) -> None:
        if "site-1" in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
            raise OSError(28, "No space left on device")
        honest(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    report = whole.round()
    assert report.failed == {"site-1": COULD_NOT}
    assert len(report.survivors) == 4


def test_noise_that_its_own_proof_does_not_cover_is_refused(tmp_path: Path) -> None:
    """Fewer than 16 grid points of noise; and privacy without a last round."""
    with pytest.raises(ConfigurationError, match="too coarse"):
        SharedNoiseLedger(noise=noise(noise_multiplier=1e-8), path=tmp_path / "ledger.jsonl")
    with pytest.raises(ConfigurationError, match="most_rounds"):
        SecureClient(client=Fixed("a", np.zeros(3)), secure_sum=FIVE, privacy=PRIVACY)


def test_every_ledger_says_whom_its_noise_relies_on(tmp_path: Path) -> None:
    """Client's and server's, once each, with the noise that is left if all others are invented."""
    whole = federation(tmp_path, updates(5))
    whole.round()
    whole.round()
    for place in ("ledger.jsonl", "site-1/ledger.jsonl"):
        (note,) = read_ledger(path=tmp_path / place).notes
        assert note.subject == "unsigned keys"
        assert "holds only while 3 of those in each sum are clients in truth" in note.text
        assert f"{noise().alone:.6g} alone" in note.text
    assert noise().alone == pytest.approx(2 / np.sqrt(3), rel=1e-3)
    found = price_federation(federation=read_federation(document=noise().federation(survivors=[4])))
    assert any("Against the server itself" in each for each in found.assumptions)
    ledger = whole.strategy._shared_ledger
    assert ledger is not None
    (_, price) = price_federation(federation=read_federation(document=ledger.federation())).prices
    assert price.server.qualified_by == price.released.qualified_by == (note.text,)


def test_one_client_among_invented_ones_is_seen_under_its_own_noise_alone(tmp_path: Path) -> None:
    """What the note says is so: beside zeros, σ/√h is all that hides the one real update."""
    shared = noise(50_000)
    drawn = shared.values(
        shared.share(np.zeros(50_000), secret=RunSecret.from_fixed_seed(1), step=0)
    )
    assert float(np.std(drawn)) == pytest.approx(shared.alone * PRIVACY.clipping_norm, rel=0.02)
