"""The ways into the page, in a real browser: a password, and links in letters."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from preceptor.label.app import links_of
from tests.label.pages import SHOWN
from tests.label.serving import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HOST = "label.test"


@contextmanager
def letter(link: str) -> Iterator[str]:
    """Address of a page of another site that has a link."""

    class Letter(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(f'<a href="{link}">your link</a>'.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Letter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://mail.test:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("host", ["127.0.0.1", HOST])
def test_a_person_enters_with_the_password(browser: Browser, manifest: Path, host: str) -> None:
    way = {"access": "password", "password": "open sesame", "allow_host": (HOST,)}
    with running(manifest, **way) as server:
        page = browser.new_page()
        page.goto(f"http://{host}:{server.address.split(':')[1]}/")
        for word in ("a guess", "open sesame"):
            page.fill("#name", "Ada")
            page.fill("#password", word)
            page.click("button")
            if word == "a guess":
                page.get_by_text("The password is wrong.").wait_for()
        page.wait_for_selector(SHOWN)
        assert page.locator("#who").inner_text() == "Ada"
        page.close()


@pytest.mark.parametrize("host", ["127.0.0.1", HOST])
def test_a_link_in_a_letter_opens_the_page(browser: Browser, manifest: Path, host: str) -> None:
    with running(manifest, access="links", allow_host=(HOST,)) as server:
        token = links_of(server.labeling, ["Ada"])["Ada"]
        place = f"http://{host}:{server.address.split(':')[1]}/"
        with letter(f"{place}?token={token}") as mail:
            page = browser.new_page()
            page.goto(mail)
            page.click("a")
            page.wait_for_selector(SHOWN)
            assert page.url.startswith(place)
            assert "token" not in page.url
            page.close()
