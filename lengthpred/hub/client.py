"""huggingface_hub, and its errors as sentences."""

from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import Any

from lengthpred.errors import ArtifactError, LengthPredError, require
from lengthpred.hub.names import HubName

__all__ = ["Unreachable", "client", "hub_errors"]

TIMEOUT_S = 10.0


class Unreachable(ArtifactError):
    """The hub cannot be asked now: what its cache holds may do."""


def client() -> tuple[Any, Any]:
    """The package and its `HfApi`; raises MissingExtraError."""
    import lengthpred

    for part in (".constants", ".errors", ""):  # the package loads its parts lazily
        hub = require(f"huggingface_hub{part}", "hub", "A predictor on the hub")
    return hub, hub.HfApi(library_name="lengthpred", library_version=lengthpred.__version__)


@contextmanager
def hub_errors(name: HubName, start: str) -> Iterator[None]:
    """Raise what huggingface_hub raises within as an ArtifactError that begins with `start`.

    Raises Unreachable where asking again, or the cache, may help.
    """
    hub, _ = client()
    errors = hub.errors
    try:
        yield
    except LengthPredError:
        raise
    except errors.OfflineModeIsEnabled as error:
        raise Unreachable(f"{start} the hub is not asked while HF_HUB_OFFLINE is set") from error
    except errors.GatedRepoError as error:
        page = f"{hub.constants.ENDPOINT}/{name.repo}"
        raise ArtifactError(
            f"{start} the hub gives it only to those who accepted its terms: do so at {page}, then "
            "run `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ArtifactError(
            f"{start} the hub has no '{name.repo}', or it is private: check the name, or run "
            "`hf auth login` as one who may use it"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ArtifactError(
            f"{start} '{name.repo}' on the hub has no branch, tag or commit '{name.revision}'"
        ) from error
    except errors.HfHubHTTPError as error:
        raise _refused(error, start) from error
    except Exception as error:  # of what lies below, which differs from version to version
        if isinstance(error, ValueError) and not isinstance(error, JSONDecodeError):
            raise ArtifactError(f"{start} the hub refuses it: {_sentence(error)}") from error
        raise Unreachable(
            f"{start} the hub at {hub.constants.ENDPOINT} cannot be reached ({_sentence(error)})"
        ) from error


def _refused(error: Any, start: str) -> ArtifactError:
    status = getattr(error.response, "status_code", 0)
    if status in (401, 403):
        return ArtifactError(
            f"{start} the hub does not allow it: run `hf auth login` with a token that may "
            f"({_sentence(error)})"
        )
    if status == 429 or status >= 500:
        return Unreachable(f"{start} the hub fails ({_sentence(error)})")
    return ArtifactError(f"{start} the hub refuses it: {_sentence(error)}")


def _sentence(error: Exception) -> str:
    """What another library says, on one line."""
    said = getattr(error, "server_message", None) or str(error)
    return " ".join(said.split())[:300].rstrip(".") or type(error).__name__
