"""Random streams and seeds are found at their addresses."""

import itertools

import numpy as np
import pytest

from pacbed.seeding import seed_at, stream


def first(*address):
    return stream(*address).random()


def test_semiangle_means_the_same_however_it_was_computed():
    assert 0.1 + 0.2 != 0.3
    assert first(1, "draw", 0.1 + 0.2) == first(1, "draw", 0.3)


def test_parts_and_their_negatives_are_addresses_of_their_own():
    values = [0.0, 1.5, -1.5, 3.0, -3.0, 1e-6, -1e-6, 50, -50]
    found = {first(0, "phonons", x, y) for x, y in itertools.product(values, values)}
    assert len(found) == len(values) ** 2


def test_zero_has_no_sign():
    assert first(0, "phonons", -0.0) == first(0, "phonons", 0.0) == first(0, "phonons", -1e-9)


def test_stream_can_be_made_again():
    np.testing.assert_array_equal(
        stream(7, "a", -2.5, 3).normal(size=5), stream(7, "a", -2.5, 3).normal(size=5)
    )


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="non-negative"):
        stream(-1, "a")


def test_seeds_are_found_at_addresses_like_streams():
    addresses = [(s, name, part) for s in (0, 1) for name in ("a", "b") for part in (1, -1, 0.5)]
    assert len({first(*address) for address in addresses}) == len(addresses)
    seeds = [seed_at(*address) for address in addresses]
    assert len(set(seeds)) == len(addresses)
    assert seeds == [seed_at(*address) for address in addresses]
    assert all(isinstance(seed, int) and 0 <= seed < 2**64 for seed in seeds)
    assert max(seeds) > 2**60  # all 64 bits are used


def test_a_seed_found_at_an_address_is_one_to_make_streams_of():
    assert first(seed_at(0, "simulation", 3), "phonons") != first(0, "phonons")


def test_addresses_mean_the_same_in_every_version():
    # Draws and displacements of published results must be found again.
    assert seed_at(1, "simulation", 6.35, 0) == 16275912302613285058
    assert first(1, "draw", 6.35, 0) == 0.4407097971197005
    assert stream(1, "phonons", -1.5, 2.0, 0).standard_normal() == -1.2494153192539215
