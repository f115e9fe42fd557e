"""Which of vLLM's routes take a priority from a header, and which would pass the queue by.

Read in vLLM 0.32. What is not listed, and may have come with a newer one, counts as unordered:
tests/serving/vllm/test_routes.py walks the routes of the vLLM that is installed.
"""

from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from lengthpred.errors import DataError

__all__ = ["Kind", "as_read", "kind_of"]

Kind = Literal["ordered", "unordered", "other"]

ORDERED = frozenset(
    {
        "/invocations",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages",
        "/v1/responses",
    }
)
# They generate, or ask the engine otherwise, and do not read the header.
UNORDERED = frozenset(
    {
        "/cohere/v2/chat",
        "/generative_scoring",
        "/inference/v1/generate",
        "/v1/audio/transcriptions",
        "/v1/audio/translations",
        "/v1/chat/completions/batch",
        "/v1/realtime",
        "/v1/systemone",
        "/v2/chat",
    }
)
# Nothing is generated: management, tokens, text before and after a model, vectors.
OTHER = frozenset(
    {
        *("/abort_requests", "/adapters", "/classify", "/collective_rpc", "/detokenize"),
        *("/finish_weight_update", "/inference/v1/abort_requests", "/init_weight_transfer_engine"),
        *("/is_scaling_elastic_ep", "/pause", "/ping", "/pooling", "/release_kv_cache_memory"),
        *("/rerank", "/reset_encoder_cache", "/reset_mm_cache", "/reset_prefix_cache", "/resume"),
        *("/scale_elastic_ep", "/score", "/shutdown_weight_transfer_engine", "/sleep"),
        *("/start_draft_weight_update", "/start_weight_update", "/tokenize", "/update_weights"),
        *("/start_profile", "/stop_profile"),
        *("/update_weight_version", "/v1/chat/completions/derender"),
        *("/v1/chat/completions/render", "/v1/completions/derender", "/v1/completions/render"),
        *("/v1/embeddings", "/v1/load_lora_adapter", "/v1/messages/count_tokens"),
        *("/v1/messages/render", "/v1/rerank", "/v1/responses/render", "/v1/score"),
        *("/v1/unload_lora_adapter", "/v2/embed", "/v2/rerank", "/wake_up", "/weight_checker"),
    }
)

# What routes call a prompt and its limit, each otherwise, and what of a forced length they read.
# What another reads is passed over.
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
FORCING = ("min_tokens", "ignore_eos")
READ = {
    CHAT: frozenset({"messages", "max_completion_tokens", "max_tokens", *FORCING}),
    COMPLETIONS: frozenset({"prompt", "max_tokens", *FORCING}),
    "/v1/messages": frozenset({"messages", "max_tokens"}),
    "/v1/responses": frozenset({"input", "max_output_tokens", "ignore_eos"}),
}
NAMES = frozenset[str]().union(*READ.values())
COUNTS = frozenset({"n", "min_tokens", "max_completion_tokens", "max_tokens", "max_output_tokens"})
FLAG = TypeAdapter(bool)
COMPLETION_LIMIT = 16  # tokens, of a completions call that sets none


def kind_of(path: str) -> Kind:
    """What a request to this path, without the root path, is."""
    if path in ORDERED:
        return "ordered"
    if path in OTHER or (path.startswith("/v1/responses/") and path.endswith("/cancel")):
        return "other"
    return "unordered"


def as_read(path: str, body: object) -> dict[str, Any]:
    """What the route at an ordered path reads of a body, so that nobody gets a place by a short
    prompt or a limit that is then passed over. Raises DataError for what none reads."""
    if not isinstance(body, dict):
        raise DataError(f"a request body must be a JSON object, not {type(body).__name__}")
    if path == "/invocations":
        if {"messages", "prompt"} <= body.keys():
            raise DataError("which of 'messages' and 'prompt' is read depends on what is in them")
        path = CHAT if "messages" in body else COMPLETIONS
    passed_over = NAMES - READ[path]
    read = {
        name: _count(value) if name in COUNTS else value
        for name, value in body.items()
        if name not in passed_over
    }
    if "ignore_eos" in read:
        read["ignore_eos"] = _flag(read["ignore_eos"])
    if path == COMPLETIONS and read.get("max_tokens") is None:
        read["max_tokens"] = COMPLETION_LIMIT
    return read


def _count(value: object) -> object:
    """A number as vLLM takes it: "7" and 7.0 are 7."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _flag(value: object) -> object:
    """A yes or no as vLLM takes it: "true" and 1 are True."""
    try:
        return FLAG.validate_python(value)
    except ValidationError:
        return value
