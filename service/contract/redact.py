"""Removes what identifies people or opens doors from a text before it is kept.

Each find is replaced by its kind in brackets: ``[EMAIL]``, ``[PHONE]``, ``[CARD]``, ``[IBAN]``, ``[IP]``, ``[KEY]``.
Cards are checked by Luhn's digit (ISO/IEC 7812), IBANs by their remainder (ISO 13616), addresses by parsing, so that
order numbers and dates stay. Redaction is a safety net: it knows patterns, not names or stories.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.contract.errors import SettingsError


@dataclass(frozen=True)
class Rule:
    """What to look for and, where the pattern alone says too much, whether a find is really one.

    Every find holds what ``needs`` matches, if that is given: most texts hold none, and are not searched further.
    """

    kind: str
    pattern: re.Pattern[str]
    confirm: Callable[[str], bool] = lambda found: True
    needs: re.Pattern[str] | None = None


def is_card(found: str) -> bool:
    """13 to 19 digits that pass Luhn's check."""
    digits = [int(character) for character in found if character.isdigit()]
    doubled = [digit * 2 - 9 * (digit > 4) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and len(set(digits)) > 1 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def is_iban(found: str) -> bool:
    """15 to 34 characters whose ISO 7064 remainder is 1."""
    plain = re.sub(r"\s", "", found).upper()
    return 15 <= len(plain) <= 34 and int("".join(str(int(one, 36)) for one in plain[4:] + plain[:4])) % 97 == 1


def is_address(found: str) -> bool:
    """Whether it parses as an IPv4 or IPv6 address, and is more than the two colons of a programming language."""
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return False
    return found != "::"


# Every pattern starts at a word border and repeats a bounded number of times, so a text costs linear time.
_KEY_PREFIX = r"(?:sk|pk|rk|ghp|gho|ghs|github_pat|glpat|xox[abprs]|hf|plb|whsec)[_-]"
_DIGIT, _AT, _COLON, _JWT = re.compile(r"\d"), re.compile("@"), re.compile(":"), re.compile("eyJ")
BUILT_IN = (
    Rule("EMAIL", re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), needs=_AT),
    Rule("KEY", re.compile(rf"(?<![\w-])(?:{_KEY_PREFIX}[A-Za-z0-9_-]{{16,255}}|AKIA[0-9A-Z]{{16}})(?!\w)")),
    Rule("KEY", re.compile(r"(?<![\w-])eyJ[\w-]{8,2000}+\.[\w-]{8,4000}+\.[\w-]{8,1000}+"), needs=_JWT),
    Rule("IBAN", re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"), is_iban, _DIGIT),
    Rule("IBAN", re.compile(r"(?<!\w)[a-z]{2}\d{2}[a-z0-9]{11,30}(?!\w)"), is_iban, _DIGIT),
    Rule("CARD", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), is_card, _DIGIT),
    Rule("IP", re.compile(r"(?<![\w.:])\d{1,3}(?:\.\d{1,3}){3}(?![\w:]|\.\d)"), is_address, _DIGIT),
    Rule("IP", re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), is_address, _COLON),
    Rule("PHONE", re.compile(r"(?<!\w)(?:\+|00)[1-9]\d{0,2}(?:[ ./()-]{0,2}\d){6,13}(?!\w)"), needs=_DIGIT),
    Rule("PHONE", re.compile(r"(?<!\w)\(?0\d{1,4}\)?[ /-]\d(?:[ -]?\d){4,8}(?!\w)"), needs=_DIGIT),
    Rule("PHONE", re.compile(r"(?<!\w)\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)"), needs=_DIGIT),
)


# What a find was replaced by.
MARK = re.compile(r"\[[A-Z_]+\]")


class Redactor:
    """Applies rules in order; ``redactor(text)`` is the text without its finds."""

    def __init__(self, rules: Sequence[Rule] = BUILT_IN) -> None:
        self._rules = tuple(rules)
        self._needs = {rule.needs for rule in rules if rule.needs is not None}

    def __call__(self, text: str) -> str:
        missing = {needs for needs in self._needs if needs.search(text) is None}
        for rule in self._rules:
            if rule.needs in missing:
                continue
            text = rule.pattern.sub(lambda found, rule=rule: _replace(rule, found), text)  # type: ignore[misc]
        return text


def _replace(rule: Rule, found: re.Match[str]) -> str:
    return f"[{rule.kind}]" if rule.confirm(found[0]) else found[0]


def read_rules(path: Path) -> list[Rule]:
    """Rules of one's own: a line each, a kind in capitals, a space, and a regular expression; ``#`` begins a comment.

    :raises SettingsError: naming the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} cannot be read: {error}.") from error
    rules = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        kind, _, pattern = line.partition(" ")
        try:
            compiled = re.compile(pattern.strip())
        except re.error as error:
            raise SettingsError(f"{path} line {number}: not a regular expression: {error}.") from error
        if not re.fullmatch("[A-Z_]+", kind) or not pattern.strip() or compiled.match(""):
            raise SettingsError(
                f"{path} line {number}: give a kind in capitals and a pattern that does not match nothing, "
                r"for example `ORDER \bORD-\d{6}\b`."
            )
        rules.append(Rule(kind, compiled))
    return rules
