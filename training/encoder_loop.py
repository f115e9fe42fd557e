"""The training loop of an encoder: through accelerate, on one CPU, a GPU, or many processes.

Which rows a step sees depends on the seed and the step alone, so that a run that was killed goes on
from its last checkpoint as if it had not been.
"""

import hashlib
import os
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

import lengthpred
from lengthpred.base import IntArray
from lengthpred.errors import SettingsError, require
from lengthpred.models.encoder_input import Reader
from lengthpred.training.encoder_network import WHY, rates
from lengthpred.training.encoder_session import Session
from lengthpred.training.encoder_targets import Targets, loss_of
from lengthpred.training.progress import OnProgress
from lengthpred.training.settings import EncoderSettings

__all__ = ["Examples", "Loop"]

WARMUP = 0.06
# Batches that are dealt together, so that rows of like lengths meet and yet differ each time.
DEAL = 50
CHECKPOINT_S = 60.0
WIDTHS = 16
STEP = "training the encoder"


@dataclass(frozen=True)
class Examples:
    """n rows as the network sees them: token ids, numbers (n, features), model (n,), targets."""

    ids: list[npt.NDArray[np.int64]]
    numbers: npt.NDArray[np.float32]
    model: IntArray
    targets: Targets

    def __len__(self) -> int:
        return len(self.ids)


@dataclass
class Loop:
    """One run.

    network     as of `encoder_network.build`; after `run` it holds the best averaged weights
    reader      made the examples' token ids, and fills up their batches
    checkpoint  a file that is written now and then, and that a run goes on from when it is there
    session     when training ends at the latest; it is told when that cut it
    """

    network: Any
    settings: EncoderSettings
    reader: Reader
    seed: int
    on_progress: OnProgress
    checkpoint: Path | None
    session: Session
    step: int = 0
    best: float = float("inf")
    worse: int = 0
    name: str = STEP
    _saved_s: float = field(default_factory=time.monotonic)

    def run(self, train: Examples, valid: Examples) -> bool:
        """Train; true in the first of several processes, which is to save the result."""
        torch = require("torch", "torch", WHY)
        accelerate = require("accelerate", "torch", WHY)
        self.torch = torch
        precision = self._precision(torch)
        self.origin = _origin(torch, self.network)
        self.accelerator = accelerate.Accelerator(
            mixed_precision=precision, cpu=self.settings.device == "cpu"
        )
        self.loss = loss_of(self.settings)
        groups = rates(self.network, self.settings)
        self._rates = [group["lr"] for group in groups]
        self.network.to(self.accelerator.device)
        self.optimizer = self.accelerator.prepare(torch.optim.AdamW(groups, fused=True))
        self.prepared = self.accelerator.prepare(self.network)
        self.average = _copy(self.network)
        self.kept = _copy(self.network)
        self._resume()
        self._steps(train, valid)
        if self.step and self.best == float("inf"):
            raise SettingsError(
                "training the encoder came to no finite loss on the validation rows: lower its "
                "learning rates (learning_rate, head_learning_rate)"
            )
        # Its forward is wrapped, for the precision, as long as it is prepared.
        self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        self.network.load_state_dict(self.kept)
        self.network.to("cpu").eval()
        self.accelerator.wait_for_everyone()
        main: bool = self.accelerator.is_main_process
        processes = self.accelerator.num_processes
        self.accelerator.end_training()
        if processes == 1:
            # What it keeps for the process would refuse another precision to the next encoder.
            accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
        return main

    def _steps(self, train: Examples, valid: Examples) -> None:
        each = len(self._deal(train, 0))
        total = each * self.settings.epochs
        check = max(each // self.settings.checks, 1)
        self.network.train()
        for epoch in range(self.step // each, self.settings.epochs):
            for batch in self._deal(train, epoch)[self.step - epoch * each :]:
                if self.worse >= self.settings.patience:
                    return
                self._step(train, batch, total)
                cut = self.session.cut = self.step < total and self._late()
                if self.step % check == 0 or self.step == total or cut:
                    self._check(train, valid)
                if cut:
                    return
                self.on_progress(self.name, self.step, total)
                self._save()

    def _deal(self, rows: Examples, epoch: int) -> list[IntArray]:
        """The batches of this process in one pass; as many in each process."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(rows))
        size, processes = self.settings.batch, self.accelerator.num_processes
        lengths = np.array([len(row) for row in rows.ids])
        batches = []
        for start in range(0, len(order), size * DEAL):
            part = order[start : start + size * DEAL]
            part = part[np.argsort(lengths[part], kind="stable")]
            batches += [part[i : i + size] for i in range(0, len(part), size)]
        batches = [batches[i] for i in rng.permutation(len(batches)) if len(batches[i]) > 1]
        mine = batches[self.accelerator.process_index :: processes]
        return mine[: max(len(batches) // processes, 1)]

    def _step(self, train: Examples, batch: IntArray, total: int) -> None:
        done = self.step / total
        factor = min(1.0, (self.step + 1) / max(WARMUP * total, 1)) * max(1 - done, 0.02)
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        rng = np.random.default_rng([self.seed, self.step, self.accelerator.process_index])
        hidden = rng.random(len(batch)) < self.settings.model_dropout
        loss = self._loss(self.prepared, train, batch, np.where(hidden, 0, train.model[batch]))
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.prepared.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        # Early on the average would hold mostly the weights that training began with.
        keep = min(self.settings.averaging, self.step / (self.step + 9))
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - keep)
            else:
                self.average[name].copy_(value)

    def _loss(self, network: Any, rows: Examples, batch: IntArray, model: IntArray) -> Any:
        place = self.accelerator.device

        def tensor(values: npt.NDArray[Any]) -> Any:
            return self.torch.from_numpy(np.ascontiguousarray(values)).to(place)

        # Of few widths: kernels are kept for each shape, and would fill the memory.
        longest = max(len(rows.ids[i]) for i in batch)
        most = self.settings.tokens + self.settings.context_tokens
        width = min(-(-longest // WIDTHS) * WIDTHS, most)
        ids, mask = self.reader.padded([rows.ids[i] for i in batch], width)
        wanted = rows.targets.take(batch)
        names = wanted.__dataclass_fields__
        with self.accelerator.autocast():
            outputs = network(tensor(ids), tensor(mask), tensor(rows.numbers[batch]), tensor(model))
        return self.loss(
            outputs.float(), SimpleNamespace(**{k: tensor(getattr(wanted, k)) for k in names})
        )

    def _check(self, train: Examples, valid: Examples) -> None:
        """Keep the averaged weights when they are the best yet on the validation rows."""
        current = _copy(self.network)
        self.network.load_state_dict(self.average)
        self.network.eval()
        torch = self.torch
        sums = torch.zeros(2, device=self.accelerator.device)
        with torch.no_grad():
            for batch in self._parts(valid):
                # Not the prepared one, whose processes wait for each other: one may have more.
                loss = self._loss(self.network, valid, batch, valid.model[batch])
                sums += torch.stack([loss * len(batch), torch.full_like(loss, len(batch))])
        sums = self.accelerator.reduce(sums)
        self.network.load_state_dict(current)
        self.network.train()
        found = float(sums[0] / sums[1].clamp(min=1))
        self.worse = 0 if found < self.best else self.worse + 1
        if found < self.best:
            self.best, self.kept = found, {k: v.clone() for k, v in self.average.items()}

    def _late(self) -> bool:
        """Whether the time is up in any process: all have to stop at the same step."""
        until = self.session.until
        if until is None:
            return False
        late = self.torch.tensor(float(time.monotonic() > until))
        return bool(self.accelerator.reduce(late.to(self.accelerator.device)) > 0)

    def _parts(self, valid: Examples) -> Iterator[IntArray]:
        order = np.argsort([len(row) for row in valid.ids], kind="stable")
        size = 2 * self.settings.batch
        starts = range(0, len(order), size)
        for start in starts[self.accelerator.process_index :: self.accelerator.num_processes]:
            yield order[start : start + size]

    def _save(self) -> None:
        main = self.accelerator.is_main_process
        if self.checkpoint is None or not main or time.monotonic() < self._saved_s + CHECKPOINT_S:
            return
        scaler = self.accelerator.scaler
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else {},
            "average": self.average,
            "kept": self.kept,
            "counts": [self.step, self.best, self.worse],
            "origin": [self.origin, self.accelerator.num_processes],
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        fresh = self.checkpoint.with_name(f"{self.checkpoint.name}.new")
        self.torch.save(state, fresh)
        os.replace(fresh, self.checkpoint)
        self._saved_s = time.monotonic()

    def _resume(self) -> None:
        """Go on from the checkpoint, unless it is damaged or of another beginning."""
        if self.checkpoint is None or not self.checkpoint.is_file():
            return
        place = self.accelerator.device
        try:
            # Tensors and numbers only: a file that holds anything else is refused.
            state = self.torch.load(self.checkpoint, map_location=place, weights_only=True)
            if state["origin"] != [self.origin, self.accelerator.num_processes]:
                raise ValueError("it began with other weights, versions or processes")
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(state["scaler"])
        except Exception as error:  # a damaged file raises what it likes
            warnings.warn(
                f"{self.checkpoint} cannot be gone on from, so training begins anew: {error}",
                stacklevel=2,
            )
            self.network.load_state_dict(self.average)  # which is as it was made
            return
        self.average, self.kept = state["average"], state["kept"]
        self.step, self.best, self.worse = state["counts"]
        self.name = f"{STEP}, gone on from step {self.step:,}"

    def _precision(self, torch: Any) -> str:
        gpu = torch.cuda.is_available() and self.settings.device != "cpu"
        if self.settings.precision == "fp16" and not gpu:
            raise SettingsError('precision = "fp16" needs a GPU: take "auto", "bf16" or "no"')
        if self.settings.precision != "auto":
            return self.settings.precision
        if gpu:
            return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        # Without matrix instructions for it, bfloat16 is slower on a CPU than float32.
        quick = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
        return "bf16" if quick else "no"


def _origin(torch: Any, network: Any) -> str:
    """What a run begins with: the weights, and the versions that move them."""
    hashed = hashlib.sha256(f"{lengthpred.__version__} {torch.__version__}".encode())
    for name, value in network.state_dict().items():
        hashed.update(name.encode() + value.cpu().numpy().tobytes())
    return hashed.hexdigest()


def _copy(network: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
