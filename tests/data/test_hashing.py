import numpy as np

from difflab.data.hashing import hash_indices, permutation


def test_seed_zero_gives_the_published_splitmix64_sequence():
    assert [int(h) for h in hash_indices(np.arange(3), 0)] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]


def test_permutation_holds_every_index_and_depends_on_the_seed():
    first, second = permutation(1000, 1), permutation(1000, 2)
    assert sorted(first.tolist()) == list(range(1000))
    assert first.tolist() != second.tolist()
    assert first.tolist() == permutation(1000, 1).tolist()


def test_permutations_put_an_index_anywhere_equally_often():
    places = np.array([np.flatnonzero(permutation(4, seed) == 0)[0] for seed in range(4000)])
    # 1000 expected each; 150 is more than five standard deviations.
    assert np.abs(np.bincount(places, minlength=4) - 1000).max() < 150
