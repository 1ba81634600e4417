import itertools

import pytest

from harald.data.ahead import READERS, WAITING, ahead


def test_results_come_in_the_order_of_the_items():
    assert list(ahead(lambda n: n * n, range(200))) == [n * n for n in range(200)]


def test_what_the_function_raises_reaches_the_caller():
    results = ahead(lambda n: 1 // (n - 3), range(10))
    assert list(itertools.islice(results, 3)) == [-1, -1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_endless_items_are_taken_only_a_little_ahead():
    counter = itertools.count()
    results = ahead(lambda n: n, counter)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    assert next(counter) <= 5 + WAITING + READERS
    results.close()
