import threading

import pytest

from mmext.utils.ahead import computed_ahead


def test_results_come_in_order():
    assert list(computed_ahead(lambda x: x * x, range(5))) == [0, 1, 4, 9, 16]
    assert list(computed_ahead(lambda x: x, [])) == []


def test_one_result_is_computed_ahead_and_no_more():
    begun, second = [], threading.Event()

    def function(item):
        begun.append(item)
        if item == 1:
            second.set()
        return item

    results = computed_ahead(function, range(4))
    assert next(results) == 0
    assert second.wait(10)
    results.close()  # waits for all that was begun
    assert begun == [0, 1]


def test_an_error_is_raised_in_its_turn():
    results = computed_ahead(lambda x: 1 // x, [1, 0, 2])
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
