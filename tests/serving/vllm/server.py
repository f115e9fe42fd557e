"""A real vLLM server with SmolLM2-135M on this machine, started by `lengthpred serve`."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lengthpred.eval.bench.server import RunningServer as Running
from lengthpred.eval.bench.server import running_server as started
from tests.smollm2 import smollm2_path

__all__ = ["Running", "running_server", "saved_model"]


def saved_model(folder: Path) -> Path:
    """SmolLM2-135M-Instruct as vLLM reads it: from the GGUF file to safetensors."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    gguf = smollm2_path()
    told = {"gguf_file": gguf.name}
    AutoTokenizer.from_pretrained(gguf.parent, **told).save_pretrained(folder)
    as_floats = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, quantization_config=as_floats, **told)
    model.bfloat16().save_pretrained(folder)
    return folder


def running_server(
    artifact: Path, model: Path, log: Path, options: Sequence[str] = (), more: Sequence[str] = ()
) -> AbstractContextManager[Running]:
    """A server until the block ends; `options` are ours, `more` vLLM's."""
    theirs = [str(model), "--served-model-name", "smol", "--enforce-eager"]
    theirs += ["--max-model-len", "1024", "--dtype", "bfloat16", *more]
    return started(str(artifact), theirs, options, log, {"VLLM_CPU_KVCACHE_SPACE": "1"})
