"""What a server is told by its environment."""

from pathlib import Path

import pytest

from lengthpred.errors import SettingsError
from lengthpred.serving.settings import ServingSettings


def test_what_goes_into_the_environment_comes_out() -> None:
    told = ServingSettings(
        artifact="a b",
        policy="gittins",
        quantile=0.75,
        allow_unordered=True,
        feedback=Path("/x/y"),
        api_key_digests=("ab", "cd"),
        max_overtake_s=60,
    )
    variables = told.to_environment()
    assert variables["LENGTHPRED_ARTIFACT"] == "a b" and len(variables) == 7
    assert ServingSettings.from_environment({**variables, "PATH": "/bin"}) == told
    assert ServingSettings.from_environment({}) == ServingSettings()
    assert told.ordering.quantile == 0.75 and told.ordering.max_overtake_s == 60


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"LENGTHPRED_DEADLINE_MS": "fast"}, "deadline_ms"),
        ({"LENGTHPRED_DEADLINE_MS": "-1"}, "greater than 0"),
        ({"LENGTHPRED_POLICY": "srpt"}, "policy"),
        ({"LENGTHPRED_QUANTILE": "1"}, "quantile"),
        ({"LENGTHPRED_DEADLINE": "25"}, "Did you mean 'LENGTHPRED_DEADLINE_MS'"),
        ({"LENGTHPRED_ARTEFACT": "x"}, "Did you mean 'LENGTHPRED_ARTIFACT'"),
    ],
)
def test_what_does_not_fit_is_said(variables: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        ServingSettings.from_environment(variables)


def test_what_is_nobodys_setting_is_left_alone() -> None:
    other = {"LENGTHPRED_SHARED_DATA": "/data", "LENGTHPRED_POLICY": ""}
    assert ServingSettings.from_environment(other) == ServingSettings()
