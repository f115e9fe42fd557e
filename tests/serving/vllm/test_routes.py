"""The routes of the vLLM that is installed: each is known."""

import re
import typing

import pytest

from lengthpred.serving.vllm.routes import OTHER, kind_of

# Methods that generate nothing.
HARMLESS = {"GET", "HEAD", "OPTIONS", "DELETE"}


def test_kinds() -> None:
    assert kind_of("/v1/chat/completions") == "ordered"
    assert kind_of("/v1/responses/resp_1/cancel") == "other"
    assert kind_of("/v1/chat/completions/") == "unordered"  # vLLM redirects it
    assert kind_of("/v9/new") == "unordered"


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
