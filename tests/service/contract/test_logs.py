"""Lines on stderr: one for each message, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from service.terminal.logs import log_to_stderr


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_lines_hold_what_is_known(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json", lambda: {"request_id": "abc"})
    logger = logging.getLogger("service.somewhere")
    logger.info("%d texts", 3, extra={"fields": {"status": 200}})
    try:
        raise ValueError("broken\nin two")
    except ValueError:
        logger.exception("line\nbreak é")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert first.pop("ts").endswith("Z")
    assert first == {
        "level": "info",
        "logger": "service.somewhere",
        "message": "3 texts",
        "request_id": "abc",
        "status": 200,
    }
    assert second["message"] == "line\nbreak é"
    assert "ValueError: broken\nin two" in second["traceback"]


def test_a_message_that_is_not_valid_unicode_is_written_all_the_same() -> None:
    log_to_stderr("json")
    line = logging.getLogger().handlers[-1].format(logging.makeLogRecord({"msg": "lone \ud800"}))
    assert json.loads(line.encode("ascii"))["message"] == "lone \ud800"


def test_text_lines_hold_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("text", lambda: {"request_id": "abc"})
    logging.getLogger("service.somewhere").warning("slow")
    assert capsys.readouterr().err.endswith("WARNING service.somewhere: slow request_id=abc\n")


def test_of_libraries_only_warnings_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    log_to_stderr("json")
    logging.getLogger("some.library").info("chatter")
    logging.getLogger("some.library").warning("trouble")
    logging.getLogger("service.http.app").debug("detail")
    assert [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()] == ["trouble"]
