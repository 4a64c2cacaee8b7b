"""Who may ask for what: sessions, hosts, origins, tokens."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlencode

import pytest

from preceptor.deploy.http import Hosts
from preceptor.label.app import CSRF, WAYS
from tests.label.serving import Client, Running, running

PATH = {"image": "1", "name:path": "index.html"}


def paths(method: str) -> list[str]:
    return [
        re.sub(r"\{([^}]*)\}", lambda match: PATH[match.group(1)], way.path)
        for way in WAYS
        if way.method == method
    ]


def test_nothing_is_told_without_a_session_or_to_another_host(lasting: Running) -> None:
    stranger, ann = Client(lasting.address), lasting.client("ann")
    port = lasting.address.split(":")[1]
    hosts = ("example.org", f"example.org:{port}", "127.0.0.1:1", f"127.0.0.1:{port}/x", " ")
    for path in paths("GET"):
        stranger.headers["cookie"] = ""
        assert stranger.get(path).status == 403, path
        stranger.headers["cookie"] = f"{lasting.labeling.cookie_name}=1.{'0' * 32}.{'0' * 64}"
        assert stranger.get(path).status == 403, path
        for host in hosts:
            assert ann.send("GET", path, headers={"host": host}).status == 403, (path, host)
        assert ann.send("GET", path, headers={"host": f"localhost:{port}"}).status != 403
    for token in ("", "x", "1-x", "é", "a" * 43):
        told = Client(lasting.address).get("/?" + urlencode({"token": token}))
        assert told.status == 403
        assert "set-cookie" not in told.headers


@pytest.mark.parametrize(
    ("header", "value"),
    [
        *(("origin", "http://example.org"), ("origin", ""), ("origin", "null")),
        *((CSRF, "0" * 64), (CSRF, ""), ("host", "example.org"), ("cookie", "")),
    ],
)
def test_changes_need_the_page(lasting: Running, header: str, value: str) -> None:
    ann = lasting.client("ann")
    right = {"origin": f"http://{lasting.address}", "content-type": "application/json"}
    for path in paths("POST"):
        told = ann.send("POST", path, b"{}", right | ann.headers | {header: value})
        assert told.status == 403, (path, told)


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
    for path in ("/", "/api/state", "/api/images/1/whole", "/api/nothing", "/api/images/x"):
        told = ann.get(path)
        assert "default-src 'none'" in told.headers["content-security-policy"]
        assert "unsafe" not in told.headers["content-security-policy"]
        assert told.headers["x-content-type-options"] == "nosniff"
        assert told.headers["referrer-policy"] == "same-origin"
        assert told.headers["cross-origin-resource-policy"] == "same-origin"
    for flag in ("HttpOnly", "SameSite=Strict"):
        assert flag in linked.headers["set-cookie"]


@pytest.mark.parametrize(
    "path",
    [
        *("/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd"),
        *("/static/nothing", "/static/..%2fserver.py", "/api/images/..%2f..%2fetc/whole"),
        *("/api/images/-1", f"/api/images/{'9' * 30}", "/api/images/1e3"),
        "/api/images/1/..%2f..%2fx",
    ],
)
def test_no_path_of_a_request_is_a_file(lasting: Running, path: str) -> None:
    told = lasting.client("ann").get(path)
    assert told.status == 404
    assert str(lasting.labeling.source.root) not in told.error


def test_a_session_outlives_the_server(manifest: Path) -> None:
    with running(manifest) as first:
        name, cookie = first.client("ann").headers["cookie"].split("=")
    with running(manifest) as second:
        again = Client(second.address)
        again.headers["cookie"] = f"{second.labeling.cookie_name}={cookie}"
        assert name != second.labeling.cookie_name
        assert again.get("/api/state").json["person"]["name"] == "ann"


def test_the_key_is_in_a_file_of_its_own_and_without_it_sessions_end(
    manifest: Path, database: Path
) -> None:
    key = database.with_name(f"{database.name}.key")
    with running(manifest) as server:
        told = Client(server.address).get(f"/?token={server.token}")
        assert "Max-Age=2592000" in told.headers["set-cookie"]
        old, token = server.client("ann").headers["cookie"].partition("=")[2], server.token
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().encode() not in database.read_bytes()
    key.unlink()
    with running(manifest) as server:
        assert Client(server.address).get(f"/?token={token}").status == 403
        cookie = {"cookie": f"{server.labeling.cookie_name}={old}"}
        assert Client(server.address, headers=cookie).get("/api/queue").status == 403


def test_hosts_of_a_server_for_everybody() -> None:
    hosts = Hosts.of("0.0.0.0", 8000, ("label.example.org",))
    for host in ("192.168.1.7:8000", "[fe80::1]:8000", "label.example.org"):
        assert hosts.allows(host)
    for host in ("example.org:8000", "user@192.168.1.7:8000", "192.168.1.7:port", "0.0.0.0.a.org"):
        assert not hosts.allows(host)


def test_cookies_of_other_programs_do_not_matter(lasting: Running) -> None:
    ann = lasting.client("ann")
    own = ann.headers["cookie"]
    others = ('prefs={"theme": "dark"}', "name=J\u00fcrgen", 'list=["a", "b"]', "path=/", "a b")
    for other in (*others, "expires=never", "=", ""):
        for cookies in (f"{other}; {own}", f"{own}; {other}", f"{other};{own};{other}"):
            # http.client sends headers in Latin-1.
            ann.headers["cookie"] = cookies.encode().decode("latin-1")
            assert ann.get("/api/state").status == 200, other
        ann.headers["cookie"] = other.encode().decode("latin-1")
        assert ann.get("/api/state").status == 403
