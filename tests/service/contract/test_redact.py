"""What identifies people goes; what only looks like it stays."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.contract.errors import SettingsError
from service.contract.redact import BUILT_IN, Redactor, Rule, read_rules

redact = Redactor()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("mail jo.do+x@mail.example.org please", "mail [EMAIL] please"),
        ("<jo@example.org>, ann@example.co.uk.", "<[EMAIL]>, [EMAIL]."),
        ("call +49 30 1234567 now", "call [PHONE] now"),
        ("call 0049-30-1234567", "call [PHONE]"),
        ("tel (030) 1234567 or 030/1234567", "tel [PHONE] or [PHONE]"),
        ("ring (555) 010-9999 or 555.010.9999", "ring [PHONE] or [PHONE]"),
        ("card 4111 1111 1111 1111!", "card [CARD]!"),
        ("card 4111-1111-1111-1111 and 4111111111111111", "card [CARD] and [CARD]"),
        ("IBAN GB82 WEST 1234 5698 7654 32 thanks", "IBAN [IBAN] thanks"),
        ("de89370400440532013000", "[IBAN]"),
        ("from 192.168.0.1 and 2001:db8::ff00:42:8329", "from [IP] and [IP]"),
        ("my key sk-abcdefghijklmnop1234567890 leaked", "my key [KEY] leaked"),
        ("AKIAABCDEFGHIJKLMNOP", "[KEY]"),
        ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijkl", "[KEY]"),
    ],
)
def test_is_replaced_by_its_kind(text: str, kept: str) -> None:
    assert redact(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "",
        "an order of 2026-01-31 07:00:00 for 12.99",
        "order 1234567890123456 came",  # 16 digits that fail Luhn
        "version 1.2.3 and 999.1.1.1 and 10:30:00",
        "GB00 WEST 1234 5698 7654 32",  # the remainder is wrong
        "I am 100 % sure, 5/5 @home, c++ :: std",
        "שלום 😀 ça va",
    ],
)
def test_is_left_alone(text: str) -> None:
    assert redact(text) == text


@given(st.text(max_size=300))
def test_any_text_is_taken_and_redacting_twice_changes_nothing_more(text: str) -> None:
    once = redact(text)
    assert redact(once) == once


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "unit", ["a", "1", "1 ", "a@", "a.", "+1", ":", "1.", "eyJ", "-eyJ", "-eyJabcdefgh.", "sk-", "-sk-", "GB82 ", "0"]
)
def test_a_megabyte_of_anything_takes_linear_time(unit: str) -> None:
    text = (unit * (500_000 // len(unit)))[:500_000]
    assert isinstance(redact(text), str)


def test_rules_of_ones_own_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("# orders\nORDER \\bORD-\\d{6}\\b\n\n")
    own = Redactor([*BUILT_IN, *read_rules(tmp_path / "rules")])
    assert own("about ORD-123456 by jo@example.org") == "about [ORDER] by [EMAIL]"


@pytest.mark.parametrize("line", ["ORDER (", "order x", "ORDER", "ORDER a*", "ORDER  "])
def test_a_rule_that_cannot_work_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "rules").write_text(f"OK x\n{line}\n")
    with pytest.raises(SettingsError, match="line 2"):
        read_rules(tmp_path / "rules")


@given(
    st.lists(
        st.sampled_from(["jo@example.org", "٤٤٤ ٤٤٤ ٤٤٤٤", "+49 30 1234567", "::1", "fe80::a", "eyJ", "a", " ", "@"])
    )
)
def test_looking_first_for_what_a_find_needs_changes_nothing(parts: list[str]) -> None:
    text = "".join(parts)
    assert redact(text) == Redactor([Rule(rule.kind, rule.pattern, rule.confirm) for rule in BUILT_IN])(text)
