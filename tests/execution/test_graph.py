"""The graph of steps: what becomes ready when, and that no change costs what the graph holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from preceptor.execution.scheduler import Graph
from tests.studies import plain_step as step
from tests.studies import selection_step


def taken(graph: Graph) -> list[str]:
    found = []
    while one := graph.take():
        found.append(one.id)
    return found


def test_the_longest_comes_first_and_of_equal_ones_the_first_known() -> None:
    graph = Graph([step("a"), step("b", cost=3), step("c"), step("d", cost=2)])
    assert taken(graph) == ["b", "d", "a", "c"]
    assert graph.running == {"a", "b", "c", "d"}


def test_a_selection_comes_before_the_longest() -> None:
    choice = selection_step("teacher")
    assert taken(Graph([step("a", cost=1e9), choice])) == [choice.id, "a"]


def test_what_is_added_later_looks_at_what_is_done() -> None:
    graph = Graph([step("a")])
    assert taken(graph) == ["a"]
    graph.finish("a")
    graph.add([step("a", cost=9), step("b", "a")])  # a is the same work and is kept once
    assert taken(graph) == ["b"]


@given(st.lists(st.lists(st.integers(0, 30), max_size=4), min_size=1, max_size=30), st.data())
def test_every_step_is_done_once_and_after_its_needs(
    needs: list[list[int]], data: st.DataObject
) -> None:
    steps = [
        step(str(place), *(str(need) for need in own if need < place))
        for place, own in enumerate(needs)
    ]
    graph = Graph(data.draw(st.permutations(steps)))  # needs may be known after who needs them
    order: list[str] = []
    running: list[str] = []
    while True:
        running += taken(graph)
        if not running:
            break
        one = running.pop(data.draw(st.integers(0, len(running) - 1)))
        graph.finish(one)
        order.append(one)
    assert sorted(order) == sorted(one.id for one in steps)
    for one in steps:
        assert all(order.index(need) < order.index(one.id) for need in one.needs)
