import pytest

from constitutions import draw, draw_several
from tests.worlds import constitution_of

NAMES = [f"p-{i}" for i in range(8)]
EIGHT = constitution_of(*NAMES).comparison_principles()
KEYS = [f"row/{i}" for i in range(300)]


def ids(principles, num, key):
    return [p.id for p in draw_several(principles, num, 5, "label", key)]


def test_draw_several_first_is_the_draw():
    assert all(ids(EIGHT, 3, key)[0] == draw(EIGHT, 5, "label", key).id for key in KEYS)


def test_draw_several_is_without_replacement_and_a_beginning_of_the_longer():
    for key in KEYS:
        assert len(set(ids(EIGHT, 8, key))) == 8
        assert ids(EIGHT, 3, key) == ids(EIGHT, 8, key)[:3]


def test_draw_several_of_fewer_gives_all():
    assert sorted(ids(EIGHT, 99, "k")) == NAMES


def test_draw_several_does_not_depend_on_the_order_of_the_list():
    assert all(ids(EIGHT, 4, key) == ids(EIGHT[::-1], 4, key) for key in KEYS)


def test_draw_several_without_one_keeps_the_others_in_order():
    without = [p for p in EIGHT if p.id != "p-3"]
    for key in KEYS:
        before, after = ids(EIGHT, 3, key), ids(without, 3, key)
        assert after[: len(before) - ("p-3" in before)] == [name for name in before if name != "p-3"]


def test_draw_several_later_places_follow_the_weights_too():
    weighted = [p.model_copy(update={"weight": 6.0 if p.id == "p-0" else 1.0}) for p in EIGHT]
    taken = sum("p-0" in ids(weighted, 2, key) for key in KEYS) / len(KEYS)
    # 6/13 first, else 6/12 of what the first left: 0.46 + 0.54 * 0.5
    assert taken == pytest.approx(0.73, abs=0.08)


def test_draw_several_of_none_is_an_error():
    with pytest.raises(ValueError, match="no principles"):
        draw_several([], 2, 5, "label")
    with pytest.raises(TypeError, match="expected text or an integer"):
        draw_several(EIGHT, 2, 5, 1.5)  # type: ignore[arg-type]
