"""Several orders on one server, for experiments: each call names the one that it goes by."""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from lengthpred.base import Request
from lengthpred.distribution import LengthDistribution
from lengthpred.errors import SettingsError
from lengthpred.grid import LengthGrid
from lengthpred.ordering import OrderingSettings, priority
from lengthpred.serving.order import Place
from lengthpred.serving.settings import Policy

__all__ = ["STOCK", "Arm", "ToldOrderer", "read_arms"]

STOCK = "stock"  # the name of the order without lengthpred: such calls are handed on unread
NUMBERED = re.compile(r"(?P<list>.+)-(?P<number>\d+)", re.DOTALL)


class Arm(BaseModel):
    """One of several orders that an experiment compares on one server.

    artifact, policy  as of a server; see `ServingSettings`
    blind             what the client says of the length is kept from predictor and policy, since an
                      experiment forces lengths by it
    costs             a JSON file in place of both: what calls cost, in tokens, as lists by name.
                      The call with the id NAME-7 costs item 7 of the list NAME, others nothing
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    artifact: str = "default"
    policy: Policy = "sjf"
    blind: bool = True
    costs: Path | None = None


def read_arms(path: Path | None) -> dict[str, Arm]:
    """The tables of a TOML file, each an arm of its name. Raises SettingsError."""
    if path is None:
        return {}
    try:
        tables: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
        arms = {name: Arm.model_validate(table) for name, table in tables.items()}
    except (OSError, ValueError, ValidationError) as error:
        raise SettingsError(f"{path} cannot be read as arms of an experiment: {error}") from error
    if STOCK in arms:
        raise SettingsError(f"{path}: '{STOCK}' is the order without lengthpred; name it otherwise")
    return arms


class ToldOrderer:
    """Gives calls a place by what they are told to cost: for controls that know the truth.

    Raises SettingsError for a file that holds no such lists.
    """

    def __init__(self, path: Path, ordering: OrderingSettings) -> None:
        self._costs, self._ordering = _read_costs(path), ordering
        grid = LengthGrid()
        self._nothing = LengthDistribution.from_weights(grid, np.ones((1, grid.bins)))

    async def place(self, requests: Sequence[Request], arrived_unix_s: float) -> Place:
        """See `Orderer`; the requests of a call share its id."""
        named = NUMBERED.fullmatch(requests[0].id)
        costs = self._costs.get(named["list"], ()) if named else ()
        number = int(named["number"]) if named else 0
        told = costs[number] if number < len(costs) else 0.0
        key = int(priority([told], [arrived_unix_s], self._ordering)[0])
        dist = LengthDistribution.concat([self._nothing] * len(requests))
        return Place(key, requests, dist, "predicted")


def _read_costs(path: Path) -> Mapping[str, Sequence[float]]:
    try:
        lists = json.loads(path.read_text("utf-8"))
        return {str(name): [float(cost) for cost in costs] for name, costs in lists.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{path} holds no costs of calls: {error}") from error
