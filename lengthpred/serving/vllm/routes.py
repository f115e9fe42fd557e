"""Which of vLLM's routes take a priority from a header, and which would pass the queue by.

Read in vLLM 0.32. What is not listed, and may have come with a newer one, counts as unordered:
tests/serving/vllm/test_routes.py walks the routes of the vLLM that is installed.
"""

from typing import Literal

__all__ = ["Kind", "kind_of"]

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


def kind_of(path: str) -> Kind:
    """What a request to this path, without the root path, is."""
    if path in ORDERED:
        return "ordered"
    if path in OTHER or (path.startswith("/v1/responses/") and path.endswith("/cancel")):
        return "other"
    return "unordered"
