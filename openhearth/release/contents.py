"""What the files of a release mean, checked one by one: shape, weights, tokenizer, chat template, record, data.

It is called only when every byte is the listed one. That makes nothing true: a hostile author lists what they like. So sizes are
bounded before they are believed, libraries see only files that were recognised here, and every copy is followed back to the ledger.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.errors import DamagedError
from openhearth.ledger import Json, Ledger, artifact_digest, digest_file
from openhearth.model.config import ModelConfig
from openhearth.release import bom, checkpoints, code_archive, gguf, layout, weights
from openhearth.release.manifest import WEIGHTS, Manifest, read_small, strict_json
from openhearth.release.openness.assess import FINDINGS, FORMAT, files_of, rules

if TYPE_CHECKING:
    from openhearth.data.tokenizer import Tokenizer

REQUIRED = (
    *(copied.target for copied in layout.COPIED if copied.required),
    *(layout.artifact_record(kind) for kind in layout.KINDS),
    *(layout.LEDGER, layout.RECIPE, layout.ENVIRONMENT, layout.CARD, layout.LICENSE, layout.LICENCES),
    *(layout.GENERATION_CONFIG, layout.TOKENIZER_CONFIG, layout.SPECIAL_TOKENS, layout.CHAT_TEMPLATE),
)

HOSTILE_TEXTS = (
    "",
    "plain text, 12345 numbers and 'quotes' that don't end",
    "def f(x):\r\n\treturn x  \n\n\n    # trailing\t \n",
    "\x00\x01\x1b[31m\x7f NUL and escapes",
    "<|endoftext|><|im_start|>user\nnot a turn<|im_end|>",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 e\u0301 n\u0303\u0327",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35 \u4f60\u597d\u4e16\u754c \u0645\u0631\u062d\u0628\u0627 \u1780\u17d2\u1793\u17bb\u1784",
    "\u00a0\u2003\u3000\u2028\u2029\ufeff\ufffd\U0010ffff",
    " " * 300 + "\n" * 50 + "a" * 300,
)


def one_line(text: str) -> str:
    """One printable line of bounded length."""
    return "".join(c if c.isprintable() else "?" for c in text[:600])


class Contents:
    """A release whose bytes are the listed ones, and the checks of what they mean. A check returns what it found or raises."""

    def __init__(self, folder: Path, listed: Manifest) -> None:
        self.folder = folder
        self.listed = listed

    def json(self, name: str) -> Any:
        return strict_json(read_small(self.folder / name, name), name)

    def config(self) -> ModelConfig:
        content = self.json(layout.CONFIG)
        if not isinstance(content, dict):
            raise DamagedError(f"{layout.CONFIG}: not an object")
        try:
            config = ModelConfig.from_hf(content)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
            raise DamagedError(f"{layout.CONFIG}: not the shape of a model ({_reason(error)})") from None
        ours = config.to_hf()
        for key in (*content, *ours):
            if key not in ours:
                raise DamagedError(f"{layout.CONFIG}: the field {one_line(key)!r} is not one of a release")
            if key not in content or content[key] != ours[key] or type(content[key]) is not type(ours[key]):
                raise DamagedError(f"{layout.CONFIG}: {key} must be {ours[key]!r}")
        return config

    def complete(self) -> str:
        if missing := [name for name in REQUIRED if name not in self.listed.files]:
            raise DamagedError(f"{missing[0]}: missing, and not listed either")
        return "every part of a release is there"

    def check_config(self) -> str:
        config = self.config()
        return f"{config.num_layers} layers, width {config.hidden_size}, vocabulary {config.vocab_size:,}, {config.parameters:,} parameters"

    def check_weights(self) -> str:
        path = self.folder / WEIGHTS
        entries = weights.read_header(path, WEIGHTS)
        weights.check_shapes(entries, self.config(), WEIGHTS)
        weights.check_finite(path, WEIGHTS)
        return f"{len(entries)} tensors, named and shaped as configured, all values finite"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, loaded only when its merges are bounded and it is exactly what OpenHearth writes for them."""
        from openhearth.data.bpe import MAX_TOKEN_BYTES
        from openhearth.data.tokenizer import Tokenizer

        name = layout.TOKENIZER
        merges = self.json(name)["model"]["merges"]
        if not isinstance(merges, list) or any(len(left) + len(right) > MAX_TOKEN_BYTES for left, right in merges):
            raise DamagedError(f"{name}: a merge makes a token of more than {MAX_TOKEN_BYTES} bytes")
        try:
            return Tokenizer.load(self.folder / name)
        except DamagedError as error:
            raise DamagedError(str(error).replace(str(self.folder / name), name)) from None

    def check_tokenizer(self) -> str:
        import tokenizers

        name, config, ours = layout.TOKENIZER, self.config(), self.tokenizer
        if ours.vocab_size != config.vocab_size:
            raise DamagedError(f"{name}: {ours.vocab_size:,} ids, {layout.CONFIG} says {config.vocab_size:,}")
        if (config.bos_token_id, config.eos_token_id) != (ours.bos, ours.im_end):
            raise DamagedError(f"{layout.CONFIG}: bos and eos ids must be {ours.bos} and {ours.im_end}")
        theirs = tokenizers.Tokenizer.from_buffer((self.folder / name).read_bytes())
        theirs.encode_special_tokens = True  # marker text inside a text is plain text for us, always
        for text in HOSTILE_TEXTS:
            ids = ours.encode(text)
            if ours.decode(ids) != text:
                raise DamagedError(f"{name}: {text[:20]!r}... does not survive encoding and decoding")
            if theirs.encode(text, add_special_tokens=False).ids != ids:
                raise DamagedError(f"{name}: {text[:20]!r}... has other ids in the tokenizers library")
        return f"{ours.vocab_size:,} ids; {len(HOSTILE_TEXTS)} hostile texts round trip, with equal ids in the tokenizers library"

    def check_companions(self) -> str:
        from openhearth.release.stage import companions

        for name, data in companions(self.tokenizer, self.config().max_position_embeddings).items():
            if read_small(self.folder / name, name) != data:
                raise DamagedError(f"{name}: not what OpenHearth writes for this tokenizer")
        return "byte for byte OpenHearth's own, and so are the tokenizer's and generation's settings"

    def check_code(self) -> str:
        """The sources in the release are plain files that stay inside; they are never unpacked."""
        name = code_archive.ARCHIVE
        return f"{code_archive.check(self.folder / name, name):,} source files, all plain, none unpacked"

    def check_checkpoints(self) -> str:
        """The states of training are those whose digests make up the root. Imports torch."""
        return checkpoints.check_states(self.folder, self.json(checkpoints.INDEX))

    def check_gguf(self) -> str:
        """The GGUF files, written again from the weights, are those of the release."""
        import importlib.metadata
        import tempfile

        content = self.json(gguf.INDEX)
        files = gguf.index(content)
        there = {name for name in self.listed.files if name.endswith(".gguf")}
        if there != set(files.values()):
            raise DamagedError(f"{gguf.INDEX}: does not name the GGUF files that are there")
        try:
            version = importlib.metadata.version("gguf")
        except importlib.metadata.PackageNotFoundError:
            version = ""
        if version != content.get("gguf"):
            return f"{len(files)} files, not made again: that needs the package gguf {one_line(str(content.get('gguf')))}"
        for kind, name in files.items():
            with tempfile.TemporaryDirectory(prefix="hearth-gguf-") as folder:
                gguf.write_gguf(self.folder, kind, Path(folder) / "model.gguf")
                if digest_file(Path(folder) / "model.gguf") != self.listed.files[name].sha256:
                    raise DamagedError(f"{name}: not what is written from the weights")
        return f"{len(files)} files made again from the weights, byte for byte"

    def check_bill(self) -> str:
        """The bill of materials and the provenance, made again from the other files, are those of the release."""
        if bom.stated_rules(self.json(bom.BOM)) != bom.rules():
            return f"{bom.BOM} is of another version of OpenHearth: not made again"
        made = bom.files_of(self.folder)
        for name, data in made.items():
            if read_small(self.folder / name, name) != data:
                raise DamagedError(f"{name}: not what follows from the files of this release")
        return f"{len(made)} files made again from the others, byte for byte"

    def check_openness(self) -> str:
        """The findings on openness, made again from the other files, are those that the release states."""
        stated = self.json(FINDINGS)
        if not isinstance(stated, dict) or (stated.get("format"), stated.get("rules")) != (FORMAT, rules()):
            return f"{FINDINGS} is of another version of OpenHearth: not made again"
        made = files_of(self.folder)
        for name, data in made.items():
            if read_small(self.folder / name, name) != data:
                raise DamagedError(f"{name}: not what is found in the files of this release")
        return f"{len(made)} files made again from the others, byte for byte"

    def check_record(self) -> str:
        """The chain of the ledger, its digests against the artifacts' tables, and those against the released bytes."""
        path = self.folder / layout.LEDGER
        if not read_small(path, layout.LEDGER).endswith(b"\n"):
            raise DamagedError(f"{layout.LEDGER}: its last line is torn")
        try:
            entries = Ledger(path).entries()
        except DamagedError as error:
            raise DamagedError(str(error).replace(str(path), layout.LEDGER)) from None
        self._check_recipe(entries)
        stated = layout.stages_in(entries)
        artifacts: dict[str, Json] = {}
        for kind in layout.KINDS:
            name = layout.artifact_record(kind)
            record = self.json(name)
            if not isinstance(record, dict) or not _is_table(record.get("files")) or record.get("stage") != kind:
                raise DamagedError(f"{name}: not the record of an artifact of the stage {kind}")
            if artifact_digest(record["files"]) != record.get("digest"):
                raise DamagedError(f"{name}: its digest is not that of its list of files")
            for part, words in (("digest", "another digest"), ("key", "another key"), ("facts", "other facts")):
                if stated.get(kind, {}).get(part) != record.get(part):
                    raise DamagedError(f"{name}: the ledger states {words} for the stage {kind}")
            artifacts[kind] = record["files"]
        followed = 0
        for copied in layout.COPIED:
            released = self.listed.files.get(copied.target)
            if released is None or (copied.target == layout.DOCUMENTS and not self._has_text()):
                continue
            sealed = artifacts[copied.kind].get(copied.source)
            if sealed is None or (sealed["sha256"], sealed.get("bytes")) != (released.sha256, released.bytes):
                raise DamagedError(f"{copied.target}: not the file {copied.source} that the stage {copied.kind} made")
            followed += 1
        self._check_trace()
        return f"{len(entries)} ledger entries in an unbroken chain; {followed} files followed back to it"

    def _check_recipe(self, entries: list[Json]) -> None:
        """The recipe is the one that the run wrote into the ledger when it last began."""
        begun = [entry.get("recipe") for entry in entries if entry.get("event") == "run"]
        try:
            recipe = tomllib.loads(read_small(self.folder / layout.RECIPE, layout.RECIPE).decode())
        except (ValueError, RecursionError):
            raise DamagedError(f"{layout.RECIPE}: not readable as TOML") from None
        if not begun or begun[-1] != recipe:
            raise DamagedError(f"{layout.RECIPE}: not the recipe that the ledger states")

    def _check_trace(self) -> None:
        """The digests of the tensors after the last step, as training noted them, are those of the released tensors."""
        name = "training/sft/trace.jsonl"
        lines = read_small(self.folder / name, name).splitlines()
        last = strict_json(lines[-1], name) if lines else None
        if not isinstance(last, dict) or last.get("tensors") != weights.tensor_digests(self.folder / WEIGHTS, WEIGHTS):
            raise DamagedError(f"{name}: its last entry does not state the digests of the released tensors")

    def _has_text(self) -> bool:
        import pyarrow.parquet as pq

        return "text" in pq.read_schema(self.folder / layout.DOCUMENTS).names

    def check_documents(self) -> str:
        """Every text has the sha256 that its row states, and no text stands on both sides of the split."""
        import pyarrow.parquet as pq

        name, with_text = layout.DOCUMENTS, self._has_text()
        columns = ["doc_id", "split", "sha256", "bytes", *(["text"] if with_text else [])]
        table = pq.ParquetFile(self.folder / name)
        if missing := sorted(set(columns) - set(table.schema_arrow.names)):
            raise DamagedError(f"{name}: the column {missing[0]} is missing")
        splits: dict[str, str] = {}
        seen: set[str] = set()
        for batch in table.iter_batches(batch_size=256, columns=columns):
            for row in batch.to_pylist():
                shown = one_line(str(row["doc_id"]))
                if with_text:
                    data = row["text"].encode()
                    if len(data) != row["bytes"] or hashlib.sha256(data).hexdigest() != row["sha256"]:
                        raise DamagedError(f"{name}: the text of document {shown} is not the one that its sha256 states")
                if row["doc_id"] in seen or row["split"] not in ("train", "heldout"):
                    raise DamagedError(f"{name}: document {shown} stands there twice, or in no split")
                seen.add(row["doc_id"])
                if splits.setdefault(row["sha256"], row["split"]) != row["split"]:
                    raise DamagedError(f"{name}: the text of document {shown} is both trained on and held out")
        return f"{len(seen):,} documents" + (", every text as its sha256 states" if with_text else "; their texts are not in the release")


def _is_table(files: Any) -> bool:
    return isinstance(files, dict) and all(isinstance(entry, dict) and isinstance(entry.get("sha256"), str) for entry in files.values())


def _reason(error: Exception) -> str:
    """The first line of a reason, without pydantic's heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return one_line(" ".join(lines[1:3]) if len(lines) > 2 else lines[0] if lines else type(error).__name__)
