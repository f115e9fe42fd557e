"""What a user names as an artifact, and the folder that is meant.

A folder wins. The word `default` means the predictor that comes with the package. A text of the
form `org/name` or `org/name@revision` that is no folder means the hub; nothing else ever asks the
network.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lengthpred.hub.names import hub_name

__all__ = ["DEFAULT", "Found", "folder_of"]

DEFAULT = "default"
SHIPPED = Path(__file__).parent / "models" / "default"


@dataclass(frozen=True)
class Found:
    """A folder that may hold an artifact.

    origin  `org/name@commit` where it came from the hub, `default` for what comes with the
            package, "" for a folder of the user's
    """

    folder: Path
    origin: str = ""


@contextmanager
def folder_of(name: str | os.PathLike[str]) -> Iterator[Found]:
    """The folder that `name` means, for as long as it is entered; it need not exist.

    What comes from the hub is copied out of its cache, which is made of links, into plain files:
    all checks of a folder hold for it. Raises ArtifactError as `lengthpred.hub.fetch.fetch`.
    """
    if name == DEFAULT and not Path(name).exists():
        yield Found(SHIPPED, DEFAULT)
        return
    on_hub = hub_name(name)
    if on_hub is None:
        yield Found(Path(name))
        return
    import tempfile

    from lengthpred.hub.fetch import fetch, said_of

    snapshot = fetch(on_hub)
    with tempfile.TemporaryDirectory(prefix="lengthpred-") as scratch:
        folder = Path(scratch)
        snapshot.copy_to(folder)
        with said_of(snapshot.name, folder):
            yield Found(folder, str(snapshot.name))
