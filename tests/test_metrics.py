"""What the other tests measure with."""

import random

import pytest

from tests.metrics import character_error_rate, edit_distance


def distance_by_definition(a, b):
    if not a or not b:
        return len(a) + len(b)
    if a[0] == b[0]:
        return distance_by_definition(a[1:], b[1:])
    return 1 + min(
        distance_by_definition(a[1:], b),
        distance_by_definition(a, b[1:]),
        distance_by_definition(a[1:], b[1:]),
    )


def test_edit_distance_is_that_of_the_definition():
    generator = random.Random(0)
    for _ in range(60):
        a, b = ("".join(generator.choices("abc", k=generator.randint(0, 6))) for _ in range(2))
        assert edit_distance(a, b) == distance_by_definition(a, b)


def test_character_error_rate_sums_before_it_divides():
    assert edit_distance("kitten", "sitting") == 3
    assert character_error_rate(["ab", ""], ["ab", "abcdef"]) == pytest.approx(6 / 8)
    assert character_error_rate(["kitten"], ["kitten"]) == 0
