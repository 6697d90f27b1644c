"""The monitor's memory: one SQLite file (WAL) for windows, cursors, alerts, events, deliveries and versions.

Everything that must happen together (a window closes, its rows are used up, the alert state moves, messages go out)
is one :meth:`StateStore.transaction`. Each thread opens its own :class:`StateStore`; ``lock_state`` keeps a second
monitor out.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monitoring.errors import StateError
from service.contract.files import held
from service.contract.user import this_user

DATABASE = "monitor.sqlite"
REPORTS = "reports"

# Each entry brings a database from the version of its index to the next one; entries are never changed.
MIGRATIONS = (
    """
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE segments (
        model TEXT NOT NULL, segment TEXT NOT NULL, status TEXT NOT NULL, PRIMARY KEY (model, segment)
    ) WITHOUT ROWID;
    CREATE TABLE cursors (
        model TEXT NOT NULL, digest TEXT NOT NULL, segment TEXT NOT NULL, version TEXT NOT NULL,
        rows INTEGER NOT NULL, used INTEGER NOT NULL DEFAULT 0, oldest REAL NOT NULL,
        PRIMARY KEY (model, digest, segment)
    ) WITHOUT ROWID;
    CREATE INDEX pending_rows ON cursors (model, digest) WHERE used < rows;
    CREATE TABLE windows (
        id TEXT PRIMARY KEY, model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, rows INTEGER NOT NULL,
        first TEXT NOT NULL, last TEXT NOT NULL, started REAL NOT NULL, ended REAL NOT NULL, closed REAL NOT NULL,
        outcome TEXT NOT NULL, severity TEXT, decision TEXT, report TEXT
    );
    CREATE INDEX windows_of_model ON windows (model, closed);
    CREATE TABLE alerts (
        model TEXT PRIMARY KEY, state TEXT NOT NULL, digest TEXT, drifted INTEGER NOT NULL, clean INTEGER NOT NULL,
        since REAL NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE events (
        id TEXT PRIMARY KEY, type TEXT NOT NULL, model TEXT NOT NULL, created REAL NOT NULL, body BLOB NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        id INTEGER PRIMARY KEY, event TEXT NOT NULL REFERENCES events (id), kind TEXT NOT NULL, target TEXT NOT NULL,
        status TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL, error TEXT, finished REAL,
        UNIQUE (event, kind, target)
    );
    CREATE INDEX outbox_due ON outbox (status, due);
    CREATE TABLE disabled (target TEXT PRIMARY KEY, since REAL NOT NULL) WITHOUT ROWID;
    CREATE TABLE versions (
        model TEXT NOT NULL, version TEXT NOT NULL, digest TEXT NOT NULL, seen REAL NOT NULL,
        PRIMARY KEY (model, version)
    ) WITHOUT ROWID;
    CREATE TABLE live (model TEXT PRIMARY KEY, version TEXT NOT NULL) WITHOUT ROWID;
    CREATE TABLE evidence (
        model TEXT NOT NULL, digest TEXT NOT NULL, arrays BLOB NOT NULL, PRIMARY KEY (model, digest)
    );
    """,
    """
    ALTER TABLE alerts ADD COLUMN told TEXT NOT NULL DEFAULT 'none';
    UPDATE alerts SET told = 'warning' WHERE state = 'drift';
    UPDATE windows SET severity = 'warning' WHERE severity = 'alert';
    """,
)


class StateStore:
    """One connection to the state; ``with store.transaction():`` makes its writes all or nothing."""

    def __init__(self, folder: Path) -> None:
        """Open or create the state in ``folder``. :raises StateError: if it cannot be used."""
        self.path = folder / DATABASE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=30, isolation_level=None, check_same_thread=False)
            self.path.chmod(0o600)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StateError(
                f"the monitor's state {self.path} cannot be opened: {error}. Give another folder with --state, or "
                "move this one away to start afresh."
            ) from error

    def _migrate(self) -> None:
        with self.transaction():
            found = int(self._connection.execute("PRAGMA user_version").fetchone()[0])
            if found > len(MIGRATIONS):
                raise StateError(
                    f"{self.path} was written by a newer Plumbline (schema {found}, this one knows "
                    f"{len(MIGRATIONS)}). Upgrade, or give another folder with --state."
                )
            for script in MIGRATIONS[found:]:
                for statement in script.split(";"):
                    if statement.strip():
                        self._connection.execute(statement)
            self._connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all or nothing; other writers wait. Not to be nested."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement; returns the number of rows it changed."""
        return self._connection.execute(sql, values).rowcount

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[sqlite3.Row]:
        """All rows of a query."""
        return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Any] = ()) -> sqlite3.Row | None:
        """The first row of a query, or None."""
        found: sqlite3.Row | None = self._connection.execute(sql, values).fetchone()
        return found

    def close(self) -> None:
        """Close the connection; what was committed is kept."""
        self._connection.close()


@contextmanager
def lock_state(folder: Path) -> Iterator[None]:
    """Hold the state for one monitor. :raises StateError: if another process has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lock").touch()
    except OSError as error:
        raise StateError(
            f"the monitor's state folder {folder} cannot be written: {error.strerror}. Let {this_user()} write "
            "it, mount its volume writable, or give another folder with --state."
        ) from error
    with held(folder / "lock") as alone:
        if not alone:
            raise StateError(
                f"another monitor is using {folder}. Stop it, or give this one its own folder with --state."
            )
        yield
