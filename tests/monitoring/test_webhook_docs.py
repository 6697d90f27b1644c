"""docs/webhooks.md: its event is one, and its programs tell right signatures from wrong ones."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from monitoring.delivery.webhook import signed_headers
from monitoring.settings import decode_secret, new_secret
from service.contract.events import DriftData, Event

PAGE = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text()
EXAMPLES = dict(re.findall(r"^### (\w+)\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
RUN: dict[str, tuple[str, Sequence[str]]] = {
    "Python": ("verify.py", ("python3",)),
    "JavaScript": ("verify.cjs", ("node",)),
    "Java": ("Verify.java", ("java",)),
    "Go": ("verify.go", ("go", "run")),
    "Shell": ("verify.sh", ("bash",)),
}
BODY = '{"text": "grüße\\n", "n": 1}\n\n'.encode() + b"\0"  # not a byte of which may change on the way


def test_the_event_of_the_page_is_an_event() -> None:
    (text,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    event = Event[DriftData].model_validate_json(text)
    assert event.type in PAGE
    for field in DriftData.model_fields:
        assert f'"{field}"' in text


def test_every_type_of_event_is_on_the_page() -> None:
    for kind in Event.model_fields["type"].annotation.__args__:
        assert f"| `{kind}` |" in PAGE


def test_five_languages_are_shown() -> None:
    assert EXAMPLES.keys() == RUN.keys()


@pytest.mark.slow
@pytest.mark.parametrize("language", RUN)
def test_the_program_accepts_what_is_right_and_nothing_else(language: str, tmp_path: Path) -> None:
    name, command = RUN[language]
    if shutil.which(command[0]) is None or (command[0] == "bash" and shutil.which("openssl") is None):
        pytest.skip(f"{command[0]} is not installed")
    program = tmp_path / name
    program.write_text(EXAMPLES[language])
    mine, other = new_secret(), new_secret()
    now = int(time.time())

    def verify(body: bytes = BODY, *, by: Sequence[str] = (mine,), at: int | str = now, name: str = "evt_1") -> bool:
        headers = signed_headers([decode_secret(one) for one in by], "evt_1", now if isinstance(at, str) else at, BODY)
        done = subprocess.run(
            [*command, str(program), name, str(at), headers["webhook-signature"]],
            input=body,
            capture_output=True,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PLUMBLINE_WEBHOOK_SECRET": mine},
            timeout=120,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        return done.returncode == 0

    assert verify()
    assert verify(by=[other, mine])
    assert not verify(by=[other])
    assert not verify(BODY[:-1])
    assert not verify(name="evt_2")
    assert not verify(at=now - 400)
    assert not verify(at=now + 400)
    assert not verify(at="soon")
