"""Opening of a database for a server: images, settings, keys, files of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from preceptor.errors import InputError
from preceptor.label import settings as stored
from preceptor.label.calls import Access, Labeling
from preceptor.label.database import Connection, Database, connect
from preceptor.label.image_files import look_again
from preceptor.label.intake import Changes, arrange, is_current, remember_place, take_in
from preceptor.label.people import add_person, key_hash
from preceptor.label.pictures import Pictures
from preceptor.label.queue import claim_begun
from preceptor.label.routes_people import STATIC_SUFFIXES
from preceptor.label.sessions import Keys
from preceptor.label.settings import LabelSettings, read_settings, write_settings
from preceptor.label.sources import Row, Source
from preceptor.runtime.cache_dir import default_cache_dir
from preceptor.web.hosts import Hosts

PAGE = Path(__file__).parent / "static"


@dataclass(frozen=True)
class Prepared:
    """Database that is ready to be served.

    Args:
        path: SQLite file.
        source: Manifest or folder.
        settings: Settings.
        changes: What a changed manifest did; None = it is as it was.
        first: Whether the database is new.
    """

    path: Path
    source: Source
    settings: LabelSettings
    changes: Changes | None
    first: bool


def reader_of(
    path: Path, source: Source, read_rows: Callable[[Source], Sequence[Row]]
) -> Callable[[Source], Sequence[Row]]:
    """Reader of rows that, for a new database, has read the source before any file is made.

    A source that is refused so leaves nothing behind. The lock of `database.serving` could not be
    removed afterwards: another server may have opened it, and would then hold a file without name.

    Args:
        path: SQLite file.
        source: Manifest or folder.
        read_rows: Reader of the rows.

    Raises:
        InputError: The source of a new database is invalid.
    """
    if path.exists() or not path.parent.is_dir():
        return read_rows
    rows = read_rows(source)
    return lambda _: rows


def prepare(
    path: Path,
    source: Source,
    read_rows: Callable[[Source], Sequence[Row]],
    given: dict[str, Any],
) -> Prepared:
    """Create or open a database, and bring its images and settings to those of this start.

    Args:
        path: SQLite file.
        source: Manifest or folder.
        read_rows: Reader of the rows, called only if they have changed.
        given: Settings that this start names.

    Raises:
        InputError: The database, the manifest or a setting is invalid.
    """
    first = not path.exists()
    connection = connect(path, create=True)
    try:
        connection.execute("BEGIN IMMEDIATE")
        changes = None
        if not is_current(connection, source):
            rows = read_rows(source)
            chosen = _labels_are_chosen(connection)
            changes = take_in(connection, source, rows)
            if not source.is_folder and not chosen:
                labels = sorted({row.label for row in rows})
                stored.put(connection, "labels", labels)
        remember_place(connection, source, path)
        before = read_settings(connection)
        settings = _checked(replace(before, **given), connection)
        if settings.overlap == 1 and given.get("overlap_share"):
            raise InputError(
                "--overlap-share: it is the share of the images that several people mark, and one "
                "person marks each; add --overlap 2"
            )
        if settings != before or first:
            write_settings(connection, settings)
        arrange(connection, settings)
        stored.secret(connection)
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        if first:
            path.unlink(missing_ok=True)
        raise
    connection.close()
    return Prepared(path, source, settings, changes, first)


def _labels_are_chosen(connection: Connection) -> bool:
    """Whether the labels among which people choose are others than those of the images."""
    listed = connection.execute("SELECT DISTINCT label FROM images WHERE listed = 1")
    known = set(stored.get(connection, "labels", ()))
    return bool(known) and known != {row[0] for row in listed}


def _checked(settings: LabelSettings, connection: Connection) -> LabelSettings:
    used = {row[0] for row in connection.execute("SELECT DISTINCT class FROM strokes")}
    if gone := sorted(used - set(settings.classes)):
        raise InputError(
            f"--classes: the class {gone[0]!r} has marks already; name it too, or use another "
            "--database"
        )
    known = {row[0] for row in connection.execute("SELECT DISTINCT split FROM images")}
    if gone := [split for split in settings.splits if split not in known]:
        raise InputError(
            f"--splits: there is no image of the split {gone[0]!r}; known: "
            f"{', '.join(sorted(known - {''})) or 'none'}"
        )
    return settings


def labeling_of(
    prepared: Prepared,
    hosts: Hosts,
    access: Access = "local",
    password: str = "",
    name: str = "",
    cache: Path | None = None,
) -> Labeling:
    """State of a server.

    Args:
        prepared: Database.
        hosts: Hosts that requests may name.
        access: How people come in.
        password: Password, with access by password.
        name: Name of the person whom the link of the terminal is for, or "".
        cache: Folder of caches; None = the default.
    """
    database = Database(prepared.path)
    reading = database.reading
    lead = database.write(lambda writing: add_person(writing, name, lead=True)) if name else None
    labeling = Labeling(
        database,
        prepared.source,
        prepared.settings,
        Keys(stored.secret(reading), password),
        hosts,
        Pictures((cache or default_cache_dir()) / "label"),
        page_files(PAGE),
        access,
        password,
        0 if lead is None else lead.id,
    )
    database.write(lambda writing: look_again(writing, labeling.source.root))
    claim_begun(reading, labeling.claims)
    labeling.builder.submit(labeling.pictures.remove_unused)
    return labeling


def links_of(labeling: Labeling, names: Sequence[str]) -> dict[str, str]:
    """Tokens of the links of people, who are added if necessary; others have no link any more.

    Args:
        labeling: State of a server.
        names: Names.

    Returns:
        Token by name.
    """

    def change(connection: Connection) -> dict[str, str]:
        connection.execute("UPDATE people SET key_hash = NULL")
        found = {}
        for name in names:
            person = add_person(connection, name)
            token = labeling.keys.person_token(person.id, person.name)
            connection.execute(
                "UPDATE people SET key_hash = ? WHERE id = ?", (key_hash(token), person.id)
            )
            found[person.name] = token
        return found

    return labeling.database.write(change)


def page_files(folder: Path) -> dict[str, Path]:
    """Files of the page by name."""
    return {
        file.relative_to(folder).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in STATIC_SUFFIXES
    }
