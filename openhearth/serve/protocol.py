"""What a client may ask, in OpenAI's words, with the limits of this server. Unknown fields are ignored, as OpenAI does.

Only that can be asked which the model can do: tools, pictures and answers in a schema are refused rather than pretended.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

MAX_CHOICES = 16
MAX_PROMPTS = 64
MAX_STOPS = 4
MAX_STOP = 256
MAX_TOP_LOGPROBS = 20
MAX_TEXT = 1_000_000

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Some = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
TokenId = Annotated[int, Field(ge=0)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TEXT)]
Stop = Annotated[str, Field(min_length=1, max_length=MAX_STOP)]


class Strict(BaseModel):
    """No number is read from a text and no text from a number."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        """10.0 is an integer in JSON's schema."""
        return int(value) if isinstance(value, float) and value.is_integer() else value


class StreamOptions(Strict):
    """What a stream has besides the answer."""

    include_usage: bool = Field(default=False, description="End with a chunk that has no choices and the usage.")


class Generating(Strict):
    """What all requests for text have in common."""

    model: str = Field(max_length=256, description="A name from /v1/models.")
    temperature: float | None = Field(default=1.0, ge=0, le=2, description="0 always takes the likeliest token.")
    top_p: float | None = Field(default=1.0, gt=0, le=1)
    top_k: int | None = Field(default=0, ge=0, le=10_000_000, description="0 for all. Not OpenAI's.")
    seed: int | None = Field(
        default=None, ge=-(2**63), le=2**63 - 1, description="The same seed gives the same text; without, another each time."
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=MAX_STOPS)] | None = None
    n: int | None = Field(default=1, ge=1, le=MAX_CHOICES)
    stream: bool | None = False
    stream_options: StreamOptions | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """The stop strings as a tuple."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


class TextPart(Strict):
    """A part of a message."""

    type: Literal["text"]
    text: Text


class Message(Strict):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | Annotated[list[TextPart], Field(max_length=MAX_PROMPTS)]

    def plain(self) -> dict[str, str]:
        """For the chat format: parts joined, `developer` by its older name."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class TextFormat(Strict):
    """The one form of answer that there is."""

    type: Literal["text"]


class ChatRequest(Generating):
    """POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=4096)
    max_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    response_format: TextFormat | None = None
    tools: list[Any] | None = Field(default=None, max_length=0, description="Must be empty: this server has no tools.")
    functions: list[Any] | None = Field(default=None, max_length=0, description="Must be empty: this server has no tools.")


class CompletionRequest(Generating):
    """POST /v1/completions."""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    max_tokens: int | None = Field(default=16, ge=0, le=10_000_000)
    logprobs: int | None = Field(default=None, ge=0, le=MAX_TOP_LOGPROBS)
    echo: bool | None = False
    suffix: Literal[""] | None = None
    best_of: int | None = Field(default=None, ge=1, le=1, description="Only 1.")


class EmbeddingRequest(Strict):
    """POST /v1/embeddings."""

    model: str = Field(max_length=256)
    input: (
        Some
        | Annotated[list[Some], Field(min_length=1, max_length=MAX_PROMPTS)]
        | TokenIds
        | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, description="Must be the model's width.")


class ErrorBody(BaseModel):
    """What went wrong, in OpenAI's form."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorBody
