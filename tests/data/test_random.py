import numpy as np
import pytest

from matcaps.data.random import integers, make_keys, permutation, uniform, uniform_between


def test_numbers_do_not_change_with_versions():
    """Fixed values: a release that changed them would change every run."""
    assert make_keys(0, 0, [0, 1]).tolist() == [2558736989570252433, 4764156602392020899]
    assert permutation(0, 0, 6).tolist() == [1, 0, 2, 5, 4, 3]


def test_draws_are_those_of_splitmix64():
    """From state 0 the published generator gives these 64-bit numbers, of which 53 bits are kept."""
    published = (0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F)
    state = np.zeros(1, dtype=np.uint64)
    for draw, value in enumerate(published):
        assert uniform(state, draw) == (value >> 11) / 2**53


def test_any_part_of_the_key_matters_and_negative_seeds_work():
    indices = np.arange(5)
    keys = [make_keys(seed, epoch, indices) for seed in (-1, 0, 1, 2**62) for epoch in (0, 1, 2)]
    assert len(np.unique(np.concatenate(keys))) == 60
    assert make_keys(1, 2, 3) != make_keys(2, 1, 3)
    assert make_keys(1, 2, 3) != make_keys(1, 3, 2)


def test_no_two_indices_share_a_key():
    assert len(np.unique(make_keys(7, 3, np.arange(200_000)))) == 200_000


@pytest.mark.parametrize("draw", [0, 1, 9])
def test_uniform_in_each_stream(draw):
    """Consecutive indices, the hardest case for a hash: chi-squared over 100 bins, mean and variance."""
    count = 100_000
    values = uniform(make_keys(0, 0, np.arange(count)), draw)
    assert 0 <= values.min() < values.max() < 1
    observed = np.bincount((values * 100).astype(int), minlength=100)
    chi_squared = ((observed - count / 100) ** 2 / (count / 100)).sum()
    assert 50 < chi_squared < 160  # 99 degrees of freedom: 99 ± 4.3 standard deviations of 14
    assert abs(values.mean() - 0.5) < 5 / np.sqrt(12 * count)
    assert abs(values.var() - 1 / 12) < 0.002


def test_streams_epochs_seeds_and_neighbours_are_independent():
    count = 50_000
    indices = np.arange(count)
    base = uniform(make_keys(0, 0, indices), 0)
    others = [
        uniform(make_keys(0, 0, indices), 1),
        uniform(make_keys(0, 1, indices), 0),
        uniform(make_keys(1, 0, indices), 0),
        uniform(make_keys(0, 0, indices + 1), 0),
    ]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 5 / np.sqrt(count)
        # Pairs fill the square evenly: beyond correlation.
        cells = np.bincount((base * 8).astype(int) * 8 + (other * 8).astype(int), minlength=64)
        assert ((cells - count / 64) ** 2 / (count / 64)).sum() < 63 + 5 * np.sqrt(126)


def test_integers_and_ranges():
    keys = make_keys(0, 0, np.arange(10_000))
    assert set(integers(keys, 0, 5)) == set(range(5))
    assert set(integers(keys, 0, 1)) == {0}
    values = uniform_between(keys, 0, -2, 3)
    assert -2 <= values.min() < -1.99 < 2.99 < values.max() < 3


def test_permutation_is_a_permutation_and_changes():
    orders = [permutation(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(1000)) for order in orders)
    assert len({tuple(order) for order in orders}) == 4
    # The order does not follow the augmentation's keys.
    assert permutation(0, 0, 1000).tolist() != make_keys(0, 0, np.arange(1000)).argsort().tolist()


def test_several_draws_at_once_are_those_draws():
    keys = make_keys(3, 1, np.arange(7))
    together = uniform(keys[:, None], np.arange(5))
    assert together.shape == (7, 5)
    assert np.array_equal(together, np.stack([uniform(keys, draw) for draw in range(5)], axis=1))
