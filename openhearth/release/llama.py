"""The real llama.cpp as a client (package xllamacpp): does it read a GGUF file as we read the weights?

Asked with token ids, greedily, with an fp32 cache and no flash attention, so that what differs is the model and not the arithmetic's
shortcuts. An F32 file must give the same tokens with log-probabilities within 1e-4; a quantised one only reports how far off it is.
"""

from __future__ import annotations

import importlib.metadata
import json
import math
import random
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openhearth.data.tokenizer import Tokenizer
from openhearth.errors import DamagedError, HearthError
from openhearth.ledger import Json
from openhearth.release import layout
from openhearth.release.gguf import file_of

PROMPTS, NEW_TOKENS, TEXTS = 32, 16, 200
MOST_DIFFERENCE = 1e-4
"""Of a log-probability, in an F32 file."""

PIECES = (
    *("def f(x):\n    return x", "\r\n", "\t", "  ", "\u00a0", "\u3000", "\u2028", "\ufeff", "\x00", "\x1b[31m", "'ll", "'S", "12345", "٣"),
    *(
        "e\u0301",
        "é",
        "ß",
        "İ",
        "ǅ",
        "你好",
        "สวัสดี",
        "مرحبا",
        "ភ្នំ",
        "한국어",
        "🏳️‍🌈",
        "👨‍👩‍👧",
        "\U0010ffff",
        "\ufffd",
        "<|im_end|>",
        "<|endoftext|>",
    ),
    *("http://a.b/c?d=1", "____", "!!!???", "a" * 40, " \n \n", "x=1;y=2", "\u200b", "ﬁ", "½", "∑", "\\n", "``", "$", "#!"),
)


@dataclass(frozen=True)
class Parity:
    """What llama.cpp made of one file, beside the released weights."""

    format: str
    prompts: int
    equal_continuations: int
    """Prompts whose greedy continuation is the same to the last token."""
    largest_difference: float
    """Of a log-probability, over the tokens up to where continuations part."""
    divergence: float
    """Mean Kullback-Leibler divergence of the next token after a prompt, nats, over the likeliest tokens that cover it."""
    texts: int
    equal_texts: int
    """Texts that have the same token ids in both."""

    @property
    def fault(self) -> str:
        """What an F32 file must not have; '' for a quantised one, which promises no equality, and its tokenizer's faults for all."""
        if self.equal_texts < self.texts:
            return f"{file_of(self.format)}: {self.texts - self.equal_texts} of {self.texts} texts have other token ids in llama.cpp"
        if self.format != "f32":
            return ""
        if self.equal_continuations < self.prompts:
            return f"{file_of(self.format)}: {self.prompts - self.equal_continuations} of {self.prompts} greedy continuations differ"
        if not self.largest_difference < MOST_DIFFERENCE:
            return (
                f"{file_of(self.format)}: a log-probability differs by {self.largest_difference:.2g}; at most {MOST_DIFFERENCE} is expected"
            )
        return ""

    def __str__(self) -> str:
        return (
            f"{self.format}: {self.equal_continuations} of {self.prompts} greedy continuations equal, log-probabilities within "
            f"{self.largest_difference:.1e}, divergence {self.divergence:.1e} nats, {self.equal_texts} of {self.texts} texts with equal ids"
        )


def require_llama() -> str:
    """The version of xllamacpp; raises HearthError, saying how to get it, where it is not installed."""
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError:
        raise HearthError("llama.cpp comes with the package xllamacpp: pip install 'openhearth[llama]'") from None


@contextmanager
def server(file: Path, context: int) -> Iterator[Llama]:
    """llama.cpp with a file loaded, on a loopback port, in this process. Load only files that were made again from their weights."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(file)
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = context, 1, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    parameters.warmup, parameters.verbosity, parameters.hostnames, parameters.port = False, -1, ["127.0.0.1"], 0
    running = xllamacpp.Server(parameters)
    try:
        yield Llama(running.listening_address)
    finally:
        del running


@dataclass(frozen=True)
class Llama:
    """A running llama.cpp."""

    address: str

    def ask(self, path: str, body: Json) -> Any:
        """Post JSON, get JSON."""
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.address}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.loads(answer.read())

    def tokenize(self, text: str) -> list[int]:
        """The ids of plain text."""
        ids: list[int] = self.ask("/tokenize", {"content": text, "add_special": False, "parse_special": False})["tokens"]
        return ids

    def greedy(self, ids: Sequence[int], count: int, likeliest: int) -> tuple[list[int], list[Json]]:
        """The likeliest continuation, and for its first tokens the log-probabilities over the whole vocabulary, the `likeliest` ones.

        llama.cpp lists none for a token that ends within a character, so the list ends where the first such token comes.
        """
        body = {"prompt": list(ids), "n_predict": count, "top_k": 1, "temperature": 0.0, "n_probs": likeliest, "cache_prompt": False}
        said = self.ask("/completion", {**body, "return_tokens": True})
        tokens, listed = said["tokens"], said.get("completion_probabilities", [])
        whole = next((number for number, (id, step) in enumerate(zip(tokens, listed, strict=False)) if id != step["id"]), len(listed))
        return tokens, listed[:whole]


def compare(release: Path, name: str, file: Path | None = None, *, prompts: int = PROMPTS) -> Parity:
    """Hold llama.cpp's reading of the file of a number format against the released weights."""
    import torch

    from openhearth.model.hf import load_model

    tokenizer, model = Tokenizer.load(release / layout.TOKENIZER), load_model(release)
    context = model.config.max_position_embeddings
    choose = random.Random(0)
    texts = hostile_texts(TEXTS)
    asked = [[tokenizer.bos, *tokenizer.encode(text)[: context // 4]] for text in choose.sample(texts, prompts)]
    equal, largest, divergence = 0, 0.0, 0.0
    with server(file or release / file_of(name), context) as llama, torch.inference_mode():
        same_ids = sum(llama.tokenize(text) == tokenizer.encode(text) for text in texts)
        for ids in asked:
            count = min(NEW_TOKENS, context - len(ids) - 1)
            tokens, listed = llama.greedy(ids, count, min(model.config.vocab_size, 512))
            said, same = list(ids), True
            for number, id in enumerate(tokens):
                ours = torch.log_softmax(model(torch.tensor([said]))[0, -1].float(), -1)
                best = int(ours.argmax())
                if number == 0 and listed:
                    divergence += _divergence(ours.tolist(), listed[0]["top_logprobs"]) / len(asked)
                if id != best:
                    same = False
                    break
                if number < len(listed):
                    largest = max(largest, abs(float(ours[best]) - listed[number]["logprob"]))
                said.append(best)
            equal += same and (len(tokens) == count or tokens[-1:] in ([tokenizer.bos], [tokenizer.im_end]))
    return Parity(name, len(asked), equal, largest, divergence, len(texts), same_ids)


def _divergence(ours: list[float], listed: list[Json]) -> float:
    """Kullback-Leibler divergence from our log-probabilities to the listed ones, nats, over the tokens that are listed."""
    return sum(math.exp(ours[entry["id"]]) * (ours[entry["id"]] - float(entry["logprob"])) for entry in listed)


def hostile_texts(count: int) -> list[str]:
    """Texts that tokenizers disagree on when they disagree: every odd piece, and mixtures of them."""
    choose = random.Random(7)
    mixed = ("".join(choose.choices(PIECES, k=choose.randint(2, 12))) for _ in range(count - len(PIECES)))
    return [*PIECES, *mixed]


def parity_file(release: Path, names: Sequence[str]) -> Json:
    """How llama.cpp reads each file, as a release keeps it; raises DamagedError when an F32 file is not read alike."""
    version = require_llama()
    found = [compare(release, name) for name in names]
    for one in found:
        if one.fault:
            raise DamagedError(one.fault)
    return {"xllamacpp": version, "files": [asdict(one) for one in found]}
