"""Which candidates are near to a proposal."""

from __future__ import annotations

from dpacc.federated.ranks.tuning import AdapterShape, participant, proposals
from dpacc.federated.trials.candidates import Candidate, around, batches_around

SHAPE = AdapterShape(layers=((32, 32, 2),), others=66)


def fitting(batch: int) -> tuple:
    one = participant(
        name="a", dataset_size=200, batch_size=batch, rounds=2, local_epochs=1, epsilon=8.0,
        delta=1e-5,
    )  # fmt: skip
    return proposals(shape=SHAPE, clients=[one], upload_bytes=1e6, ranks=(1, 2, 4))


def test_bytes_are_halved_by_compression_and_by_rank() -> None:
    """First the proposal, then half of it in both ways, then its other noises, then a quarter."""
    by_batch = {batch: fitting(batch) for batch in (25, 50, 100)}
    plain = next(e for e in by_batch[50] if e.rank == 4 and e.compression is None)
    best = Candidate(proposal=plain, batch_size=50)
    found = around(best, proposals=by_batch, least_signal=0.1, most=7)
    sent = [each.proposal.upload_bytes / plain.upload_bytes for each in found]
    assert found[0] == best
    assert found[1].proposal.rank == 4
    assert found[1].proposal.compression is not None
    assert sent[1] <= 0.5
    assert found[2].proposal.compression is None
    assert found[2].proposal.rank == 1
    assert sent[2] <= 0.5
    assert [each.batch_size for each in found] == [50, 50, 50, 100, 25, 50, 50]
    assert [each.proposal.signal_to_noise for each in found[3:5]] != [plain.signal_to_noise] * 2
    assert len(found) == len({str(each.to_json()) for each in found}) <= 7
    wide = around(best, proposals=by_batch, least_signal=0.1, most=50)
    assert wide[: len(found)] == found
    assert min(each.proposal.upload_bytes for each in wide) < plain.upload_bytes / 100


def test_no_batch_is_larger_than_a_clients_data() -> None:
    """The smallest client decides, and no batch is named twice."""
    assert batches_around(1, sizes=[5, 9]) == (1, 2)
    assert batches_around(8, sizes=[9]) == (4, 8)
