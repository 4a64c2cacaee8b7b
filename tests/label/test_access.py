"""Who may ask for what: sessions, hosts, origins, tokens, passwords, links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from preceptor.deploy.http import Hosts
from preceptor.errors import InputError
from preceptor.label import people
from preceptor.label.app import CSRF, WAYS, links_of
from preceptor.label.people import read_password
from tests.label.serving import HANGS, Client, Running, running

PATH = {"image": "1", "level": "0", "column": "0", "row": "0", "name:path": "index.html"}


def paths(method: str) -> list[str]:
    return [
        re.sub(r"\{([^}]*)\}", lambda found: PATH[found.group(1)], way.path)
        for way in WAYS
        if way.method == method
    ]


@pytest.mark.parametrize("path", paths("GET"))
def test_without_a_session_nothing_is_told(lasting: Running, path: str) -> None:
    stranger = Client(lasting.address)
    told = stranger.get(path)
    assert told.status == 403, told
    stranger.headers["cookie"] = f"{lasting.labeling.cookie_name}=lead.1.{'0' * 32}.{'0' * 64}"
    assert stranger.get(path).status == 403


@pytest.mark.parametrize("token", ["", "x", "1-x", "é", "a" * 43])
def test_a_wrong_token_opens_nothing(lasting: Running, token: str) -> None:
    told = Client(lasting.address).get("/?" + urlencode({"token": token}))
    assert told.status == 403
    assert "set-cookie" not in told.headers


@pytest.mark.parametrize("path", paths("POST"))
@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("origin", "http://example.org"),
        ("origin", ""),
        ("origin", "null"),
        (CSRF, "0" * 64),
        (CSRF, ""),
        ("host", "example.org"),
        ("cookie", ""),
    ],
)
def test_changes_need_the_page(lasting: Running, path: str, header: str, value: str) -> None:
    ann = lasting.client("ann")
    right = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    told = ann.send("POST", path, b"{}", right | ann.headers | {header: value})
    assert told.status == 403, told


@pytest.mark.parametrize("path", paths("GET"))
def test_a_rebound_name_is_no_host_of_this_server(lasting: Running, path: str) -> None:
    ann = lasting.client("ann")
    port = lasting.address.split(":")[1]
    for host in ("example.org", f"example.org:{port}", "127.0.0.1:1", f"127.0.0.1:{port}/x", ""):
        assert ann.send("GET", path, headers={"host": host or " "}).status == 403, host
    assert ann.send("GET", path, headers={"host": f"localhost:{port}"}).status != 403


def test_another_site_reads_nothing(lasting: Running) -> None:
    ann = lasting.client("ann")
    told = ann.send("GET", "/api/state", headers={"sec-fetch-site": "cross-site"})
    assert told.status == 403
    assert ann.send("GET", "/api/state", headers={"sec-fetch-site": "same-origin"}).status == 200
    # A link on another site may lead here: a strict cookie is not sent along a redirection. Without
    # encryption browsers do not tell the site.
    token = f"/?token={lasting.token}"
    for site, status in (("cross-site", 200), ("", 200), ("none", 303), ("same-origin", 303)):
        linked = Client(lasting.address).send("GET", token, headers={"sec-fetch-site": site})
        assert linked.status == status
        assert (b"refresh" in linked.content) == (status == 200)


def test_every_answer_has_the_headers_of_security(lasting: Running) -> None:
    ann = lasting.client("ann")
    for path in ("/", "/api/state", "/api/images/1/whole", "/api/nothing", "/api/images/x"):
        told = ann.get(path)
        assert "default-src 'none'" in told.headers["content-security-policy"]
        assert "unsafe" not in told.headers["content-security-policy"]
        assert told.headers["x-content-type-options"] == "nosniff"
        assert told.headers["referrer-policy"] == "same-origin"
        assert told.headers["cross-origin-resource-policy"] == "same-origin"
    cookie = Client(lasting.address).get(f"/?token={lasting.token}").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/%2e%2e/server.py",
        "/static//etc/passwd",
        "/static/nothing",
        "/static/..%2fserver.py",
        "/api/images/..%2f..%2fetc/whole",
        "/api/images/-1",
        f"/api/images/{'9' * 30}",
        "/api/images/1e3",
        "/api/images/1/tiles/0/0/..%2f..%2fx",
    ],
)
def test_no_path_of_a_request_is_a_file(lasting: Running, path: str) -> None:
    told = lasting.client("ann").get(path)
    assert told.status == 404
    assert str(lasting.labeling.source.root) not in told.error


def test_a_session_outlives_the_server(manifest: Path) -> None:
    with running(manifest) as first:
        ann = first.client("ann")
        name, cookie = ann.headers["cookie"].split("=")
    with running(manifest) as second:
        again = Client(second.address)
        again.headers["cookie"] = f"{second.labeling.cookie_name}={cookie}"
        assert name != second.labeling.cookie_name
        assert again.get("/api/state").json["person"]["name"] == "ann"


def test_the_mark_of_an_editor_is_no_part_of_a_password(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(b"\xef\xbb\xbfopen sesame\r\n")
    assert read_password(file) == "open sesame"
    file.write_bytes(b"\xef\xbb\xbfshort12"[:-1] + b"\n")
    with pytest.raises(InputError, match="8 or more characters"):
        read_password(file)


def test_a_password_lets_people_in(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "WITHIN", HANGS)
    with running(manifest, access="password", password="open sesame") as server:
        bo = Client(server.address)
        assert b'type="password"' in bo.get("/").content
        assert bo.get("/api/state").status == 403

        def enter(**form: str) -> Any:
            head = {
                "origin": f"http://{server.address}",
                "content-type": "application/x-www-form-urlencoded",
            }
            return bo.send("POST", "/enter", urlencode(form).encode(), head)

        assert enter(name="bo", password="wrong").status == 403
        assert enter(name="bo").status == 400
        assert enter(name="", password="open sesame").status in (400, 403)
        assert bo.send("POST", "/enter", b"\xff=1").status == 403  # no origin
        assert enter(name="bo", password="open sesame").status == 303
        state = bo.get("/api/state").json
        assert state["person"] == {"id": 1, "name": "bo", "lead": False}
        assert bo.get("/api/lead").status == 403
        assert server.client("ann").get("/api/lead").status == 200
        for _ in range(20):
            last = enter(name="bo", password="guess")
        assert last.status == 429
        assert enter(name="bo", password="open sesame").status == 429
        bo = Client(server.address, source="127.0.0.2")  # another machine
        assert enter(name="bo", password="open sesame").status == 303


def test_a_link_is_of_one_person(manifest: Path) -> None:
    with running(manifest, access="links") as server:
        tokens = links_of(server.labeling, ["ann", "bo"])
        ann = Client(server.address).enter(tokens["ann"])
        state = ann.get("/api/state").json
        assert (state["person"]["name"], state["fixed"], state["people"]) == ("ann", True, [])
        assert ann.post("/api/person", {"name": "bo"}).status == 403
        assert ann.get("/api/lead").status == 403
        links_of(server.labeling, ["ann"])
        assert Client(server.address).get(f"/?token={tokens['bo']}").status == 403
        assert Client(server.address).get(f"/?token={tokens['ann']}").status == 200


def test_links_of_people_open_nothing_without_links(server: Running) -> None:
    token = links_of(server.labeling, ["ann"])["ann"]
    assert Client(server.address).get(f"/?token={token}").status == 403


def test_hosts_of_a_server_for_everybody() -> None:
    hosts = Hosts.of("0.0.0.0", 8000, ("label.example.org",))
    assert hosts.allows("192.168.1.7:8000")
    assert hosts.allows("[fe80::1]:8000")
    assert hosts.allows("label.example.org")
    assert not hosts.allows("example.org:8000")
    assert not hosts.allows("user@192.168.1.7:8000")
    assert not hosts.allows("192.168.1.7:port")
    assert not hosts.allows("0.0.0.0.example.org")


def test_the_name_of_the_start_is_that_of_the_link(manifest: Path) -> None:
    """Also in a browser in which another person has signed in."""
    with running(manifest, name="ann") as server:
        client = Client(server.address)
        for _ in range(2):
            client.enter(server.token)
        cookie = client.headers["cookie"].partition("=")[2]
        assert client.get("/api/state").json["person"]["name"] == "ann"
    for name, expected in (("", "ann"), ("bob", "bob"), ("", "bob")):
        with running(manifest, name=name) as server:
            client = Client(server.address)
            client.headers["cookie"] = f"{server.labeling.cookie_name}={cookie}"
            client.enter(server.token)
            assert client.get("/api/state").json["person"]["name"] == expected
            cookie = client.headers["cookie"].partition("=")[2]


def test_a_session_ends_with_its_link(manifest: Path) -> None:
    with running(manifest, access="links") as server:
        tokens = links_of(server.labeling, ["ann", "bo"])
        ann, bo = (Client(server.address).enter(tokens[name]) for name in ("ann", "bo"))
        links_of(server.labeling, ["ann"])  # as when the server is started again without bo
        told = bo.get("/api/queue")
        assert (told.status, told.error) == (
            403,
            "your link is not valid any more; ask for a new one",
        )
        assert bo.answer(1, "nothing").status == 403
        assert b"needs your own link" in bo.get("/").content
        assert ann.get("/api/queue").status == 200
        kept = server.labeling.keys.session(ann.headers["cookie"].partition("=")[2])
    assert kept is not None
    with running(manifest) as server:  # nobody has a link any more
        cookie = f"{server.labeling.cookie_name}={server.labeling.keys.cookie(kept)}"
        assert Client(server.address, headers={"cookie": cookie}).get("/api/queue").status == 403


def test_a_session_ends_with_its_password(manifest: Path) -> None:
    values = []
    for password, known in (("open sesame", True), ("another one", False), ("", False)):
        access = "password" if password else "local"
        with running(manifest, access=access, password=password) as server:
            keys = server.labeling.keys
            values = values or [keys.cookie(keys.new_session("guest", 1))]
            assert (keys.session(values[0]) is not None) == known


def test_a_guest_with_the_name_of_the_lead_does_not_lead(manifest: Path) -> None:
    with running(manifest, access="password", password="open sesame", name="ann") as server:
        guest = Client(server.address)
        form = urlencode({"name": "ann", "password": "open sesame"}).encode()
        head = {"origin": f"http://{server.address}"}
        assert guest.send("POST", "/enter", form, head).status == 303
        state = guest.get("/api/state").json
        assert state["person"] == {"id": 1, "name": "ann", "lead": False}
        guest.headers[CSRF] = state["csrf"]
        assert guest.post("/api/person", {"name": "ann"}).json["person"]["lead"] is False
        assert guest.get("/api/lead").status == 403
        assert server.client("ann").get("/api/lead").status == 200


@pytest.mark.parametrize(
    "other",
    [
        'prefs={"theme": "dark"}',
        "name=J\u00fcrgen",
        'list=["a", "b"]',
        "path=/",
        "expires=never",
        "a b",
        "=",
        "",
    ],
)
def test_cookies_of_other_programs_do_not_matter(lasting: Running, other: str) -> None:
    ann = lasting.client("ann")
    own = ann.headers["cookie"]
    for cookies in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};{other}"):
        # http.client sends headers in Latin-1.
        ann.headers["cookie"] = cookies.encode().decode("latin-1")
        assert ann.get("/api/state").status == 200
    ann.headers["cookie"] = other.encode().decode("latin-1")
    assert ann.get("/api/state").status == 403
