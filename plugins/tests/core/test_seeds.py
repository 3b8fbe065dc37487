"""Seeds by name: the same everywhere and always, and unrelated for neighbours."""

from __future__ import annotations

from itertools import pairwise

from robustgate.core.seeds import derive


def test_a_seed_never_changes() -> None:
    # printf '0\037clean\037net-none-amazon' | sha256sum, its first 8 bytes shifted right by one bit.
    assert derive(0, "clean", "net-none-amazon") == 3750622029735982151


def test_seeds_fit_63_bits_and_use_them() -> None:
    seeds = [derive(0, index) for index in range(2000)]
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert len(set(seeds)) == 2000
    # Every bit is set about half of the time: 2000 fair coins stay within 1000 ± 150 (6.7 sigma).
    for bit in range(63):
        assert 850 < sum(seed >> bit & 1 for seed in seeds) < 1150


def test_run_names_and_their_order_all_count() -> None:
    seeds = [
        derive(0, "a", "b"),
        derive(1, "a", "b"),
        derive(0, "b", "a"),
        derive(0, "ab"),
        derive(0, "a", "b", ""),
        derive(0, "a"),
        derive(0),
        derive(0, "0", "a", "b"),
        derive(10, "a"),
        derive(1, "0", "a"),
    ]
    assert len(set(seeds)) == len(seeds)


def test_a_number_is_the_text_of_it() -> None:
    assert derive(0, 7) == derive(0, "7")


def test_neighbours_are_unrelated() -> None:
    # Neighbouring seeds differ in about half of their bits: 31.5 ± 4 of 63.
    distances = [(derive(0, one) ^ derive(0, other)).bit_count() for one, other in pairwise(range(500))]
    assert 31 < sum(distances) / len(distances) < 32
    assert min(distances) > 10
