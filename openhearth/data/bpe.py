"""Training of a byte-level BPE vocabulary: from texts to an ordered list of merges.

The idea: every token above the 256 bytes is made by exactly one merge, and the vocabulary is *proper*: with the merges before it,
a token's own bytes come out as exactly its two parts. Then no other pair of adjacent symbols ever spells a known token, and the
two ways to run BPE (by the rank of the pair, as `tokenizers` and llama.cpp do; by the rank of the result, as tiktoken does) give
the same ids on every input. Why: in any intermediate state, neighbours are themselves the encoding of the bytes they span, and
that encoding is unique; were the bytes those of a token, it would be the token's two parts or the token, never another pair.
"""

from __future__ import annotations

from collections.abc import Iterable

PATTERN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
"""The split regex of Qwen2 (llama.cpp: pre-tokenizer `qwen2`). A token never crosses a boundary that it draws."""

MAX_TOKEN_BYTES = 64
"""No token is longer: a text that repeats itself must not fill the vocabulary with whole lines of it."""

SAMPLE_BYTES = 16 * 1024 * 1024
"""At most so many bytes of text are read to train a vocabulary: more do not change it noticeably, and training stays at seconds."""

Merge = tuple[bytes, bytes]


def byte_alphabet() -> list[str]:
    """GPT-2's printable character for each byte 0..255 (Radford et al. 2019, `bytes_to_unicode`): how `tokenizer.json` spells bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def spell(token: bytes) -> str:
    """A token's bytes in GPT-2's alphabet."""
    return "".join(ALPHABET[byte] for byte in token)


def unspell(word: str) -> bytes:
    """The bytes of a token spelled in GPT-2's alphabet; raises KeyError for a character outside it."""
    return bytes(BYTE_OF[character] for character in word)


ALPHABET = byte_alphabet()
BYTE_OF = {character: byte for byte, character in enumerate(ALPHABET)}


def split(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Plain BPE by the rank of the result, leftmost first: the reference for the fast encoder, and the test of properness."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 1:
        rank, at = min((ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1))
        if rank == len(ranks):
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def proper(merges: Iterable[Merge]) -> list[Merge]:
    """The merges that keep the vocabulary proper, in order. Those of a correct trainer all do; any other is left out."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    kept: list[Merge] = []
    for left, right in merges:
        token = left + right
        if left in ranks and right in ranks and split(token, ranks) == [left, right]:
            ranks[token] = len(ranks)
            kept.append((left, right))
    return kept


def train(texts: Iterable[str], num_merges: int) -> list[Merge]:
    """Learn at most `num_merges` merges from the first `SAMPLE_BYTES` of `texts`; fewer when no pair occurs twice any more.

    The result depends on the texts alone, not on threads or process (counts are summed, ties are broken by ids).
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(PATTERN), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=256 + num_merges,
        min_frequency=2,
        initial_alphabet=sorted(ALPHABET),
        max_token_length=MAX_TOKEN_BYTES,
        show_progress=False,
        special_tokens=[],
    )
    tokenizer.train_from_iterator(_sample(texts), trainer)
    learnt = _merges_of(tokenizer.to_str())
    return proper(learnt)


def _merges_of(serialised: str) -> list[Merge]:
    import json

    return [(unspell(left), unspell(right)) for left, right in json.loads(serialised)["model"]["merges"]]


def _sample(texts: Iterable[str]) -> Iterable[str]:
    left = SAMPLE_BYTES
    for text in texts:
        if left <= 0:
            return
        data = text.encode()
        yield text if len(data) <= left else data[:left].decode(errors="ignore")
        left -= len(data)
