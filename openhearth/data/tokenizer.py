"""The tokenizer: byte-level BPE in two equal forms, a `tokenizer.json` that other tools read and a fast encoder for our own use.

The idea: both are made from one ordered list of merges (see `bpe.py` for why their ids are equal). Ids: the 256 bytes by value,
then one id per merge, then the special tokens. Text is always plain text: `<|im_end|>` inside a document is encoded letter by
letter, and only code of ours puts the special ids in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from openhearth.data import bpe
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import read_json, write_json

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

    TokenArray = NDArray[numpy.uint32]

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, IM_START, IM_END)

MIN_VOCABULARY = 256 + len(SPECIAL_TOKENS)

LONG_BLANK = 10_000
"""Runs of blanks above this go around the regex engine: it keeps one state per character of `\\s+(?!\\S)` and gives up at a million."""

_BLANK = "[\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"  # Unicode White_Space without CR and LF
_LONG_BLANKS = re.compile(rf"{_BLANK}{{{LONG_BLANK},}}+")


class Tokenizer:
    """Encodes and decodes text. Make one with `train` or `load`."""

    def __init__(self, merges: Sequence[bpe.Merge]) -> None:
        """`merges` must be proper (`bpe.proper`): tokens of both encoders are defined by their order."""
        import tiktoken

        self.merges = list(merges)
        self._tokens = [bytes([byte]) for byte in range(256)] + [left + right for left, right in self.merges]
        ranks = {token: rank for rank, token in enumerate(self._tokens)}
        self._fast = tiktoken.Encoding("openhearth", pat_str=bpe.PATTERN, mergeable_ranks=ranks, special_tokens={})
        self.bos = len(self._tokens)
        self.im_start = self.bos + 1
        self.im_end = self.bos + 2
        self._tokens += [token.encode() for token in SPECIAL_TOKENS]

    @property
    def vocab_size(self) -> int:
        """The number of ids, special tokens included."""
        return len(self._tokens)

    @property
    def eos(self) -> tuple[int, int]:
        """The ids that end an answer: `<|im_end|>` and `<|endoftext|>`."""
        return (self.im_end, self.bos)

    # -- text to ids and back -----------------------------------------------------------------------------------------------

    def encode_to_numpy(self, text: str) -> TokenArray:
        """The ids of `text` as uint32, no special token added or recognised; raises HearthError for an unpaired surrogate."""
        import numpy

        if not text.isascii():
            _require_text(text)
        pieces: list[Any] = []
        start = 0
        # A run of blanks before a visible character is one piece of the regex without its last blank; at the end of the text, whole.
        # Before a line end it belongs to the piece `\s*[\r\n]+`, which the engine matches without keeping states.
        for run in _LONG_BLANKS.finditer(text):
            if text[run.end() : run.end() + 1] in ("\r", "\n"):
                continue
            end = run.end() if run.end() == len(text) else run.end() - 1
            pieces.append(self._encode(text[start : run.start()]))
            pieces.append(numpy.array(self._fast._encode_single_piece(text[run.start() : end]), dtype=numpy.uint32))
            start = end
        pieces.append(self._encode(text[start:] if start else text))
        return pieces[0] if len(pieces) == 1 else numpy.concatenate(pieces)

    def _encode(self, text: str) -> TokenArray:
        ids: TokenArray = self._fast.encode_to_numpy(text, disallowed_special=())
        return ids

    def encode(self, text: str) -> list[int]:
        """The ids of `text`, no special token added or recognised; raises HearthError for an unpaired surrogate."""
        ids: list[int] = self.encode_to_numpy(text).tolist()
        return ids

    def encode_batch(self, texts: Iterable[str], threads: int = 2) -> list[TokenArray]:
        """`encode_to_numpy` of each text, on a few threads; the order is that of `texts`."""
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.encode_to_numpy, texts))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of `ids`; a special token gives its name. Raises ValueError for an id outside the vocabulary."""
        try:
            return b"".join([self._tokens[index] if index >= 0 else _no_token(index) for index in ids])
        except IndexError:
            raise ValueError(f"an id is outside the vocabulary of {self.vocab_size}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    # -- making, saving, loading --------------------------------------------------------------------------------------------

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` ids (fewer when the texts are small); a pure function of the texts."""
        return cls(bpe.train(texts, max(0, vocab_size - MIN_VOCABULARY)))

    def to_json(self) -> dict[str, Any]:
        """The content of `tokenizer.json` for `tokenizers`, `transformers` and llama.cpp."""
        vocabulary = {bpe.spell(token): index for index, token in enumerate(self._tokens[: self.bos])}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [
                {
                    "id": self.bos + offset,
                    "content": token,
                    "single_word": False,
                    "lstrip": False,
                    "rstrip": False,
                    "normalized": False,
                    "special": True,
                }
                for offset, token in enumerate(SPECIAL_TOKENS)
            ],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": bpe.PATTERN}, "behavior": "Isolated", "invert": False},
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
                ],
            },
            "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": None,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": vocabulary,
                "merges": [[bpe.spell(left), bpe.spell(right)] for left, right in self.merges],
            },
        }

    def save(self, folder: Path) -> None:
        """Write `tokenizer.json` and `tokenizer_config.json` into `folder`."""
        write_json(Path(folder) / "tokenizer.json", self.to_json())
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": END_OF_TEXT,
            "eos_token": IM_END,
            "pad_token": END_OF_TEXT,
            "unk_token": None,
            "add_prefix_space": False,
            "clean_up_tokenization_spaces": False,
        }
        write_json(Path(folder) / "tokenizer_config.json", config)

    @classmethod
    def load(cls, path: Path) -> Tokenizer:
        """Read a `tokenizer.json` of ours (or the folder that holds it).

        Raises DamagedError when it is missing or not what `save` writes: anything else in it would change the ids silently.
        """
        file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
        content = read_json(file)
        try:
            merges = [(bpe.unspell(left), bpe.unspell(right)) for left, right in content["model"]["merges"]]
        except (KeyError, TypeError, ValueError):
            raise DamagedError(f"{file}: not a tokenizer that OpenHearth wrote (no list of merges); restore the original file") from None
        if bpe.proper(merges) != merges:
            raise DamagedError(f"{file}: damaged (its merges do not build on one another); restore the original file")
        tokenizer = cls(merges)
        if tokenizer.to_json() != content:
            raise DamagedError(f"{file}: not the file that OpenHearth wrote (its vocabulary or its settings differ from its merges)")
        return tokenizer


def _require_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        at = f"U+{ord(text[error.start]):04X} at character {error.start:,}"
        raise HearthError(f"the text holds an unpaired surrogate ({at}), which is no character; replace or remove it") from None


def _no_token(index: int) -> bytes:
    raise ValueError(f"id {index} is negative")
