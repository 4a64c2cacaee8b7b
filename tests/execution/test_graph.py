"""The graph of steps: what becomes ready when, and that no change costs what the graph holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from preceptor.execution.scheduler import Graph
from preceptor.study.steps import Failure
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


def test_a_step_is_ready_when_its_last_need_is_done() -> None:
    graph = Graph([step("a"), step("b"), step("c", "a", "b", "a")])
    assert taken(graph) == ["a", "b"]
    graph.finish("a")
    assert not graph.has_ready
    graph.finish("b")
    assert taken(graph) == ["c"]


def test_what_is_added_later_looks_at_what_is_done() -> None:
    graph = Graph([step("a")])
    assert taken(graph) == ["a"]
    graph.finish("a")
    graph.add([step("a", cost=9), step("b", "a")])  # a is the same work and is kept once
    assert taken(graph) == ["b"]


def blocked(name: str, need: str) -> Failure:
    """The failure of a plain step that needs another one."""
    reason = f"needs make maps by {need}, which failed"
    return Failure("maps", f"make maps by {name}", reason, blocked=True)


def test_a_failure_blocks_what_needs_it_at_any_distance_and_nothing_else() -> None:
    graph = Graph([step("a"), step("b", "a"), step("c", "b"), step("d"), step("e", "d")])
    taken(graph)
    graph.fail("a", "it diverged")
    assert graph.failed == {
        "a": Failure("maps", "make maps by a", "it diverged"),
        "b": blocked("b", "a"),
        "c": blocked("c", "b"),
    }
    graph.add([step("f", "c"), step("g", "f")])
    assert {"f", "g"} <= graph.failed.keys()
    graph.finish("d")
    assert taken(graph) == ["e"]


def test_steps_with_a_result_are_done_when_what_they_need_fails() -> None:
    graph = Graph([step("a"), step("b", "a"), step("c", "b"), step("d", "b", "a")])
    taken(graph)
    kept = graph.fail("a", "it diverged", lambda one: one.id in "bg")
    assert [one.id for one in kept] == ["b"]
    assert graph.failed.keys() == {"a", "d"}
    assert taken(graph) == ["c"]
    kept = graph.add([step("f", "a"), step("g", "f"), step("h", "g")], lambda one: one.id in "bg")
    assert [one.id for one in kept] == ["g"]
    assert graph.failed.keys() == {"a", "d", "f"}
    assert taken(graph) == ["h"]
    assert graph.done == {"b", "g"}


def test_one_that_is_put_back_is_taken_again() -> None:
    graph = Graph([step("a")])
    assert taken(graph) == ["a"]
    graph.put_back("a")
    assert graph.running == set()
    assert taken(graph) == ["a"]


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
