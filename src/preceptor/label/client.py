"""HTTP client of the marking page's server, for simulated annotators."""

from __future__ import annotations

import http.client
import json
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from preceptor.errors import PreceptorError
from preceptor.label.runs import Bits, bounding_runs, to_text


class ClientError(PreceptorError):
    """The server refused a request, or cannot be reached."""


class LabelClient:
    """One person at the page: a session, kept alive over one connection.

    Args:
        link: Link that `preceptor label` prints.
        name: Name of the person.

    Raises:
        ClientError: The link is not valid, or the server cannot be reached.
    """

    def __init__(self, link: str, name: str) -> None:
        parts = urlsplit(link)
        self._host = parts.netloc
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        self._tab = uuid.uuid4().hex
        self._cookie = self._csrf = ""
        self._send("GET", f"/?{parts.query}")
        self._csrf = self.get("/api/state")["csrf"]
        self.post("/api/person", {"name": name})
        self._csrf = self.get("/api/state")["csrf"]

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, path: str) -> dict[str, Any]:
        """Answer to a GET request.

        Raises:
            ClientError: It was refused.
        """
        return self._json(*self._send("GET", path))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Answer to a POST request.

        Raises:
            ClientError: It was refused.
        """
        return self._json(*self._send("POST", path, json.dumps(body).encode()))

    def next_image(self) -> int | None:
        """Number of the next open image; None if there is none."""
        images = self.get("/api/queue?count=1")["images"]
        return int(images[0]["id"]) if images else None

    def image(self, number: int) -> dict[str, Any]:
        """One image with the person's strokes, and the proposal if one is shown now."""
        return self.get(f"/api/images/{number}?tab={self._tab}")

    def stroke(
        self,
        image: int,
        pixels: Bits,
        *,
        class_: str,
        erase: bool = False,
        seconds: float = 0.0,
        proposal: int | None = None,
    ) -> None:
        """Save a stroke.

        Args:
            image: Number of the image.
            pixels: (h, w) changed pixels of the whole image; at least one.
            class_: Class of the mark.
            erase: Whether the pixels are erased.
            seconds: Duration.
            proposal: Number of the proposal that the stroke adopts.
        """
        box = bounding_runs(pixels)
        if box is None:
            raise ValueError("a stroke changes at least one pixel")
        x, y, w, h, runs = box
        height, width = pixels.shape
        tool = "proposal" if proposal is not None else "eraser" if erase else "brush"
        self.post(
            f"/api/images/{image}/strokes",
            {
                "uuid": str(uuid.uuid4()),
                "tab": self._tab,
                "tool": tool,
                "class": class_,
                "erase": erase,
                "width": width,
                "height": height,
                "x": x,
                "y": y,
                "w": w,
                "h": h,
                "runs": to_text(runs),
                "started": datetime.now(UTC).isoformat(),
                "seconds": seconds,
                "proposal": proposal,
            },
        )

    def answer(
        self,
        image: int,
        state: str,
        *,
        label: str | None = None,
        seconds: float = 0.0,
        proposal: int | None = None,
    ) -> None:
        """Save an answer; the next image is not handed out before `next_image`.

        Args:
            image: Number of the image.
            state: marked, nothing, cannot_judge or skipped.
            label: Label of the image.
            seconds: Duration of all work on the image.
            proposal: Number of the proposal that was shown.
        """
        self.post(
            f"/api/images/{image}/answer",
            {
                "tab": self._tab,
                "state": state,
                "label": label,
                "certainty": None,
                "seconds": seconds,
                "proposal": proposal,
                "next": False,
            },
        )

    def _send(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        headers = {"Host": self._host, "Cookie": self._cookie}
        if body is not None:
            headers |= {
                "Content-Type": "application/json",
                "Origin": self._origin,
                "X-Preceptor-Csrf": self._csrf,
            }
        try:
            try:
                reply, content = self._exchange(method, path, body, headers)
            except (http.client.RemoteDisconnected, ConnectionError):
                # The server closes idle connections. Requests have no effect when repeated.
                self._connection.close()
                reply, content = self._exchange(method, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(f"{self._origin}: {error or type(error).__name__}") from error
        if found := reply.getheader("Set-Cookie"):
            self._cookie = found.split(";")[0]
        return reply.status, content

    def _exchange(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> tuple[http.client.HTTPResponse, bytes]:
        self._connection.request(method, path, body, headers)
        reply = self._connection.getresponse()
        return reply, reply.read()

    def _json(self, status: int, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError:
            value = {"error": "the answer is no JSON"}
        if status >= 400 or "error" in value:
            raise ClientError(f"{self._origin}: {value.get('error', status)}")
        found: dict[str, Any] = value
        return found
