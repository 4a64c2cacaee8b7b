"""Ray Serve on a real cluster of two local nodes, of which one is killed under load."""

from __future__ import annotations

import socket
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path

import pytest

import preceptor
from tests.image_files import ImageFiles
from tests.serve.serving import send

pytest.importorskip("ray.serve", reason="the extra ray is not installed")
import ray

from preceptor.errors import InputError
from preceptor.serve.ray import APPLICATION, application_of, serving_on_ray
from preceptor.serve.served_model import ModelPath
from preceptor.serve.settings import ServeSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from ray_cluster import Nodes, ray_nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_nodes(2) as found:
        ray.init(address=found.address, log_to_driver=False)
        try:
            yield found
        finally:
            ray.shutdown()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@pytest.fixture
def address(nodes: Nodes, served_folders: dict[str, Path]) -> Iterator[str]:
    """Address of a proxy in front of two models."""
    port = free_port()
    models = [ModelPath(name, path) for name, path in served_folders.items()]
    settings = ServeSettings(device="cpu", batch_size=8, workers=1, reload=0.0)
    application = application_of(models, settings, None, None, replicas=2, cores=0.2)
    with serving_on_ray(application, "127.0.0.1", port):
        yield f"127.0.0.1:{port}"


def test_applications_of_others_stay(nodes: Nodes) -> None:
    """A second server is refused, and the first one ends nothing but what it has started."""
    from ray import serve

    @serve.deployment(ray_actor_options={"num_cpus": 0})
    class Greeting:
        async def __call__(self, request: object) -> str:
            return "hello"

    try:
        with serving_on_ray(Greeting.bind(), "127.0.0.1", port := free_port()):
            serve.run(Greeting.bind(), name="other", route_prefix="/other")
            with (
                pytest.raises(InputError, match=r"already \(applications: preceptor, other\)"),
                serving_on_ray(Greeting.bind(), "127.0.0.1", free_port()),
            ):
                pass
            assert set(serve.status().applications) == {APPLICATION, "other"}
        assert set(serve.status().applications) == {"other"}
        assert send(f"127.0.0.1:{port}", "GET", "/other").status == 200
        serve.delete("other")
        with (
            pytest.raises(InputError, match=r"\(applications: none\); name another cluster"),
            serving_on_ray(Greeting.bind(), "127.0.0.1", free_port()),
        ):
            pass
    finally:
        serve.shutdown()
    with serving_on_ray(Greeting.bind(), "127.0.0.1", free_port()):
        assert set(serve.status().applications) == {APPLICATION}
    assert not serve.status().proxies


def test_a_killed_node_gives_no_wrong_answer(
    nodes: Nodes, address: str, served_folders: dict[str, Path], pictures: ImageFiles
) -> None:
    """The answers are those of the predictor; a node dies under load, and the rest goes on."""
    contents = [path.read_bytes() for path in pictures.good]
    scores = {
        name: [one.score for one in preceptor.load(path, device="cpu")(pictures.good)]
        for name, path in served_folders.items()
    }
    kind = {"content-type": "image/png"}
    for name, wanted in scores.items():
        for content, score in zip(contents, wanted, strict=True):
            told = send(address, "POST", f"/predict?model={name}&map=grid", content, kind)
            assert told.status == 200, told
            found = told.json["predictions"][0]
            assert found["score"] == pytest.approx(score, abs=1e-5)
            assert found["map"]["values"]
    bad = next(path for path in pictures.bad if path.name == "c text.png")
    told = send(address, "POST", "/predict", bad.read_bytes(), kind)
    assert (told.status, told.error[:21]) == (422, "image: not an image i")
    assert send(address, "POST", "/predict?threshold=fdr2%25", contents[0], kind).status == 422
    assert [one["name"] for one in send(address, "GET", "/models").json["models"]] == list(scores)

    counts: Counter[str] = Counter()
    stop = threading.Event()

    def load(first: int) -> None:
        at = first
        while not stop.is_set():
            at = (at + 1) % len(contents)
            try:
                told = send(address, "POST", "/predict", contents[at], kind)
            except (OSError, HTTPException):
                counts["failed"] += 1
                continue
            if told.status != 200:
                # Ray's proxy itself answers 500, in plain text, for what a lost front replica had.
                ours = told.headers["content-type"] == "application/json"
                counts[f"{'status' if ours else 'proxy'} {told.status}"] += 1
                continue
            score = told.json["predictions"][0]["score"]
            right = abs(score - scores["best"][at]) < 1e-5
            counts["right" if right else "wrong"] += 1

    users = [threading.Thread(target=load, args=(at,)) for at in range(3)]
    for user in users:
        user.start()
    try:
        while counts["right"] < 20:
            pass
        title = f"ServeReplica:{APPLICATION}:model best"
        nodes.kill(next(node for node in nodes.nodes if nodes.busy_with(node, title)))
        killed = counts["right"]
        # Every user has had answers after the kill, whatever was lost with the node.
        while counts["right"] < killed + 30:
            pass
    finally:
        stop.set()
        for user in users:
            user.join()
    # What was sent to the lost machine before Ray has noticed its loss fails, by its time-out.
    assert set(counts) <= {"right", "failed", "status 503", "status 504", "proxy 500"}, counts
