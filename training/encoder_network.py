"""The encoder in torch: a transformer, what is known beside the text, and a head."""

from typing import Any

import numpy as np
import numpy.typing as npt

from lengthpred.errors import SettingsError, require
from lengthpred.training.encoder_source import WHY, loaded
from lengthpred.training.settings import EncoderSettings

__all__ = ["WHY", "Pretrained", "build", "pretrained", "rates"]

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
    model, tokenizer = loaded(settings.encoder, settings.revision)
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
