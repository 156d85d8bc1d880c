"""The HTTP interface: OpenAI's endpoints, health, metrics, and the page. The guard around it has let the request through.

An answer is asked for before its status is sent, so that a full queue is a 429 and not a broken stream. Whoever waits for an answer is
watched: when the client goes, its work ends within a step.
"""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Annotated, Any

import numpy
from fastapi import Body, FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException as StarletteHTTPException

from openhearth import __version__
from openhearth.align import chat
from openhearth.errors import HearthError
from openhearth.ledger import Json
from openhearth.model.sampling import Sampling
from openhearth.serve import metrics
from openhearth.serve.answers import FINISH, Asked, Form
from openhearth.serve.decoder import Decoder
from openhearth.serve.engine import Busy, End, Engine
from openhearth.serve.guard import Limits, Refused
from openhearth.serve.loading import Opened
from openhearth.serve.protocol import ChatRequest, CompletionRequest, EmbeddingRequest, ErrorAnswer, Generating
from openhearth.serve.text import Token

HEARTBEAT = 15.0
PAGE = {"/": ("index.html", "text/html"), "/chat.js": ("chat.js", "text/javascript"), "/chat.css": ("chat.css", "text/css"),
        "/favicon.svg": ("favicon.svg", "image/svg+xml")}  # fmt: skip
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "The request cannot be understood", 401: "A key is needed", 403: "From another origin", 404: "No such model",
        408: "The body came too slowly", 413: "The body is too large", 415: "Not JSON", 421: "Not a host of this server",
        429: "The queue is full", 503: "Too many requests at once, or the engine has stopped",
    }.items()
}  # fmt: skip
STREAM: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/event-stream": {}}}}


class Server:
    """The endpoints of one model."""

    def __init__(self, opened: Opened, engine: Engine, limits: Limits, name: str) -> None:
        """`name` is how clients call the model."""
        self.engine, self.limits, self.tokenizer, self.root, self.name = engine, limits, opened.tokenizer, opened.root, name
        self.started = int(time.time())

    # -- asking -------------------------------------------------------------------------------------------------------------

    def check_model(self, model: str) -> None:
        """Raises Refused for the name of another model."""
        if model != self.name:
            raise Refused(
                404,
                f"there is no model of that name here; GET /v1/models says which there are: {self.name}",
                "model_not_found",
                param="model",
            )

    def sampling(self, asked: Generating, max_tokens: int) -> Sampling:
        """How tokens are chosen. OpenAI's `null` is the default."""
        return Sampling(
            max_new_tokens=max(1, max_tokens),
            temperature=1.0 if asked.temperature is None else asked.temperature,
            top_p=asked.top_p or 1.0,
            top_k=asked.top_k or 0,
            stop=asked.stops,
            seed=secrets.randbits(62) if asked.seed is None else asked.seed,
        )

    def room(self, prompt: Sequence[int], asked: int | None, param: str) -> int:
        """How many tokens an answer may have. Raises Refused when the prompt leaves no room."""
        context = self.engine.context
        if len(prompt) > context - (asked != 0):
            text = f"the prompt has {len(prompt):,} tokens; the model reads {context:,}, of which one must stay free for the answer"
            raise Refused(400, text, "context_length_exceeded", param=param)
        return context if asked is None else asked

    def submit(self, asked: Asked) -> None:
        """Ask the engine. Raises Refused when its queue is full or it has stopped."""
        try:
            self.engine.submit(*asked.requests)
        except Busy:
            raise Refused(429, "too many answers are waiting", "queue_full", retry_after=2) from None
        except RuntimeError:
            raise Refused(503, "the engine has stopped", "engine_stopped", retry_after=30) from None

    async def embed(self, prompt: Sequence[int]) -> list[float]:
        """The embedding of one text. Raises Refused as `submit` does."""

        def job(decoder: Decoder) -> list[float]:
            return decoder.embed(prompt).tolist()

        try:
            return await asyncio.wrap_future(self.engine.run(job))
        except Busy:
            raise Refused(429, "too many texts are waiting", "queue_full", retry_after=2) from None
        except RuntimeError:
            raise Refused(503, "the engine has stopped", "engine_stopped", retry_after=30) from None

    def ids(self, given: str | list[str] | list[int] | list[list[int]], param: str) -> list[list[int]]:
        """Prompts as ids, each beginning with the marker that begins every text. Raises Refused for an id outside the vocabulary."""
        prompts: list[Any] = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
        found = [self.tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
        if any(token >= self.tokenizer.vocab_size for ids in found for token in ids):
            raise Refused(400, f"a token is outside the vocabulary of {self.tokenizer.vocab_size:,}", "invalid_token", param=param)
        return [ids if ids[:1] == [self.tokenizer.bos] else [self.tokenizer.bos, *ids] for ids in found]

    # -- answering ----------------------------------------------------------------------------------------------------------

    async def whole(self, request: Request, asked: Asked, form: Form, echoes: Sequence[str]) -> Response:
        """The answer in one piece; work ends when the client goes."""
        texts, tokens = list(echoes), [list[Token]() for _ in asked.requests]
        reasons = [""] * len(texts)

        async def collect() -> None:
            async for number, said in asked.listen():
                if isinstance(said, End):
                    reasons[number] = FINISH[said.reason]
                else:
                    texts[number] += said.text
                    tokens[number] += self.visible(said.tokens, asked, number, begun=bool(tokens[number]))

        await _while_connected(request, collect())
        choices = [form.whole(*choice) for choice in zip(range(len(texts)), texts, tokens, reasons, strict=True)]
        return JSONResponse({**form.head(chunk=False), "choices": choices, "usage": asked.usage()})

    async def chunks(self, asked: Asked, form: Form, echoes: Sequence[str], usage: bool) -> AsyncIterator[str]:
        """The answer as server-sent events; a comment now and then while nothing is said keeps the connection."""
        head: Json = {**form.head(chunk=True), **({"usage": None} if usage else {})}
        sizes = [0] * len(asked.requests)
        begun = [False] * len(asked.requests)
        try:
            for number, echo in enumerate(echoes):
                if form.chat:
                    opening: Json = {"role": "assistant", "content": "", "refusal": None}
                    yield _event({**head, "choices": [{"index": number, "delta": opening, "logprobs": None, "finish_reason": None}]})
                elif echo and not form.logprobs:
                    yield _event({**head, "choices": [form.delta(number, echo)]})
            async for number, said in _with_heartbeat(asked.listen()):
                if number < 0:
                    yield ": still working\n\n"
                elif isinstance(said, End):
                    yield _event({**head, "choices": [form.delta(number, None, reason=FINISH[said.reason])]})
                else:
                    tokens = self.visible(said.tokens, asked, number, begun=begun[number])
                    text = said.text if begun[number] or not form.logprobs else echoes[number] + said.text
                    yield _event({**head, "choices": [form.delta(number, text, tokens, start=sizes[number])]})
                    begun[number], sizes[number] = True, sizes[number] + len(text)
            if usage:
                yield _event({**head, "choices": [], "usage": asked.usage()})
        except Refused as refused:
            yield f"event: error\n{_event(refused.body)}"
        yield "data: [DONE]\n\n"

    def visible(self, tokens: Sequence[Token], asked: Asked, number: int, *, begun: bool) -> Sequence[Token]:
        """Without the marker that the server has put before an echoed prompt."""
        return tokens[1:] if asked.requests[number].echo and not begun else tokens

    async def respond(self, request: Request, asked: Asked, form: Form, echoes: Sequence[str], stream: bool, usage: bool) -> Response:
        """Ask, then answer in one piece or in many."""
        self.submit(asked)
        if not stream:
            return await self.whole(request, asked, form, echoes)
        return StreamingResponse(
            self.chunks(asked, form, echoes, usage), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )


async def _with_heartbeat(said: AsyncIterator[tuple[int, Any]]) -> AsyncIterator[tuple[int, Any]]:
    """What is said, and (-1, None) whenever nothing was for a while."""
    following: asyncio.Future[tuple[int, Any]] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(anext(said))
            done, _ = await asyncio.wait({following}, timeout=HEARTBEAT)
            if not done:
                yield -1, None
                continue
            try:
                yield following.result()
            except StopAsyncIteration:
                return
            following = None
    finally:
        if following and not following.done():
            following.cancel()
            await asyncio.wait({following})
        await said.aclose()  # type: ignore[attr-defined]


async def _while_connected(request: Request, work: Any) -> None:
    """Do `work`; give it up when the client goes."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refused(400, "the client has gone", "disconnected")
        working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait({working, leaving})


def _event(value: Json) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


def application(opened: Opened, engine: Engine, limits: Limits, name: str) -> FastAPI:
    """The endpoints, without the guard."""
    server = Server(opened, engine, limits, name)
    app = FastAPI(title="OpenHearth", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False, responses=ERRORS)

    @app.post("/v1/chat/completions", responses=STREAM)
    async def chat_completions(request: Request, body: Annotated[ChatRequest, Body()]) -> Response:
        """The next message of a conversation."""
        server.check_model(body.model)
        prompt = chat.prompt([message.plain() for message in body.messages], server.tokenizer)
        limit = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
        room = server.room(prompt, limit, "messages")
        logprobs = (body.top_logprobs or 0) if body.logprobs else None
        asked = Asked(engine, limits.seconds)
        first = server.sampling(body, room)
        for number in range(body.n or 1):
            asked.add(prompt, replace(first, seed=first.seed + number), logprobs)
        form = Form(f"chatcmpl-{secrets.token_hex(12)}", server.name, server.root, True, bool(body.logprobs))
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await server.respond(request, asked, form, [""] * len(asked.requests), bool(body.stream), usage)

    @app.post("/v1/completions", responses=STREAM)
    async def completions(request: Request, body: Annotated[CompletionRequest, Body()]) -> Response:
        """What follows a text. Text and ids alike are read after the marker that begins every text."""
        server.check_model(body.model)
        if body.max_tokens == 0 and not body.echo:
            raise Refused(400, "max_tokens 0 needs echo", "nothing_to_do", param="max_tokens")
        asked, echoes = Asked(engine, limits.seconds), []
        max_tokens = 16 if body.max_tokens is None else body.max_tokens
        for prompt in server.ids(body.prompt, "prompt"):
            room = server.room(prompt, max_tokens, "prompt")
            first = server.sampling(body, room)
            for number in range(body.n or 1):
                scored = bool(body.echo) and body.logprobs is not None
                asked.add(prompt, replace(first, seed=first.seed + number), body.logprobs, echo=scored, only_prompt=room == 0)
                echoes.append(server.tokenizer.decode(prompt[1:]) if body.echo else "")
        form = Form(f"cmpl-{secrets.token_hex(12)}", server.name, server.root, False, body.logprobs is not None)
        usage = bool(body.stream_options and body.stream_options.include_usage)
        return await server.respond(request, asked, form, echoes, bool(body.stream), usage)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request, body: Annotated[EmbeddingRequest, Body()]) -> Response:
        """The mean of the last hidden states of each text, of length 1."""
        server.check_model(body.model)
        width = engine.decoder.config.hidden_size
        if body.dimensions not in (None, width):
            raise Refused(400, f"embeddings of this model have {width} dimensions", "invalid_dimensions", param="dimensions")
        prompts = server.ids(body.input, "input")
        for prompt in prompts:
            server.room(prompt, 0, "input")
        vectors: list[list[float]] = []

        async def work() -> None:
            for prompt in prompts:
                vectors.append(await server.embed(prompt))

        await _while_connected(request, work())
        data = [
            {"object": "embedding", "index": number, "embedding": _encoded(vector, body.encoding_format)}
            for number, vector in enumerate(vectors)
        ]
        read = sum(map(len, prompts))
        return JSONResponse({"object": "list", "data": data, "model": server.name, "usage": {"prompt_tokens": read, "total_tokens": read}})

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """The one model, with the root digest of its release."""
        return {"object": "list", "data": [described()]}

    @app.get("/v1/models/{name}")
    async def model(name: str) -> dict[str, Any]:
        """The model, by its name."""
        server.check_model(name)
        return described()

    def described() -> dict[str, Any]:
        config = engine.decoder.config
        more = {"root": server.root, "parameters": config.parameters, "context": engine.context}
        return {"id": server.name, "object": "model", "created": server.started, "owned_by": "openhearth", **more}

    @app.get("/health")
    async def health() -> Response:
        """Whether the engine runs."""
        return JSONResponse({"status": "fault"}, 503) if engine.fault else JSONResponse({"status": "ok"})

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(engine.metrics.text(engine.counts()), media_type=metrics.CONTENT_TYPE)

    for path, (file, kind) in PAGE.items():
        content = files("openhearth.serve").joinpath("page", file).read_bytes()
        app.add_api_route(path, _fixed(content, kind), include_in_schema=False)

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return JSONResponse(error.body, error.status, error.headers())

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        return JSONResponse(Refused(500, "the server failed; its own log says why", "internal_error").body, 500)

    @app.exception_handler(HearthError)
    async def mend(request: Request, error: HearthError) -> Response:
        return JSONResponse(Refused(400, str(error), "invalid_value", param="messages").body, 400)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, int) or part.isidentifier())[:100]
        return JSONResponse(Refused(400, f"{where or 'body'}: {first['msg'][:200]}", "invalid_value", param=where or None).body, 400)

    @app.exception_handler(StarletteHTTPException)
    async def missing(request: Request, error: HTTPException) -> Response:
        text = {404: "there is nothing at that address", 405: "that address takes another method"}.get(
            error.status_code, "the body cannot be read"
        )
        return JSONResponse(Refused(error.status_code, text, "not_found").body, error.status_code, dict(error.headers or {}))

    return app


def _fixed(content: bytes, kind: str) -> Any:
    async def page() -> Response:
        return Response(content, media_type=f"{kind}; charset=utf-8")

    return page


def _encoded(vector: list[float], form: str) -> list[float] | str:
    return vector if form == "float" else base64.b64encode(numpy.asarray(vector, dtype="<f4").tobytes()).decode()
