"""Normalisation, language, personal data and lists of words, each on known texts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openhearth.data.normalise import normalised, rewrapped
from openhearth.data.personal import luhn, replaced

from .conftest import Write, jsonl
from .test_build import built, dropped, page

FOUND = {
    "mail anna.b+c@mail.example.co.uk now": ("mail <email> now", "email"),
    "call +44 20 7946 0958.": ("call <phone>.", "phone"),
    "call (555) 123-4567 or": ("call <phone> or", "phone"),
    "card 4111 1111 1111 1111, thanks": ("card <card>, thanks", "card"),
    "amex 378282246310005": ("amex <card>", "card"),
    "from 8.8.8.8 and": ("from <ip> and", "ip"),
    "host 2606:4700:4700::1111 up": ("host <ip> up", "ip"),
    "SSN 123-45-6789": ("SSN <national_id>", "national_id"),
    "IBAN GB82 WEST 1234 5698 7654 32": ("IBAN <national_id>", "national_id"),
    "DNI 12345678Z": ("DNI <national_id>", "national_id"),
    "CPF 529.982.247-25": ("CPF <national_id>", "national_id"),
    "NINO AB 12 34 56 C": ("NINO <national_id>", "national_id"),
    "key AKIAIOSFODNN7EXAMPLE": ("key <key>", "key"),
    "token ghp_" + "a1B2" * 9: ("token <key>", "key"),
    "-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----": ("<key>", "key"),
}
NOT_FOUND = (
    "on 2024-01-02 at 12:30:45", "in 1812-1815", "pi is 3.14159265358979", "version 10.2.13.4.5",
    "card 4111 1111 1111 1112", "192.168.0.1 and 127.0.0.1",
    "ISBN 978-3-16-148410-0", "000-45-6789", "DNI 12345678A", "GB82 WEST 1234 5698 7654 33",
    "a::b in C++, 10:30", "1,234,567,890", "x@y", "@home", "529.982.247-24",
)  # fmt: skip


@pytest.mark.parametrize("text", FOUND)
def test_personal_data_becomes_a_placeholder_of_its_kind(text: str) -> None:
    assert replaced(text) == (FOUND[text][0], {FOUND[text][1]: 1})


@pytest.mark.parametrize("text", NOT_FOUND)
def test_numbers_that_only_look_like_it_stay(text: str) -> None:
    assert replaced(text) == (text, {})


@settings(deadline=None)
@given(text=st.text(max_size=200))
def test_what_was_replaced_is_not_found_again(text: str) -> None:
    once, _ = replaced(text)
    assert replaced(once) == (once, {})


def test_luhn_finds_every_single_wrong_digit() -> None:
    good = "4111111111111111"
    assert luhn(good)
    assert not any(luhn(good[:at] + digit + good[at + 1 :]) for at in range(16) for digit in "0123456789" if digit != good[at])


@settings(deadline=None)
@given(text=st.text(alphabet="ab \t\n\r\f\x07é\u0301\u200b-", max_size=120))
def test_a_normal_form_is_one(text: str) -> None:
    for form in ("code", "prose", "wrapped"):
        once = normalised(text, form)
        assert normalised(once, form) == once
        assert "\r" not in once


def wrap(text: str, width: int) -> str:
    import textwrap

    return "\n\n".join(textwrap.fill(part, width) for part in text.split("\n\n"))


def test_hard_wrapped_paragraphs_are_joined_and_verse_lists_and_code_are_not() -> None:
    prose = page(1, 60)
    assert rewrapped(wrap(prose, 72)) == prose
    verse = "\n".join(f"The {word} upon the rolling sea" for word in ["wind", "ship", "gull", "moon", "star", "wave", "sail", "rope"] * 3)
    assert rewrapped(verse) == verse
    items = "\n".join(f"- {line}" for line in wrap(prose, 70).replace("\n\n", "\n").split("\n"))
    assert rewrapped(items) == items
    assert normalised("a  \r\n\tb\x07\n", "code") == "a  \n\tb\x07\n"


def test_documents_in_other_languages_go_where_languages_are_named(tmp_path: Path, write: Write) -> None:
    pytest.importorskip("py3langid")
    german = "Es war einmal ein alter Mann, der wohnte mit seiner Frau am Rande des großen Waldes und hatte nichts als eine Ziege. " * 8
    write("a.jsonl", jsonl({"text": page(1)}, {"text": german}))
    sets = ('profile.web.languages=["en"]', "profile.web.max_repeated_10_grams=1", "profile.web.min_stop_words=0")
    built(tmp_path / "text", tmp_path / "out", sets=sets)
    assert dropped(tmp_path / "out") == {"a.jsonl:2": ("language", "languages")}


def test_a_list_of_words_is_used_only_when_it_is_named(tmp_path: Path, write: Write) -> None:
    words = tmp_path / "words.txt"
    words.write_text("# a list\nBadword\n")
    write("a.jsonl", jsonl({"text": page(1) + " badword" * 9}, {"text": page(2) + " Badword, once."}))
    assert built(tmp_path / "text", tmp_path / "plain").report["kept"] == 2
    built(tmp_path / "text", tmp_path / "out", sets=(f"toxic_words={words}",))
    assert dropped(tmp_path / "out") == {"a.jsonl:1": ("toxicity", "max_toxic")}
