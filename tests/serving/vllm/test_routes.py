"""The routes of the vLLM that is installed: each is known."""

import re
import typing

import pytest

from lengthpred.errors import DataError
from lengthpred.serving.vllm.routes import OTHER, as_read, kind_of

# Methods that generate nothing.
HARMLESS = {"GET", "HEAD", "OPTIONS", "DELETE"}


def test_kinds() -> None:
    assert kind_of("/v1/chat/completions") == "ordered"
    assert kind_of("/v1/responses/resp_1/cancel") == "other"
    assert kind_of("/v1/chat/completions/") == "unordered"  # vLLM redirects it
    assert kind_of("/v9/new") == "unordered"


@pytest.mark.parametrize(
    ("path", "body", "read"),
    [
        (
            "/v1/completions",
            {"prompt": "long", "messages": [], "input": "a", "max_completion_tokens": 1},
            {"prompt": "long", "max_tokens": 16},
        ),
        ("/v1/completions", {"prompt": "a", "max_tokens": None}, {"prompt": "a", "max_tokens": 16}),
        (
            "/v1/chat/completions",
            {"messages": [], "prompt": "a", "max_tokens": 900, "max_output_tokens": 1},
            {"messages": [], "max_tokens": 900},
        ),
        (
            "/v1/messages",
            {"messages": [], "max_completion_tokens": 1, "max_tokens": 900},
            {"messages": [], "max_tokens": 900},
        ),
        (
            "/v1/responses",
            {"input": "long", "prompt": "a", "max_tokens": 1, "max_output_tokens": "900"},
            {"input": "long", "max_output_tokens": 900},
        ),
        ("/invocations", {"messages": [], "max_completion_tokens": "9 "}, {"messages": []}),
        ("/invocations", {"prompt": "a", "n": 5.0, "max_completion_tokens": 1}, {"n": 5}),
        ("/v1/completions", {"prompt": "a", "n": "7", "max_tokens": "x"}, {"n": 7}),
        (
            "/v1/chat/completions",
            {"messages": [], "min_tokens": "9", "ignore_eos": "true"},
            {"messages": [], "min_tokens": 9, "ignore_eos": True},
        ),
        ("/v1/messages", {"messages": [], "min_tokens": 9, "ignore_eos": 1}, {"messages": []}),
        (
            "/v1/responses",
            {"input": "a", "min_tokens": 9, "ignore_eos": 1},
            {"input": "a", "ignore_eos": True},
        ),
        ("/v1/responses", {"input": "a", "ignore_eos": []}, {"input": "a", "ignore_eos": []}),
    ],
)
def test_a_route_reads_no_decoys(path: str, body: object, read: dict[str, object]) -> None:
    found = as_read(path, body)
    assert found.items() >= read.items()
    if "n" not in read and path != "/invocations":
        assert found == read


def test_what_a_route_would_read_in_two_ways_is_not_read() -> None:
    bodies: list[object] = [{"messages": [], "prompt": "a"}, [], None]
    for body in bodies:
        with pytest.raises(DataError):
            as_read("/invocations", body)


@pytest.mark.vllm
def test_no_route_slips_by(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new vLLM may have routes that generate and take no priority: they must be looked at."""
    # Read when a route is added: those of developers, too.
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "1")
    tasks = pytest.importorskip("vllm.tasks")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.entrypoints.openai.api_server import build_app
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    arguments = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m"])
    every = (*typing.get_args(tasks.GenerationTask), *typing.get_args(tasks.PoolingTask))
    app = build_app(arguments, every)
    walked = set()
    for route in app.routes:
        if getattr(route, "methods", None) and set(route.methods) <= HARMLESS:
            continue
        walked.add(re.sub(r"{\w+}", "x", getattr(route, "path", "")))
    assert "/v1/chat/completions" in walked and len(walked) > 30
    from lengthpred.serving.vllm import routes

    known = routes.ORDERED | routes.UNORDERED | OTHER
    unknown = {path for path in walked if path not in known and kind_of(path) != "other"}
    assert unknown <= {"/metrics"}
