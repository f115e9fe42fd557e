"""The shipped recipes: each can be read, says what it follows, and is found by its name."""

from pathlib import Path
from typing import Any

import pytest

from lengthpred.errors import SettingsError
from lengthpred.training.fit import KINDS
from lengthpred.training.recipe import (
    Paper,
    find_recipe,
    kind_of,
    read_paper,
    read_recipe,
    shipped,
)
from lengthpred.training.settings import EncoderSettings
from lengthpred.training.zoo import method, read_recipes

OURS = {"boosted", "distilled", "encoder"}
WANTED: dict[str, tuple[str, dict[str, Any]]] = {
    "qlm": ("histogram", {}),
    "s-qlm": ("sqlm", {}),
    "magnus": ("boosted", {"booster": "rf"}),
    "hu": ("encoder", {"head": "point", "pooling": "last"}),
    "ssjf": ("encoder", {"head": "point", "pooling": "first"}),
    "s3": ("encoder", {"head": "classes", "classes": 10}),
    "classes": ("encoder", {"head": "classes", "classes": 3}),
    "mu-serve": ("encoder", {"head": "classes", "pooling": "first"}),
    "trail": ("encoder", {"head": "classes", "classes": 10, "freeze": True}),
    "ltr": ("encoder", {"head": "listmle"}),
    "pars": ("encoder", {"head": "pairwise"}),
}


def test_all_of_the_literature_is_there() -> None:
    assert shipped().keys() == WANTED.keys() | OURS


@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_shipped_recipe_can_be_read(name: str) -> None:
    path = shipped()[name]
    kind = kind_of(path)
    settings = read_recipe(path, kind, KINDS[kind].settings)
    paper = read_paper(path)
    assert (paper is None) == (name in OURS)
    if paper is not None:
        wanted, values = WANTED[name]
        assert kind == wanted
        assert {key: getattr(settings, key) for key in values} == values
        assert paper.title and paper.source and paper.differs.endswith(".")


@pytest.mark.parametrize("name", sorted(n for n in WANTED if WANTED[n][0] == "encoder"))
def test_the_papers_saw_text_alone_and_all_of_them_read_alike(name: str) -> None:
    """So that one cache serves all, and only what the papers differ in differs."""
    (recipe,) = read_recipes([name])
    settings = recipe.settings
    assert isinstance(settings, EncoderSettings)
    plain = EncoderSettings()
    assert not settings.numbers
    assert (settings.encoder, settings.tokens, settings.context_tokens) == (
        plain.encoder,
        plain.tokens,
        plain.context_tokens,
    )


def test_cheap_ones_come_first_and_what_learns_from_another_last() -> None:
    names = [recipe.name for recipe in read_recipes(sorted(shipped()))]
    assert set(names[:4]) == {"boosted", "magnus", "qlm", "s-qlm"} and names[-1] == "distilled"


def test_what_stands_in_is_said_and_originals_replace_it() -> None:
    given = {recipe.name: recipe for recipe in read_recipes(list(shipped()))}
    assert given["ltr"].stand_in == "MiniLM in place of opt-125m"
    assert given["magnus"].stand_in == "text features in place of LaBSE"
    assert given["s-qlm"].stand_in == "boosted in place of Llama-3.2-1B-Instruct"
    assert given["trail"].stand_in == "MiniLM"  # of the target model itself
    assert not given["qlm"].stand_in and not given["encoder"].stand_in
    theirs = {recipe.name: recipe for recipe in read_recipes(list(shipped()), originals=True)}
    ltr, sqlm = theirs["ltr"].settings, theirs["s-qlm"].settings
    assert ltr.encoder == "facebook/opt-125m" and not theirs["ltr"].stand_in  # type: ignore[attr-defined]
    assert sqlm.slm.model == "meta-llama/Llama-3.2-1B-Instruct"  # type: ignore[attr-defined]
    assert not theirs["s-qlm"].stand_in
    # A forest has no place for LaBSE, and TRAIL's model is not known: what is true is said.
    assert theirs["magnus"].stand_in == "text features in place of LaBSE"
    assert theirs["trail"].stand_in == "MiniLM"


def test_another_encoder_can_stand_in() -> None:
    (recipe,) = read_recipes(["s3"], encoder="somewhere/tiny")
    assert recipe.settings.encoder == "somewhere/tiny"  # type: ignore[attr-defined]
    assert recipe.stand_in == "tiny in place of distilbert-base-uncased"
    assert method(recipe) == "encoder: 10 classes, pooling first"


def test_a_file_goes_before_a_shipped_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("s3") == shipped()["s3"]
    (tmp_path / "s3").write_text("trees = 3\n")
    assert find_recipe("s3") == Path("s3")
    (tmp_path / "encoder").mkdir()  # as `train encoder --out encoder` made it
    assert find_recipe("encoder") == shipped()["encoder"]
    with pytest.raises(SettingsError, match=r"no recipe at magnos.*Did you mean 'magnus'\?"):
        find_recipe("magnos")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[paper]\ntitle = 'A'", r"\[paper\]: the setting 'differs' is missing"),
        ("[paper]\ntitle = 'A'\ndiffers = 'B.'\nauthor = 'C'", "Did you mean 'authors'"),
        ("paper = 3", r"\[paper\]: "),
    ],
)
def test_a_table_paper_that_does_not_fit(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_recipe(path, "histogram", KINDS["histogram"].settings)
    with pytest.raises(SettingsError, match=said):
        read_paper(path)


def test_a_paper_changes_no_setting(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text("strength = 7.0\n[paper]\ntitle = 'A'\ndiffers = 'B.'\n")
    settings = KINDS["histogram"].settings
    assert read_recipe(path, "histogram", settings).strength == 7  # type: ignore[attr-defined]
    assert read_paper(path) == Paper(title="A", differs="B.")
    with pytest.raises(SettingsError, match="does not name its kind"):
        kind_of(path)
    path.write_text("kind = 'histogramm'")
    with pytest.raises(SettingsError, match="'histogramm', which cannot be trained"):
        read_recipes([str(path)])
    (tmp_path / "s3.toml").write_text("kind = 'histogram'")
    with pytest.raises(SettingsError, match="two recipes are called 's3'"):
        read_recipes(["s3", str(tmp_path / "s3.toml")])
