"""What every engine takes and gives: rows in, rows out, in order; what cannot be done is the row's `error`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from tasks.schema import Message, Settings

URLS = r"^(dns\+http|https?)://\S+(\s+(dns\+http|https?)://\S+)*\s*$"
"""One server or several in one text: a form shows one field, and no URL holds a blank (it may hold a comma)."""


class ServingError(ValueError):
    """The model cannot be served as configured. The message says what to change."""


class OtherModelError(ServingError):
    """A server serves, but another model than the one that is wanted."""


class TransientServingError(RuntimeError):
    """A server or the network failed under a batch: nothing of it may be kept, and it may be tried again."""


class Sampling(Settings):
    """How tokens are drawn."""

    temperature: float = Field(1.0, ge=0, le=10)
    """0 takes the likeliest token."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Draws from the smallest set of tokens with this much probability."""
    max_tokens: int = Field(128, ge=1)
    """Longest completion, in tokens."""


class ServingConfig(Settings):
    """Where and how a model generates. Only `identity()` of it may change a text."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """`vllm` over HTTP; `transformers` in this process, slower, with nothing else to install."""
    url: str | None = Field(None, pattern=URLS)
    """A running vLLM server, `http://host:8000`, or several with blanks between them; `dns+http://name:8000` is a
    server at each address of the name. Each is checked to serve the model before it is used. Empty: a server is
    started here."""
    on_other_model: Literal["fail", "start"] = "fail"
    """Where the servers at `url` serve another model than a stage needs, as of a policy that this run has just trained:
    fail, or start a server here for that model. With `start` a server's name for a model has to be the model's own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights: `auto` is the model's own on a GPU and float32 on a CPU."""
    chat_template: Literal["model", "human_assistant"] = "model"
    """The model's own, or the paper's Human/Assistant turns for a model that has none."""
    max_model_tokens: int | None = Field(None, ge=2)
    """Tokens of prompt and completion together. Empty: as many as the model has positions."""
    extra_arguments: tuple[str, ...] = ()
    """More arguments for vLLM's server, for example `--quantization=fp8`."""
    max_concurrency: int = Field(64, ge=1)
    """Requests in flight at each server; with transformers, rows of a batch."""
    num_servers_kept: int = Field(1, ge=1)
    """Models that stay loaded between uses; the least recently used one leaves first."""
    reload_weights: bool = False
    """A server started here whose model must leave takes the next one's weights, where the two differ in weights alone,
    and has to show their log-probabilities; where it cannot, another is started. The server then has vLLM's development
    routes, on loopback: whoever has an account on the machine could use them."""
    startup_seconds: float = Field(300, gt=0)
    """How long a server may take to start."""
    request_seconds: float = Field(600, gt=0)
    """How long one request may take."""
    watchdog_seconds: float = Field(120, gt=0)
    """A batch of which no request ends for this long has failed; of several servers, one where none ends hangs."""
    num_retries: int = Field(6, ge=0)
    """Further attempts for a request that the server or the network failed."""
    port: int | None = Field(None, ge=1, le=65535)
    """Loopback port of a server that is started here. Empty: a free one."""
    threads: int = Field(1, ge=1)
    """CPU threads of a server without a GPU."""
    cpu_cache_gib: int = Field(1, ge=1)
    """Memory for attention keys and values of a server without a GPU, in GiB."""
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1)
    """Share of the GPU's memory that a server takes."""
    tensor_parallel_size: int = Field(1, ge=1)
    """GPUs that one model is spread over."""
    scratch: Path = Path(".solon/serving")
    """Folder of server logs and of reference log-probabilities."""

    @model_validator(mode="after")
    def _url_is_for_vllm(self) -> Self:
        if self.url is not None and self.engine != "vllm":
            raise ValueError(f"url: {self.url} needs engine: vllm, got engine: {self.engine}")
        return self

    @model_validator(mode="after")
    def _url_names_each_server_once(self) -> Self:
        twice = sorted({url for url in self.urls if self.urls.count(url) > 1})
        if twice:
            raise ValueError(f"url: {twice[0]} stands there twice; it would get twice its share of the work")
        return self

    @property
    def urls(self) -> tuple[str, ...]:
        """The servers that `url` names, without the API's path."""
        return tuple(each.rstrip("/").removesuffix("/v1") for each in (self.url or "").split())

    def identity(self) -> dict[str, str]:
        """What of this determines a text, for versions and reuse keys; where it runs does not."""
        names = ("engine", "dtype", "chat_template", "max_model_tokens")
        return {name: str(getattr(self, name)) for name in names} | {"extra": " ".join(self.extra_arguments)}


@dataclass(frozen=True)
class GenerationRequest:
    """One completion to sample. The same request gives the same text whatever else is in the batch."""

    messages: Sequence[Message]
    seed: int
    prefix: str = ""
    """Beginning of the assistant's turn that the model goes on from; not part of the text that comes back."""


@dataclass(frozen=True)
class Generation:
    """A completion, or why there is none: then `text` is None and `error` is permanent."""

    text: str | None
    finish_reason: str | None = None
    """`stop`: the model ended its turn; `length`: it was cut at `max_tokens`."""
    num_prompt_tokens: int = 0
    num_tokens: int = 0
    error: str | None = None


@dataclass(frozen=True)
class ChoiceRequest:
    """A question whose answers are weighed by the model."""

    messages: Sequence[Message]
    prefix: str = ""


@dataclass(frozen=True)
class Choice:
    """Natural-log probability of each answer's token among the whole vocabulary, or the permanent `error`."""

    logprobs: tuple[float, ...] | None
    num_prompt_tokens: int = 0
    error: str | None = None


class TextGenerator(Protocol):
    """A model that writes and weighs. Both methods give one result a request, in order.

    Raises: TransientServingError: the batch failed as a whole and may be tried again.
    """

    def generate(self, requests: Sequence[GenerationRequest], sampling: Sampling) -> list[Generation]: ...

    def choose(self, requests: Sequence[ChoiceRequest], answers: tuple[str, ...]) -> list[Choice]: ...


class LoadedGenerator(TextGenerator, Protocol):
    """A generator that holds something: a server, or weights in memory."""

    def alive(self) -> bool:
        """Whether it can still be used."""
        ...

    def stop(self) -> None:
        """Let go of what it holds."""
        ...
