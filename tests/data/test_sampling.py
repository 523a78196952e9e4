import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difflab.data.sampling import GlobalBatches
from difflab.errors import UserError


@given(
    n=st.integers(8, 60),
    per_rank=st.integers(1, 2),
    world_size=st.sampled_from([1, 2, 4]),
    number=st.integers(0, 100),
    seed=st.integers(0, 5),
)
def test_ranks_together_hold_the_global_batch(n, per_rank, world_size, number, seed):
    size = per_rank * world_size
    whole = GlobalBatches(n, size, seed=seed).batch(number)
    shares = [GlobalBatches(n, size, seed=seed, rank=r, world_size=world_size).batch(number) for r in range(world_size)]
    assert np.concatenate([s.indices for s in shares]).tolist() == whole.indices.tolist()
    assert np.concatenate([s.positions for s in shares]).tolist() == list(range(size))


def test_an_epoch_shows_no_sample_twice_and_leaves_out_another_tail_each_time():
    plan = GlobalBatches(23, 4, seed=0)
    assert (plan.batches_per_epoch, plan.dropped_per_epoch) == (5, 3)
    tails = []
    for epoch in range(4):
        seen = np.concatenate([plan.batch(epoch * 5 + j).indices for j in range(5)]).tolist()
        assert len(set(seen)) == 20
        assert plan.batch(epoch * 5).epoch == plan.epoch_of(epoch * 5 + 4) == epoch
        tails.append(frozenset(range(23)) - frozenset(seen))
    assert len(set(tails)) == 4


@given(n=st.integers(1, 40), per_rank=st.integers(1, 5), world_size=st.sampled_from([1, 2, 4]))
def test_one_pass_counts_every_sample_once_on_equal_numbers_of_batches(n, per_rank, world_size):
    counted = np.zeros(n)
    for rank in range(world_size):
        plan = GlobalBatches(n, per_rank * world_size, rank=rank, world_size=world_size, shuffle=False, drop_last=False)
        for number in range(-(-n // (per_rank * world_size))):
            batch = plan.batch(number)
            assert len(batch.indices) == per_rank
            np.add.at(counted, batch.indices, batch.weights)
    assert counted.tolist() == [1.0] * n


def test_a_batch_the_ranks_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"10 samples cannot be shared equally by 4 ranks.*divisible by 4"):
        GlobalBatches(100, 10, world_size=4)


def test_less_data_than_a_batch_is_refused():
    with pytest.raises(UserError, match=r"7 samples, fewer than one batch of 8; set data.batch_size to 7"):
        GlobalBatches(7, 8)
    with pytest.raises(UserError, match="holds no samples"):
        GlobalBatches(0, 8, drop_last=False)
