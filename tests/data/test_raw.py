"""Sources of every format are read with their places; what is broken costs itself, with the file, the offset and the reason."""

from __future__ import annotations

import gzip
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
import zstandard

from openhearth.data import buckets, readers
from openhearth.data.gitignore import ignored, rules_of
from openhearth.errors import HearthError

from .conftest import Write, jsonl
from .test_build import built, dropped, page

HTML = """<html><head><title>A page</title><link rel="license" href="https://creativecommons.org/licenses/by-sa/4.0/"></head>
<body><nav><a href="/">Home</a> <a href="/shop">Shop</a></nav>
<article><h1>On harbours</h1>{}</article><footer>All rights</footer></body></html>"""


def html(number: int) -> bytes:
    return HTML.format("".join(f"<p>{part}</p>" for part in page(number, 60).split("\n\n"))).encode()


def record(url: str, body: bytes, status: str = "200 OK", kind: str = "text/html", extra: bytes = b"") -> bytes:
    answer = f"HTTP/1.1 {status}\r\nContent-Type: {kind}; charset=utf-8\r\n".encode() + extra + b"\r\n" + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: {url}\r\nWARC-Date: 2026-01-02T03:04:05Z\r\n"
    head += f"Content-Length: {len(answer)}\r\n\r\n"
    return head.encode() + answer + b"\r\n\r\n"


INFO = b"WARC/1.0\r\nWARC-Type: warcinfo\r\nContent-Length: 4\r\n\r\nabcd\r\n\r\n"


def kept(out: Path) -> dict[str, dict[str, Any]]:
    return {row["uri"]: row for row in buckets.documents(out)}


def test_tables_are_read_with_the_field_that_was_named(tmp_path: Path, write: Write) -> None:
    write("a.csv", 'id,body\n1,"' + page(1).replace('"', "'") + '"\n2\n3,caf\n'.replace("caf", "caf"))
    write("b.tsv", b"body\tid\n" + page(2).replace("\n\n", " ").encode() + b"\t1\nca\xe9\t2\n")
    pyarrow.parquet.write_table(pyarrow.table({"body": [page(3), None]}), tmp_path / "text/c.parquet")
    write("d.jsonl.zst", zstandard.compress(jsonl({"body": page(4), "license": "CC BY 4.0"}, {"text": "x"})))
    built(tmp_path / "text", tmp_path / "out", text_field="body")
    rows = kept(tmp_path / "out")
    assert set(rows) == {"a.csv:2", "b.tsv:2", "c.parquet:1", "d.jsonl.zst:1"}
    data = (tmp_path / "text/a.csv").read_bytes()
    assert data[rows["a.csv:2"]["offset"] :].startswith(b'1,"') and rows["a.csv:2"]["text"] == page(1)
    assert (rows["d.jsonl.zst:1"]["licence"], rows["d.jsonl.zst:1"]["evidence"]) == ("CC-BY-4.0", "field: CC BY 4.0")
    assert {uri: rule for uri, (_, rule) in dropped(tmp_path / "out").items()} == {
        "a.csv:3": "bad_csv", "a.csv:4": "min_words", "b.tsv:3": "not_utf8", "c.parquet:2": "not_text", "d.jsonl.zst:2": "no_text_field",
    }  # fmt: skip


def test_a_page_gives_its_article_and_the_licence_that_it_links_to(tmp_path: Path, write: Write) -> None:
    pytest.importorskip("trafilatura")
    write("a.html", html(1))
    write("empty.html", b"<html><body></body></html>")
    built(tmp_path / "text", tmp_path / "out")
    row = kept(tmp_path / "out")["a.html"]
    assert page(1, 60).split("\n\n")[0] in str(row["text"]) and "Shop" not in str(row["text"])
    assert (row["licence"], row["licence_rule"], row["profile"]) == ("CC-BY-SA-4.0", "link", "web")
    assert dropped(tmp_path / "out") == {"empty.html": ("read", "no_article")}


def test_an_archive_gives_its_pages_with_their_addresses_and_dates(tmp_path: Path, write: Write) -> None:
    pytest.importorskip("trafilatura")
    packed = gzip.compress(html(2))
    parts = [
        INFO,
        record("http://a.example/1", html(1)),
        record("http://a.example/2", packed, extra=b"Content-Encoding: gzip\r\n"),
        record("http://a.example/3", b"gone", "404 Not Found"),
        record("http://a.example/4", b"\x89PNG", kind="image/png"),
    ]
    write("crawl.warc.gz", b"".join(map(gzip.compress, parts)))  # a member for each record, as crawlers write them
    write("cut.warc", record("http://a.example/5", html(5)) + record("http://a.example/6", html(6))[:-100])
    built(tmp_path / "text", tmp_path / "out")
    rows = kept(tmp_path / "out")
    assert set(rows) == {"crawl.warc.gz:2:http://a.example/1", "crawl.warc.gz:3:http://a.example/2", "cut.warc:1:http://a.example/5"}
    assert rows["cut.warc:1:http://a.example/5"]["date"] == "2026-01-02T03:04:05Z"
    assert {uri: rule for uri, (_, rule) in dropped(tmp_path / "out").items()} == {
        "crawl.warc.gz:4:http://a.example/3": "status", "crawl.warc.gz:5:http://a.example/4": "unsupported_suffix", "cut.warc": "truncated",
    }  # fmt: skip


def test_what_stands_before_a_damaged_end_is_kept(tmp_path: Path, write: Write) -> None:
    rows = jsonl(*({"text": page(number)} for number in range(150)))
    write("cut.jsonl.gz", gzip.compress(rows)[:-400])
    write("cut.jsonl.zst", zstandard.compress(rows.upper().replace(b'"TEXT"', b'"text"').replace(b"\\N", b"\\n"))[:-400])
    built(tmp_path / "text", tmp_path / "out", sets=("profile.web.min_stop_words=0", "duplicates.near=false"))
    gone = dropped(tmp_path / "out")
    assert gone["cut.jsonl.gz"] == ("read", "truncated") and gone["cut.jsonl.zst"] == ("read", "truncated")
    assert sum(uri.startswith("cut.jsonl.gz:") for uri in kept(tmp_path / "out")) > 20


def test_hostile_rows_cost_themselves(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "MAX_ROW", 50_000)
    marked = page(1) + " <|endoftext|><|im_start|>system"
    lines = {
        1: (b'{"text": "a", "text": "b"}', "bad_json"),
        2: (b"[" * 5_000, "bad_json"),
        3: (jsonl({"text": "\ud800"})[:-1], "surrogate"),
        4: (jsonl({"text": "a\0b"})[:-1], "binary"), 
        5: (b'{"text": "' + b"x" * 60_000 + b'"}', "long_line"), 6: (b'{"text": "\xff"}', "not_utf8"),
        7: (jsonl({"text": " \n"})[:-1], "empty"), 8: (jsonl({"text": marked.replace("\n", "\r\n")})[:-1], ""),
    }  # fmt: skip
    write("a.jsonl", b"\n".join(line for line, _ in lines.values()) + b"\n")
    built(tmp_path / "text", tmp_path / "out")
    assert {uri: rule for uri, (_, rule) in dropped(tmp_path / "out").items()} == {
        f"a.jsonl:{n}": rule for n, (_, rule) in lines.items() if rule
    }
    assert kept(tmp_path / "out")["a.jsonl:8"]["text"] == marked  # line ends made one; marker text is text like any other
    places = [json.loads(line) for line in (tmp_path / "out/quarantine.jsonl").read_text().splitlines()]
    data = (tmp_path / "text/a.jsonl").read_bytes()
    assert all(data[one["offset"] - 1 : one["offset"]] in (b"", b"\n") for one in places) and len(places) == 7


def test_a_file_without_the_field_is_refused_with_the_fields_that_it_has(tmp_path: Path, write: Write) -> None:
    path = write("rows.jsonl", jsonl({"body": "a"}, {"body": "b"}))
    with pytest.raises(HearthError, match=r"no field named 'text' \(fields found: 'body'\); name the right one with --text-field"):
        built(path, tmp_path / "out")
    with pytest.raises(HearthError, match="no field named 'text'"):
        built(write("rows.csv", "a,b\n1,2\n"), tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process alone is read from Linux's /proc")
def test_bombs_and_endless_lines_are_refused_in_bounded_memory(tmp_path: Path, write: Write) -> None:
    write("good.jsonl", jsonl({"text": page(1)}))
    with gzip.open(tmp_path / "text/bomb.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(150):
            file.write(b" " * (1 << 20))  # one line of 150 MB
    program = """
import sys
from pathlib import Path
from openhearth.data import build, readers
from openhearth.data.settings import of_paths
readers.MAX_FILE, readers.MAX_ROW = 100 << 20, 10 << 20
report = build.build(of_paths([sys.argv[1]], {}), Path(sys.argv[2]), workers=1).report
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(report["dropped"], peak.split()[1])
"""
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "text"), str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    told, _, peak = ran.stdout.strip().rpartition(" ")
    assert told == "{'read.huge': 1}" and int(peak) < 350_000  # kB, of which 200,000 are the libraries and tables


def test_a_full_disk_ends_in_one_line_and_the_build_goes_on_later(tmp_path: Path, write: Write) -> None:
    write("a.jsonl", jsonl(*({"text": page(number, 300)} for number in range(60))))
    program = (
        "import resource, signal, sys\nfrom openhearth.cli import main\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))\nmain(sys.argv[1:])\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        "data",
        "build",
        str(tmp_path / "text"),
        "--out",
        str(tmp_path / "out"),
        "--workers",
        "1",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2 and "no space left on the disk" in ran.stderr and "Traceback" not in ran.stderr
    assert not (tmp_path / "out/corpus.json").exists()
    assert built(tmp_path / "text", tmp_path / "out").report["kept"] == 60
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


# -- source trees -----------------------------------------------------------------------------------------------------------

PATTERNS = (
    "*.log\n!keep.log\n/top\nbuild/\ndocs/*.txt\n**/deep/x\na/**/z\nfoo/**\n\\#odd\n# remark\nq?.md\n[ab].py\n"
    "[!c]z.rs\nspace\\ \ntrail   \n"
)
NAMES = [
    "x.log", "keep.log", "d/x.log", "top", "d/top", "build/a", "d/build/b", "docs/a.txt", "docs/d/a.txt", "e/deep/x", "deep/x", "a/z",
    "a/b/c/z", "foo/q", "foo/d/q", "#odd", "qx.md", "qxx.md", "a.py", "c.py", "bz.rs", "cz.rs", "trail", "d/trail.txt",
]  # fmt: skip


def test_ignore_files_mean_what_they_mean_to_git(tmp_path: Path) -> None:
    for name in NAMES:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / ".gitignore").write_text(PATTERNS)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    listed = subprocess.run(["git", "ls-files", "-o", "--exclude-standard", "-z"], cwd=tmp_path, capture_output=True, text=True, check=True)
    theirs = set(listed.stdout.split("\0")) - {"", ".gitignore"}
    rules = rules_of(PATTERNS)

    def visible(name: str) -> bool:
        parts = name.split("/")
        return not any(ignored("/".join(parts[:end]), end < len(parts), rules) for end in range(1, len(parts) + 1))

    assert {name for name in NAMES if visible(name)} == theirs
