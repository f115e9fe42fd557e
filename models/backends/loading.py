"""Finding a causal language model's files, telling them apart, and loading them."""

import hashlib
import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from lengthpred.errors import BackendError, SettingsError, did_you_mean, require
from lengthpred.manifest import file_sha256
from lengthpred.models.backends.base import Source

__all__ = ["Loaded", "checksum_of", "load", "locate"]

HUB_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")
DTYPES = ("float32", "bfloat16", "float16")
WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
SETTINGS = ("*.json", "*.jinja", "*.model", "merges.txt", "vocab.txt")
WHY = "A language model that answers here"


@dataclass(frozen=True)
class Loaded:
    """A model that is ready to be asked.

    model      a causal LM of transformers, in eval mode on its device
    tokenizer  its tokenizer; `chat_template` is None where the files hold no template
    ends       ids of the tokens that end an answer
    context    most tokens of prompt and answer together; None where the files do not say
    width      size of a hidden state
    """

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    context: int | None
    width: int


def locate(source: Source) -> Path:
    """The folder or GGUF file that a source means; a hub id is fetched when it is not here yet.

    Not so for an artifact (it knows the checksum): what is loaded must not decide what is
    downloaded. A path that exists is taken as it is, and nothing is asked of the network. Raises
    BackendError.
    """
    path = Path(source.model).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.exists():
        raise BackendError(f"{path} is neither a model's folder nor a .gguf file")
    if path.suffix == ".gguf" or not HUB_ID.fullmatch(source.model):
        raise BackendError(f"there is no model at {path}: name a folder, a .gguf file or a hub id")
    hub = require("huggingface_hub", "torch", "A model of the hub")
    fetch = {"revision": source.revision or None, "allow_patterns": [WEIGHTS[0], *SETTINGS]}
    try:
        here = Path(hub.snapshot_download(source.model, local_files_only=True, **fetch))
        if _complete(here):
            return here
    except Exception:  # not here: what it raises differs from version to version
        pass
    if source.checksum:
        raise BackendError(
            f"the model '{source.model}' of this predictor is not on this machine, and an artifact "
            f"downloads nothing by itself: run `hf download {source.model}` if you trust it"
        )
    try:
        here = Path(hub.snapshot_download(source.model, **fetch))
        if not _complete(here):
            fetch["allow_patterns"] = [*WEIGHTS, *SETTINGS]
            here = Path(hub.snapshot_download(source.model, **fetch))
    except Exception as error:
        raise BackendError(
            f"there is no folder '{source.model}', and the hub does not give a model of that "
            f"name: {_sentence(error)}"
        ) from error
    return here


def checksum_of(path: Path) -> str:
    """sha256 over the names and contents of the files that decide what a model answers.

    These are weights, config and tokenizer: of a folder not its subfolders, nor .bin files beside
    safetensors, which are another form of the same. Raises BackendError when there are none.
    """
    files = [path] if path.is_file() else [*_matching(path, SETTINGS), *_weights(path)]
    if not files:
        raise BackendError(f"{path} holds no files of a model")
    total = hashlib.sha256()
    try:
        for file in sorted(files, key=lambda file: file.name):
            total.update(f"{file.name}\0{file_sha256(file)}\n".encode())
    except OSError as error:
        raise BackendError(f"{error.filename} cannot be read: {error.strerror}") from error
    return total.hexdigest()


def load(source: Source) -> Loaded:
    """Read model and tokenizer onto the source's device. Code that comes with a model is not run.

    Reading a GGUF file takes far longer than reading safetensors: one that is used often is
    better saved as a folder once. Raises BackendError, SettingsError for an unknown dtype,
    MissingExtraError.
    """
    if source.dtype not in DTYPES:
        raise SettingsError(f"'{source.dtype}' is no dtype. {did_you_mean(source.dtype, DTYPES)}")
    path = locate(source)
    if source.checksum and checksum_of(path) != source.checksum:
        raise BackendError(
            f"{source.model} is not the model that this predictor was trained with: put that one "
            "back, or train again"
        )
    torch = require("torch", "torch", WHY)
    transformers = require("transformers", "torch", WHY)
    major = int(transformers.__version__.split(".")[0])
    # Unless told so, transformers asks on the terminal whether to run it.
    how: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    if path.is_file():
        require("gguf", "torch", "A GGUF file")
        require("accelerate", "torch", "A GGUF file")
        how["gguf_file"], folder = path.name, path.parent
    else:
        folder = path
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **how)
    except Exception as error:  # foreign files make transformers raise anything
        raise BackendError(f"{path} holds no tokenizer to use: {_sentence(error)}") from error
    how["dtype" if major >= 5 else "torch_dtype"] = getattr(torch, source.dtype)
    if path.is_file() and hasattr(transformers, "GgufConfig"):
        how["quantization_config"] = transformers.GgufConfig(dequantize=True)
    try:
        model, found = transformers.AutoModelForCausalLM.from_pretrained(
            folder, output_loading_info=True, **how
        )
    except Exception as error:
        raise BackendError(
            f"{path} cannot be loaded as a causal language model: {_sentence(error)}"
        ) from error
    missing = sorted(found["missing_keys"])
    if missing or model.config.is_encoder_decoder or not model.can_generate():
        # An encoder would be given a head of random numbers.
        lacks = f": it lacks {missing[0]}" if missing else ""
        raise BackendError(f"{path} is no causal language model{lacks}")
    try:
        model = model.to(source.device).eval()
    except Exception as error:
        raise BackendError(
            f"{path} cannot be put on the device '{source.device}': {_sentence(error)}"
        ) from error
    config = model.config.get_text_config()
    return Loaded(model, tokenizer, _ends(model, tokenizer), _context(config), config.hidden_size)


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """End tokens are named in three places, and no one of them is complete in all models."""
    ends: set[int] = set()
    for holder in (model.generation_config, model.config.get_text_config(), tokenizer):
        named = getattr(holder, "eos_token_id", None)
        ends.update([] if named is None else [named] if isinstance(named, int) else named)
    return frozenset(ends)


def _context(config: Any) -> int | None:
    for name in ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length"):
        if getattr(config, name, None):
            return int(getattr(config, name))
    return None


def _matching(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    files = [file for file in folder.iterdir() if file.is_file()]
    return [file for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]


def _weights(folder: Path) -> list[Path]:
    return _matching(folder, WEIGHTS[:1]) or _matching(folder, WEIGHTS)


def _complete(folder: Path) -> bool:
    """Whether a snapshot holds all that is needed; a download may have been broken off."""
    shards = {match[1] for f in _weights(folder) if (match := re.search(r"-of-(\d+)\.", f.name))}
    whole = len(_weights(folder)) == int(shards.pop()) if len(shards) == 1 else not shards
    return (folder / "config.json").is_file() and bool(_weights(folder)) and whole


def _sentence(error: Exception) -> str:
    """The first sentence of what another library says, on one line."""
    text = " ".join(str(error).split())
    return re.split(r"(?<=[a-z)'\"])\. ", text)[0][:300].rstrip(".") or type(error).__name__
