"""Kinds of predictors and detectors, by name.

Other packages add theirs with entry points in the groups `lengthpred.predictors` and
`lengthpred.detectors`; a name that is taken here cannot be taken over.
"""

import importlib
from importlib.metadata import entry_points

from lengthpred.artifact import Storable
from lengthpred.errors import ArtifactError, LengthPredError, SettingsError, did_you_mean

__all__ = ["DETECTORS", "PREDICTORS", "available", "resolve"]

PREDICTORS = {
    "average": "lengthpred.models.average:Average",
    "boosted": "lengthpred.models.boosted:Boosted",
    "cascade": "lengthpred.models.cascade:Cascade",
    "conformal": "lengthpred.models.conformal:Conformal",
    "constant": "lengthpred.models.controls:Constant",
    "distilled": "lengthpred.models.distilled:Distilled",
    "encoder": "lengthpred.models.encoder:Encoder",
    "histogram": "lengthpred.models.histogram:Histogram",
    "prompt-length": "lengthpred.models.controls:PromptLength",
    "ranker": "lengthpred.models.ranker:Ranker",
    "slm": "lengthpred.models.slm:GenerateAndCount",
    "slm-prefill": "lengthpred.models.slm_prefill:Prefill",
    "slm-states": "lengthpred.models.slm_states:StatedLength",
}
DETECTORS = {
    "knn": "lengthpred.models.detectors:NearestNeighbours",
    "mahalanobis": "lengthpred.models.detectors:Mahalanobis",
}


def available(group: str = "predictors") -> dict[str, str]:
    """Every kind of `group` ("predictors" or "detectors"), as "module:Class" by name."""
    groups = {"predictors": PREDICTORS, "detectors": DETECTORS}
    if group not in groups:
        raise SettingsError(f"'{group}' is no group of kinds. {did_you_mean(group, groups)}")
    points = entry_points(group=f"lengthpred.{group}")
    return {point.name: f"{point.module}:{point.attr}" for point in points} | groups[group]


def resolve(kind: str) -> type[Storable]:
    """The class of a kind; raises ArtifactError for an unknown or broken one."""
    known = PREDICTORS | DETECTORS
    if kind not in known:  # asking every installed package takes milliseconds
        known = available("predictors") | available("detectors")
    if kind not in known:
        raise ArtifactError(f"'{kind}' is no kind that is installed. {did_you_mean(kind, known)}")
    module, _, name = known[kind].partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except LengthPredError:
        raise  # it says already what to install
    except Exception as error:  # other people's modules raise what they like
        raise ArtifactError(
            f"the kind '{kind}' ({known[kind]}) cannot be imported: {error!r}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, Storable)):
        raise ArtifactError(f"the kind '{kind}' ({known[kind]}) is no subclass of Storable")
    return found
