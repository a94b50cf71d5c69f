"""The order in which rows are taken."""

from itertools import pairwise

from tasks.training.passes import PassOrder


def test_every_pass_takes_each_row_once_in_an_order_of_its_own_then_the_blanks():
    passes = [list(PassOrder(40, 3, 7, lambda number=number: number)) for number in range(3)]
    assert all(sorted(order[:40]) == list(range(40)) and order[40:] == [40, 40, 40] for order in passes)
    assert all(one[:40] != two[:40] for one, two in pairwise([list(range(40)), *passes]))


def test_order_depends_on_seed_and_pass_alone():
    done = [0]
    order = PassOrder(40, 0, 7, lambda: done[0])
    first, again = list(order), list(order)
    done[0] = 2
    assert first == again and list(order) == list(PassOrder(40, 0, 7, lambda: 2)) != first
    assert len(order) == 40 and list(PassOrder(40, 0, 8, lambda: 0)) != first
