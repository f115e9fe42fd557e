"""Kinds of predictors and detectors, by name.

Other packages add theirs with entry points in the groups `lengthpred.predictors` and
`lengthpred.detectors`; a name that is taken here cannot be taken over.
"""

import importlib
from importlib.metadata import entry_points

from lengthpred.artifact import Storable
from lengthpred.errors import ArtifactError, did_you_mean

__all__ = ["DETECTORS", "PREDICTORS", "available", "resolve"]

PREDICTORS = {
    "boosted": "lengthpred.models.boosted:Boosted",
    "cascade": "lengthpred.models.cascade:Cascade",
    "constant": "lengthpred.models.controls:Constant",
    "histogram": "lengthpred.models.histogram:Histogram",
    "prompt-length": "lengthpred.models.controls:PromptLength",
}
DETECTORS = {
    "knn": "lengthpred.models.detectors:NearestNeighbours",
    "mahalanobis": "lengthpred.models.detectors:Mahalanobis",
}


def available(group: str = "predictors") -> dict[str, str]:
    """Every kind of `group` ("predictors" or "detectors"), as "module:Class" by name."""
    ours = {"predictors": PREDICTORS, "detectors": DETECTORS}[group]
    theirs = {point.name: point.value for point in entry_points(group=f"lengthpred.{group}")}
    return theirs | ours


def resolve(kind: str) -> type[Storable]:
    """The class of a kind; raises ArtifactError for an unknown or broken one."""
    known = available("predictors") | available("detectors")
    if kind not in known:
        raise ArtifactError(f"'{kind}' is no kind that is installed. {did_you_mean(kind, known)}")
    module, _, name = known[kind].partition(":")
    try:
        found: type[Storable] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ArtifactError(f"the kind '{kind}' ({known[kind]}) cannot be imported: {error}") from (
            error
        )
    return found
