"""Requests to a real server: predictions, refusals, limits, time-outs, stop."""

from __future__ import annotations

import base64
import concurrent.futures
import io
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import preceptor
from preceptor.deploy.http_server import listen
from preceptor.deploy.prediction import Prediction
from preceptor.deploy.predictor import Predictor
from preceptor.errors import InputError
from tests.commands import HANGS
from tests.deploy.fuzzing import fuzz
from tests.deploy.serving import Running, running, send
from tests.image_files import ImageFiles


@pytest.fixture(scope="module")
def predictor(served_folders: dict[str, Path]) -> Predictor:
    return preceptor.load(served_folders["best"], device="cpu")


def png(width: int, height: int, color: int = 128) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), color).save(file, "PNG")
    return file.getvalue()


def assert_is(found: dict[str, Any], wanted: Prediction, threshold: float | None = None) -> None:
    assert found["score"] == pytest.approx(wanted.score, abs=1e-5)
    assert found["probabilities"] == pytest.approx(wanted.probabilities, abs=1e-5)
    assert (found["width"], found["height"]) == wanted.size
    if threshold is None:
        assert found["decision"] == wanted.decision


def test_an_answer_is_the_prediction_of_the_predictor(
    server: Running, pictures: ImageFiles, predictor: Predictor
) -> None:
    for path in pictures.good:
        for kind in ("image/png", "application/x-www-form-urlencoded", ""):
            told = server.post(path.read_bytes(), kind)
            assert told.status == 200, told
            assert_is(told.json, predictor(path))
            assert told.json["map"] is None
    assert told.headers["cache-control"] == "no-store"
    assert told.json["threshold"] == 0.5


@pytest.mark.parametrize("form", ["grid", "png"])
def test_maps(server: Running, pictures: ImageFiles, predictor: Predictor, form: str) -> None:
    for path in pictures.good:
        wanted = predictor(path)
        found = server.post(path.read_bytes(), query=f"?map={form}").json
        assert found["map"]["of"] == "fake"
        assert found["map"]["form"] == form
        if form == "png":
            assert found["map"]["values"] is None
            with Image.open(io.BytesIO(base64.b64decode(found["map"]["png"]))) as image:
                assert (image.format, image.mode, image.size) == ("PNG", "L", wanted.size)
                values = np.asarray(image) / 255
            np.testing.assert_allclose(values, wanted.map_at_image(), atol=0.003)
        else:
            assert found["map"]["png"] is None
            np.testing.assert_allclose(found["map"]["values"], wanted.map, atol=1e-4)


def test_other_thresholds(
    server: Running, served_folders: dict[str, Path], pictures: ImageFiles, predictor: Predictor
) -> None:
    content = pictures.good[0].read_bytes()
    score = predictor(pictures.good[0]).score
    for threshold, value in (("eer", 0.5), ("fdr5%", 0.25), ("bpcer1%", 0.75), ("0.9", 0.9)):
        told = server.post(content, query=f"?threshold={threshold.replace('%', '%25')}")
        assert told.json["threshold"] == value
        assert told.json["decision"] == ("fake" if score >= value else "real")
    with running(served_folders["three"]) as other:
        found = other.post(content, query="?map=grid").json
        wanted = preceptor.load(served_folders["three"], device="cpu")(pictures.good[0])
        assert found["threshold"] is None
        assert found["map"]["of"] == wanted.map_class
        assert_is(found, wanted)
        assert other.post(content, query="?threshold=0.5").status == 422


def test_images_that_are_none(server: Running, pictures: ImageFiles) -> None:
    good = pictures.good[0].read_bytes()
    for path, reason in pictures.bad.items():
        told = server.post(path.read_bytes(), "application/octet-stream")
        assert told.status == 422, (path, told)
        wanted = "too large" if "huge" in path.name else reason
        assert wanted in told.error
    assert server.post(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").status == 422
    assert server.post(png(4000, 2501)).error.startswith("4,000 × 2,501 pixels")
    assert server.post(png(70_000, 1)).error == ("70,000 × 1 pixels; a side has at most 65,535")
    assert server.post(good).status == 200


WRONG: list[tuple[bytes, str, str, int, str]] = [
    (b"x", "text/plain", "", 422, "not an image"),
    (b"", "image/png", "", 422, "empty"),
    (b"--b--", "multipart/form-data; boundary=b", "", 415, "curl --data-binary @image.png"),
    (b"x", "image/png", "?map=whole", 400, "one of none, grid, png"),
    (b"x", "image/png", "?threshold=nan", 422, "a score is a probability"),
    (b"x", "image/png", "?threshold=" + "1" * 61, 400, "more than 60 characters"),
    (b"x", "image/png", "?maps=grid", 400, "known are map, threshold"),
    (b"x", "image/png", "?map=grid&map=png", 400, "there twice"),
]


@pytest.mark.parametrize(("body", "kind", "query", "status", "reason"), WRONG)
def test_malformed_requests(
    server: Running, body: bytes, kind: str, query: str, status: int, reason: str
) -> None:
    told = server.post(body, kind, query)
    assert told.status == status, told
    assert reason in told.error


def test_paths_methods_and_hosts(server: Running) -> None:
    assert server.get("/predict").status == 405
    assert server.get("/nothing").status == 404
    assert server.get("/").status == 404
    told = server.get("/model", {"host": "rebound.example"})
    assert (told.status, told.error[:9]) == (403, "this host")
    told = send(server.address, "POST", "/predict", b"x", {"origin": "http://other.example"})
    assert told.status == 403
    assert server.get("/healthz", {"host": "10.0.0.7"}).status == 200


def test_a_body_over_the_limit_or_cut_off(served_folders: dict[str, Path]) -> None:
    with running(served_folders["best"], body=1000) as server:
        told = server.post(b"x" * 1001)
        assert (told.status, told.error) == (413, "the body is larger than 1,000 bytes")
        host, port = server.address.split(":")
        chunked = b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n0\r\n\r\n"
        head = f"POST /predict HTTP/1.1\r\nHost: {server.address}\r\nContent-Type: image/png\r\n"
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + chunked)
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(head.encode() + b"Content-Length: 900\r\n\r\nxxx")
        # All bodies together: the bytes of those that were cut off are free again.
        for _ in range(30):
            assert server.post(b"x" * 1000).status == 422
        assert server.service._bytes == 0
        server.service._bytes = server.service.settings.bodies
        told = server.post(b"x" * 900)
        assert (told.status, told.headers["retry-after"]) == (429, "1")


def test_a_full_queue_refuses_and_a_slow_network_times_out(
    served_folders: dict[str, Path], pictures: ImageFiles
) -> None:
    content = pictures.good[0].read_bytes()
    with running(served_folders["best"], queue=2) as server:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            with server.held() as begun:
                first = pool.submit(server.post, content)
                assert begun.wait(HANGS)
                second = pool.submit(server.post, content)
                while server.metric("preceptor_images_in_flight") < 2:
                    pass
                told = server.post(content)
                assert told.status == 429
                assert told.error.startswith("the server is busy; try again in 1 second")
                assert int(told.headers["retry-after"]) >= 1
            assert first.result().status == second.result().status == 200
        assert server.metric("preceptor_images_in_flight") == 0
        assert server.metric('preceptor_requests_total{path="/predict",status="429"}') == 1
    with running(served_folders["best"], timeout=0.05) as server:
        with server.held():
            told = server.post(content)
        assert told.status == 504
        assert told.error == "the prediction took longer than 0.05 seconds"


def test_a_client_that_goes_away_frees_its_place(
    served_folders: dict[str, Path], pictures: ImageFiles
) -> None:
    content = pictures.good[0].read_bytes()
    with running(served_folders["best"], queue=2) as server:
        host, port = server.address.split(":")
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            with server.held() as begun:
                first = pool.submit(server.post, content)
                assert begun.wait(HANGS)
                with socket.create_connection((host, int(port))) as connection:
                    head = f"POST /predict HTTP/1.1\r\nHost: {server.address}\r\n"
                    head += f"Content-Length: {len(content)}\r\n\r\n"
                    connection.sendall(head.encode() + content)
                    while server.metric("preceptor_images_in_flight") < 2:
                        pass
                while server.metric("preceptor_images_in_flight") > 1:
                    pass
            assert first.result().status == 200
        assert server.post(content).status == 200
        # The image of the client that went away was not predicted.
        assert server.metric("preceptor_images_total") == 2


def test_images_of_concurrent_requests_share_a_batch(
    served_folders: dict[str, Path], pictures: ImageFiles, predictor: Predictor
) -> None:
    with running(served_folders["best"], delay=HANGS, batch_size=6) as server:
        paths = pictures.good[:6]
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            told = list(pool.map(lambda path: server.post(path.read_bytes()), paths))
        for path, one in zip(paths, told, strict=True):
            assert_is(one.json, predictor(path))
        assert server.metric('preceptor_batch_size_bucket{le="4.0"}') == 0
        assert server.metric("preceptor_batch_size_count") == 1


def test_a_stop_finishes_what_is_in_flight_and_takes_nothing_new(
    served_folders: dict[str, Path], pictures: ImageFiles
) -> None:
    content = pictures.good[0].read_bytes()
    with (
        concurrent.futures.ThreadPoolExecutor(1) as pool,
        running(served_folders["best"]) as server,
    ):
        with server.held() as begun:
            first = pool.submit(server.post, content)
            assert begun.wait(HANGS)
            server.service.stop()
            told = server.post(content)
            assert (told.status, told.headers["connection"]) == (503, "close")
            ready = server.get("/readyz")
            assert (ready.status, ready.json["status"]) == (503, "stopping")
            assert server.get("/healthz").status == 200
        assert first.result().status == 200


def test_keys(served_folders: dict[str, Path], pictures: ImageFiles, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("# of the tests\nfirst-key-0123456789\nsecond-key-0123456789\n")
    content = pictures.good[0].read_bytes()
    with running(served_folders["best"], keys=keys) as server:
        for path in ("/model", "/metrics"):
            told = server.get(path)
            assert (told.status, told.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert server.post(content).error.startswith("an API key is needed")
        for path in ("/healthz", "/readyz"):
            assert server.get(path).status == 200
        assert server.get("/model", {"host": "any.example", "x-api-key": "x" * 20}).status == 401
        assert server.get("/model", {"x-api-key": "second-key-0123456789"}).status == 200
        server.headers = {"authorization": "Bearer first-key-0123456789"}
        assert server.post(content).status == 200


def test_mutated_requests_break_nothing(server: Running, pictures: ImageFiles) -> None:
    statuses = fuzz(server, sorted([*pictures.good, *pictures.bad]), 400)
    for status in (200, 400, 415, 422):
        assert statuses[status], statuses


def test_a_port_that_is_taken_is_refused_with_its_number() -> None:
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=rf"^--host 127\.0\.0\.1 --port {port}: .*; choose another$"
        ):
            listen("127.0.0.1", port)
