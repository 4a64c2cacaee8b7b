"""Tables of the database of marks."""

from __future__ import annotations

APPLICATION = 0x50524C42
"""`application_id` of the SQLite file."""

FORMAT = 6
"""`user_version` of the file; other formats are refused."""

SCHEMA = """
CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE images (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,           -- from the folder of the manifest, or absolute
    label TEXT NOT NULL DEFAULT '',
    split TEXT NOT NULL DEFAULT '',
    source TEXT NOT NULL DEFAULT '',
    width INTEGER, height INTEGER,       -- upright; NULL until the header is read
    problem TEXT,                        -- why the image cannot be shown
    looked_at TEXT,                      -- version of the file when it was measured last
    position INTEGER NOT NULL,           -- in the order of the queue
    overlap INTEGER NOT NULL DEFAULT 0,  -- whether several people mark it
    listed INTEGER NOT NULL DEFAULT 1,   -- whether it is in the manifest now
    asked INTEGER NOT NULL DEFAULT 1,    -- whether its split was chosen to be marked
    places INTEGER NOT NULL DEFAULT 1    -- people who are still needed
);
-- The condition of the queue, word for word: open images are counted in the index alone.
CREATE INDEX images_open ON images (position, places)
    WHERE places > 0 AND problem IS NULL AND listed = 1;
-- The condition of the images that are done, word for word: they are counted in the index alone.
CREATE INDEX images_done ON images (places, listed, asked)
    WHERE listed = 1 AND asked = 1;
CREATE INDEX images_problem ON images (id) WHERE problem IS NOT NULL;

CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    key_hash TEXT,
    lead INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL
);

CREATE TABLE teachers (
    id INTEGER PRIMARY KEY,
    folder TEXT NOT NULL,
    made TEXT NOT NULL,
    images INTEGER NOT NULL,             -- images with marks that it was trained with
    agreement REAL,                      -- with people, on images that are not its own
    event INTEGER NOT NULL DEFAULT 0     -- the latest before its answers were read
);

CREATE TABLE proposals (
    id INTEGER PRIMARY KEY,
    image INTEGER NOT NULL REFERENCES images,
    teacher INTEGER NOT NULL REFERENCES teachers,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    runs BLOB NOT NULL,
    score REAL,
    UNIQUE (image, teacher)
);

CREATE TABLE strokes (
    id INTEGER PRIMARY KEY,
    uuid TEXT NOT NULL UNIQUE,
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    number INTEGER NOT NULL,
    tool TEXT NOT NULL,
    class TEXT NOT NULL,
    erase INTEGER NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, w INTEGER NOT NULL, h INTEGER NOT NULL,
    runs BLOB NOT NULL,
    started TEXT NOT NULL,
    seconds REAL NOT NULL,
    undone INTEGER NOT NULL DEFAULT 0,   -- 1: can be redone; 2: undone for good
    proposal INTEGER REFERENCES proposals,
    saved TEXT NOT NULL,
    version TEXT,                        -- of the file, as in images.looked_at; NULL: not known
    UNIQUE (image, person, number)
);
CREATE INDEX strokes_person ON strokes (person, image);

CREATE TABLE answers (
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    state TEXT NOT NULL CHECK (state IN ('marked', 'nothing', 'cannot_judge', 'skipped')),
    label TEXT,
    certainty INTEGER CHECK (certainty BETWEEN 1 AND 3),
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    proposal INTEGER REFERENCES proposals,
    proposals_mode TEXT NOT NULL,
    event INTEGER NOT NULL,              -- orders answers: a clock may be set back
    version TEXT,
    PRIMARY KEY (image, person)
) WITHOUT ROWID;
CREATE INDEX answers_person ON answers (person, event);

-- Answers that do not fit the marks; the columns are those of `answers`, in the same order.
CREATE TABLE answers_aside (
    image INTEGER NOT NULL REFERENCES images,
    person INTEGER NOT NULL REFERENCES people,
    state TEXT NOT NULL CHECK (state IN ('marked', 'nothing')),
    label TEXT,
    certainty INTEGER CHECK (certainty BETWEEN 1 AND 3),
    at TEXT NOT NULL,
    seconds REAL NOT NULL,
    proposal INTEGER REFERENCES proposals,
    proposals_mode TEXT NOT NULL,
    event INTEGER NOT NULL,
    version TEXT,
    PRIMARY KEY (image, person)
) WITHOUT ROWID;

CREATE TABLE events (
    id INTEGER PRIMARY KEY,
    image INTEGER REFERENCES images,
    person INTEGER REFERENCES people,
    at TEXT NOT NULL,
    kind TEXT NOT NULL,
    detail TEXT
);
CREATE INDEX events_image ON events (image, person, kind);
"""
