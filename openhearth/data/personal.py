"""Personal data and secrets in texts, found by shape and checked where a check exists, replaced by typed placeholders.

What is found: e-mail addresses, telephone numbers, IP addresses (not private or documentation ones), payment cards (Luhn's check, the
issuers' prefixes), national numbers (US SSN; UK NINO; the check digits of IBAN, of Spain's DNI/NIE, of France's NIR, of Brazil's
CPF), and keys and tokens (AWS, GitHub, Slack, Google, Stripe, OpenAI-like, JSON web tokens, private keys). Names and addresses of
people are not found: that needs a model, and misses too.

The idea: a text is searched with a few cheap expressions that cannot fail without one of `@`, a run of digits or a key's prefix, and
only what they find is looked at closely. A placeholder is one word, `<email>`, so that a text reads on.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

import pyarrow

from openhearth.data.batches import Judged, drop_rows, noted, texts_of, with_column

KINDS = ("key", "email", "card", "national_id", "ip", "phone")

_EMAIL = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}\b")
_KEY = re.compile(
    r"-----BEGIN (?:[A-Z]+ ){0,3}PRIVATE KEY-----[\s\S]{0,10000}?-----END (?:[A-Z]+ ){0,3}PRIVATE KEY-----"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36,255}\b|\bgithub_pat_[A-Za-z0-9_]{22,255}\b"
    r"|\bxox[abeprs]-[A-Za-z0-9-]{10,250}|\bAIza[0-9A-Za-z_-]{35}(?![0-9A-Za-z_-])|\b[sr]k_live_[0-9a-zA-Z]{20,99}\b"
    r"|\bsk-(?:ant-|proj-)?[A-Za-z0-9_-]{32,200}(?![A-Za-z0-9_-])|\bhf_[A-Za-z]{34}\b|\bglpat-[A-Za-z0-9_-]{20}(?![A-Za-z0-9_-])"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,1000}"
)
_KEY_MARKS = ("PRIVATE KEY", "AKIA", "ASIA", *(f"gh{kind}_" for kind in "pousr"), "github_pat_", "xox", "AIza", "k_live_", "sk-", "hf_")
_KEY_MARKS += ("glpat-", "eyJ")
_NUMBER = re.compile(r"(?<![\w.])\+?\(?\d(?:[\d ().:/-]{5,24}|\d{6,24})\d(?![\w])")
_ID = re.compile(
    r"\b(?P<ssn>\d{3}-\d{2}-\d{4})\b|\b(?P<nino>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])\b"
    r"|\b(?P<iban>[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b|\b(?P<dni>[XYZ]?\d{7,8}-?[A-HJ-NP-TV-Z])\b"
    r"|\b(?P<cpf>\d{3}\.\d{3}\.\d{3}-\d{2})\b|\b(?P<nir>[12] ?\d{2} ?(?:0[1-9]|1[0-2]) ?\d{2} ?\d{3} ?\d{3} ?\d{2})\b"
)
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){2,7}(?:[0-9A-Fa-f]{1,4}|:)(?::?[0-9A-Fa-f]{1,4}){0,6}(?![\w:])")
_LONG = re.compile(r"[0-9][0-9 ().:/-]{5,24}[0-9]")  # without one of these there is nothing with digits to look at closely
_CARDS = re.compile(
    r"(?:4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|2720\d{12}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d)\d{12}|35\d{14})"
)
_PHONE = re.compile(r"\+\d[\d ().-]{7,19}|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|0\d{2,4}[ -]\d{3,4}[ -]?\d{3,5}")


def luhn(digits: str) -> bool:
    """Luhn's check (ISO/IEC 7812-1): doubled from the right, every second digit, the sum ends in 0."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_national_id(found: re.Match[str]) -> bool:
    """Whether a match of the shapes of national numbers passes the check that its country gives it."""
    text = found[0].replace(" ", "").replace("-", "")
    match found.lastgroup:
        case "ssn":
            area, group, serial = found[0].split("-")
            return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"
        case "nino":
            return text[:2] not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")
        case "iban":
            return 15 <= len(text) <= 34 and int("".join(str(int(mark, 36)) for mark in text[4:] + text[:4])) % 97 == 1
        case "dni":
            number = text[:-1].replace("X", "0").replace("Y", "1").replace("Z", "2")
            return len(text) == 9 and "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1]
        case "cpf":
            digits = [int(mark) for mark in text.replace(".", "")]
            checks = [sum(digit * (length + 1 - place) for place, digit in enumerate(digits[:length])) * 10 % 11 % 10 for length in (9, 10)]
            return checks == digits[9:] and len(set(digits)) > 1
        case _:
            return 97 - int(text[:13]) % 97 == int(text[13:])


def _is_public(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _number(found: re.Match[str]) -> str | None:
    """The kind of a run of digits: a card or a telephone number."""
    digits = re.sub(r"\D", "", found[0])
    if _CARDS.fullmatch(digits) and luhn(digits) and "/" not in found[0] and ":" not in found[0]:
        return "card"
    if 9 <= len(digits) <= 15 and _PHONE.fullmatch(found[0].strip()):
        return "phone"
    return None


def replaced(text: str) -> tuple[str, dict[str, int]]:
    """The text with placeholders, and how many of each kind: `call +44 20 7946 0958` becomes `call <phone>`, {"phone": 1}."""
    counts: Counter[str] = Counter()

    def put(pattern: re.Pattern[str], kind_of: Callable[[re.Match[str]], str | None]) -> None:
        nonlocal text

        def placeholder(found: re.Match[str]) -> str:
            kind = kind_of(found)
            if kind is None:
                return found[0]
            counts[kind] += 1
            return f"<{kind}>"

        text = pattern.sub(placeholder, text)

    if any(mark in text for mark in _KEY_MARKS):
        put(_KEY, lambda found: "key")
    if "@" in text:
        put(_EMAIL, lambda found: "email")
    if _LONG.search(text):
        put(_ID, lambda found: "national_id" if is_national_id(found) else None)
        put(_IPV4, lambda found: "ip" if _is_public(found[0]) else None)
        put(_NUMBER, _number)
    if "::" in text or text.count(":") > 6:
        put(_IPV6, lambda found: "ip" if _is_public(found[0]) else None)
    return text, dict(sorted(counts.items()))


def replace_personal(batch: pyarrow.RecordBatch) -> Judged:
    """The stage: nothing is left out; texts get placeholders, and `edits` says how many."""
    results = [replaced(text) for text in texts_of(batch)]
    if any(counts for _, counts in results):
        batch = with_column(batch, "edits", noted(batch.column("edits").to_pylist(), [counts for _, counts in results]))
        batch = with_column(batch, "text", [text for text, _ in results])
    return Judged(batch, drop_rows([]))
