"""A server that is started for an experiment."""

from pathlib import Path

import pytest

from lengthpred.errors import SettingsError
from lengthpred.eval.bench.server import running_server


@pytest.mark.parametrize("address", [["--uds", "socket"], ["--port=80"], ["--host", "0.0.0.0"]])
def test_it_has_an_address_of_its_own(address: list[str], tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match=f"{address[0][:5]}.* is chosen here: leave it out"),
        running_server("default", ["model", *address], [], tmp_path / "log"),
    ):
        pass
