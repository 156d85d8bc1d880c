"""Milliseconds of a step of decoding on one core, beside transformers and llama.cpp: the same weights, the same prompts, in turns.

    .venv/bin/python benchmarks/serve.py                        # 12x768, random weights
    .venv/bin/python benchmarks/serve.py --release runs/laptop/model --clients 64

Each program answers 1 prompt, then 16 at once, greedily and without an end; one round of each, then again, so that a machine whose speed
drifts changes all alike. Printed are the best milliseconds a step (a step is one token for every prompt), and the median within
rounds of the ratio to the floor: the time in which this core, just before, read as many bytes as the matrices have. Then a server answers
`--clients` at once over HTTP. llama.cpp reads the same F32 weights (extra `llama`); its cache is F32 as ours.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import queue
import statistics
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROMPT = 16


def random_release(folder: Path, shape: str, vocabulary: int) -> Path:
    """Weights as a run begins with them, and a tokenizer for the files of other programs."""
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.config import ModelConfig
    from openhearth.model.hf import save_model, tensor_shapes
    from openhearth.model.init import initial_tensor

    layers, width = map(int, shape.split("x"))
    text = "".join(path.read_text("utf-8") for path in sorted((Path(__file__).parents[1] / "openhearth").rglob("*.py")))
    tokenizer = Tokenizer.train([text], vocabulary)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=width, intermediate_size=width * 8 // 3 // 64 * 64, num_layers=layers,
        num_heads=width // 64, num_kv_heads=width // 64, head_dim=64, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos, eos_token_id=tokenizer.im_end,
    )  # fmt: skip
    save_model({name: initial_tensor(name, size, config, 0) for name, size in tensor_shapes(config).items()}, config, folder)
    tokenizer.save(folder)
    return folder


def ours(model: Any, tokenizer: Any) -> Callable[[list[list[int]], int], None]:
    from openhearth.model.sampling import Sampling
    from openhearth.serve.decoder import Decoder
    from openhearth.serve.engine import End, Engine, Request

    engine = Engine(Decoder(model, 16), tokenizer)
    engine._ends = set()

    def answer(prompts: list[list[int]], tokens: int) -> None:
        heard: queue.Queue[Any] = queue.Queue()
        sampling = Sampling(max_new_tokens=tokens, temperature=0.0)
        engine.submit(*[Request(prompt, sampling, heard.put) for prompt in prompts])
        left = len(prompts)
        while left:
            left -= isinstance(heard.get(), End)

    return answer


def transformers(release: Path) -> Callable[[list[list[int]], int], None]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(release, dtype=torch.float32)

    def answer(prompts: list[list[int]], tokens: int) -> None:
        ids = torch.tensor(prompts)
        model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, pad_token_id=0
        )

    return answer


def llama(release: Path, folder: Path) -> tuple[Callable[[list[list[int]], int], None], Any]:
    import xllamacpp

    from openhearth.release.gguf import write_gguf

    write_gguf(release, "f32", folder / "model.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(folder / "model.gguf")
    parameters.n_ctx, parameters.n_parallel, parameters.n_gpu_layers = 16 * 512, 16, 0
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.verbosity, parameters.hostnames, parameters.port = -1, ["127.0.0.1"], 0
    server = xllamacpp.Server(parameters)

    def one(prompt: list[int], tokens: int) -> None:
        body = {"prompt": prompt, "n_predict": tokens, "top_k": 1, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        post(f"{server.listening_address}/completion", body)

    def answer(prompts: list[list[int]], tokens: int) -> None:
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            list(pool.map(lambda prompt: one(prompt, tokens), prompts))

    return answer, server


def post(url: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        return json.loads(response.read())


def floor(size: int) -> Callable[[], float]:
    """Seconds in which this core reads `size` bytes."""
    import torch

    numbers = torch.ones(size // 4)

    def read() -> float:
        began = time.perf_counter()
        numbers.sum()
        return time.perf_counter() - began

    return read


def decoding(options: argparse.Namespace, release: Path, folder: Path) -> None:
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.hf import load_model

    model, tokenizer = load_model(release), Tokenizer.load(release / "tokenizer.json")
    programs = {"openhearth": ours(model, tokenizer), "transformers": transformers(release)}
    kept: Any = None
    try:
        programs["llama.cpp"], kept = llama(release, folder)
    except ImportError:
        print("llama.cpp is not installed: pip install 'openhearth[llama]'")
    read = floor(model.config.matmul_parameters * 4)
    print(f"{model.config.parameters:,} parameters, F32, one thread, prompts of {PROMPT} tokens, {options.tokens} tokens an answer")
    print(f"{'':14}{'batch':>6}{'ms a step':>12}{'tokens/s':>10}{'x floor':>9}")
    for batch in (1, 16):
        prompts = [[(7 * row + 3 * place) % 250 for place in range(PROMPT)] for row in range(batch)]
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        floors: list[float] = []
        for _ in range(options.rounds):
            floors.append(min(read() for _ in range(5)))
            for name, answer in programs.items():
                began = time.perf_counter()
                answer(prompts, options.tokens)
                seconds[name].append((time.perf_counter() - began) / options.tokens)
        print(f"{'floor':14}{batch:6}{min(floors) * 1000:12.2f}")
        for name, taken in seconds.items():
            ratio = statistics.median(one / base for one, base in zip(taken, floors, strict=True))
            print(f"{name:14}{batch:6}{min(taken) * 1000:12.2f}{batch / min(taken):10.1f}{ratio:9.2f}", flush=True)
    del kept


def crowd(options: argparse.Namespace, release: Path) -> None:
    """`--clients` at once over HTTP, each with an answer of its own."""
    from openhearth.data.tokenizer import Tokenizer
    from openhearth.model.hf import load_model
    from openhearth.serve.guard import Limits
    from openhearth.serve.loading import Opened
    from openhearth.serve.server import listen, make_server

    opened = Opened(release, "0" * 64, load_model(release), Tokenizer.load(release / "tokenizer.json"))
    with listen("127.0.0.1", 0) as sock:
        server, engine = make_server(opened, "model", key=None, local=True, slots=16, limits=Limits())
        engine._ends = set()
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}/v1/completions"

        def one(number: int) -> tuple[float, int]:
            began = time.perf_counter()
            body = {"model": "model", "prompt": f"def function_{number}(", "max_tokens": options.tokens, "seed": number}
            return time.perf_counter() - began, post(url, body)["usage"]["completion_tokens"]

        began = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(options.clients) as pool:
            answers = list(pool.map(one, range(options.clients)))
        taken = time.perf_counter() - began
        tokens = sum(count for _, count in answers)
        said = f"{tokens:,} tokens in {taken:.1f} s, {tokens / taken:.0f} tokens/s"
        print(f"{options.clients} clients at once over HTTP, 16 slots: {said}, none refused")
        server.should_exit = True
        thread.join()
        engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--release", type=Path, help="a folder with model.safetensors, config.json and tokenizer.json")
    parser.add_argument("--shape", default="12x768", help="LAYERSxWIDTH of random weights")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        release = options.release or random_release(Path(folder), options.shape, options.vocabulary)
        decoding(options, release, Path(folder))
        crowd(options, release)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
