"""Sessions and links.

A session is a cookie with a role, a person and a random number, signed with the key of the
database; it stays valid when the server is started again, as long as the way in does: with the same
password, and for people who still have a link. Links contain keys that are derived from the same
key.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from preceptor.errors import InputError

Role = Literal["lead", "guest", "linked"]
"""lead: came by the link of the terminal; guest: by the password; linked: by a person's link."""

_COOKIE = re.compile(r"(lead|guest|linked)\.(\d{1,15})\.([0-9a-f]{32})\.([0-9a-f]{64})")


@dataclass(frozen=True)
class Session:
    """One session.

    Args:
        role: How it was opened.
        person: Number of the person; 0 = not chosen yet.
        nonce: Random number.
    """

    role: Role
    person: int
    nonce: str

    def of(self, person: int) -> Session:
        """The same session of another person."""
        return replace(self, person=person)


class Keys:
    """Keys of sessions and links.

    Args:
        secret: Key of the database.
        password: Password of guests; "" = there are none.
    """

    def __init__(self, secret: bytes, password: str = "") -> None:
        self._secret = secret
        self._password = password

    def _sign(self, text: str) -> str:
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    @property
    def lead_token(self) -> str:
        """Token of the link in the terminal."""
        return self._sign("lead")[:43]

    @property
    def database_id(self) -> str:
        """Identifier of the database, by which browsers keep what is not saved."""
        return self._sign("database")[:32]

    def person_token(self, person: int, name: str) -> str:
        """Token of a person's link."""
        return f"{person}-{self._sign(f'person {person} {name}')[:43]}"

    def new_session(self, role: Role, person: int = 0) -> Session:
        """New session."""
        return Session(role, person, secrets.token_hex(16))

    def cookie(self, session: Session) -> str:
        """Value of the cookie of a session."""
        text = f"{session.role}.{session.person}.{session.nonce}"
        return f"{text}.{self._signature(session.role, text)}"

    def _signature(self, role: str, text: str) -> str:
        way = f" {self._password}" if role == "guest" else ""
        return self._sign(f"session {text}{way}")

    def session(self, cookie: str) -> Session | None:
        """Session of a cookie; None if it is not one of ours."""
        found = _COOKIE.fullmatch(cookie)
        if found is None:
            return None
        role, person, nonce, signature = found.groups()
        if not same(signature, self._signature(role, f"{role}.{person}.{nonce}")):
            return None
        return Session(role, int(person), nonce)  # type: ignore[arg-type]

    def csrf(self, session: Session) -> str:
        """Token that every change must send in a header.

        It is of the session and its person: after another person has signed in, an open tab of the
        first one cannot save marks under the other name.
        """
        return self._sign(f"csrf {session.role}.{session.person}.{session.nonce}")


def read_password(file: Path) -> str:
    """Password of a file with one line.

    Raises:
        InputError: The file is no text in UTF-8, or has no line of 8 or more characters.
    """
    try:
        # Editors of Windows begin a file in UTF-8 with a mark, which nobody can type.
        text = file.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"--password-file {file}: not a text in UTF-8") from error
    if len(text) < 8 or "\n" in text:
        raise InputError(f"--password-file {file}: one line of 8 or more characters is needed")
    return text


def same(a: str, b: str) -> bool:
    """Whether two texts are equal, in a time that does not depend on where they differ."""
    return hmac.compare_digest(a.encode(errors="surrogatepass"), b.encode(errors="surrogatepass"))
