"""Splits: no group cut, no content on two sides, the same bytes twice."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lengthpred.data.groups import joined_groups
from lengthpred.data.splits import PARTS, SplitSettings, split_table
from lengthpred.data.table import SCHEMA, write_table
from lengthpred.errors import DataError, SettingsError
from tests.data_files import rows_of

Row = dict[str, Any]


def table(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "t.parquet"
    full = [{"model": "m", "output_tokens": [i], **row} for i, row in enumerate(rows)]
    write_table(path, [pa.RecordBatch.from_pylist(full, schema=SCHEMA)], force=True)
    return path


def conversations(n: int = 600, seed: int = 0) -> list[Row]:
    """Rows in about n/3 groups; one in eight repeats a prompt that others have."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for i in range(n):
        repeated = rng.random() < 0.125
        turn = i % 3
        rows.append(
            {
                "id": str(i),
                "group": f"g{i // 3}",
                "prompt": f"again {rng.integers(20)}" if repeated else f"ask {i}",
                "context": "" if turn == 0 or repeated else f"before {i}",
                "turn": turn,
                "reply_tokens": [5] * turn,
                "prompt_tokens": 1 + i % 7,
                "domain": ["law", "code", "chat", "sums"][i // 30 % 4],
                "language": "en",
            }
        )
    return rows


def parts(folder: Path) -> dict[str, list[Row]]:
    return {name: rows_of(folder / f"{name}.parquet") for name in PARTS}


def check_apart(found: Mapping[str, list[Row]]) -> None:
    """No group and no content in two of: train, calibration, test in distribution, held out."""
    sides = {**found, "test": [r for r in found["test"] if not r["ood"]]}
    sides["ood"] = [r for r in found["test"] if r["ood"]]
    for key in (lambda r: r["group"], lambda r: (r["context"], r["prompt"])):
        seen: dict[Any, str] = {}
        for name, rows in sides.items():
            for row in rows:
                assert seen.setdefault(key(row), name) == name


@pytest.mark.parametrize("by", ["group", "domain"])
@pytest.mark.parametrize("seed", range(5))
def test_no_group_is_cut(tmp_path: Path, by: str, seed: int) -> None:
    rows = conversations(seed=seed)
    path, out = table(tmp_path, rows), tmp_path / "s"
    report = split_table(path, out, SplitSettings(by=by, seed=seed))
    found = parts(out)
    check_apart(found)
    total = sum(len(part) for part in found.values())
    assert total + sum(report.left_out.values()) == len(rows)
    assert sum(report.rows.values()) == total
    if by == "group":
        assert total == len(rows) and report.rows["train"] == pytest.approx(420, abs=30)
    else:
        assert {r["domain"] for r in found["test"] if r["ood"]} == set(report.held_out)
        assert not {r["domain"] for r in found["train"]} & set(report.held_out)


def test_rows_arrive_unchanged_and_in_order(tmp_path: Path) -> None:
    rows = conversations(90)
    path, out = table(tmp_path, rows), tmp_path / "s"
    split_table(path, out)
    before = {row["id"]: row for row in rows_of(path)}
    for part in parts(out).values():
        assert [int(row["id"]) for row in part] == sorted(int(row["id"]) for row in part)
        for row in part:
            assert row == {**before[row["id"]], "ood": False}


@pytest.mark.parametrize("by", ["group", "domain", "cluster"])
def test_the_same_bytes_twice_and_others_for_another_seed(tmp_path: Path, by: str) -> None:
    if by == "cluster":
        pytest.importorskip("sklearn")
    path = table(tmp_path, conversations())
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        split_table(path, tmp_path / name, SplitSettings(by=by, seed=seed))
    for part in PARTS:
        one, two, three = ((tmp_path / n / f"{part}.parquet").read_bytes() for n in "abc")
        assert one == two != three


def test_clusters_hold_out_what_looks_alike(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    words = ["sing songs about rivers", "integrate cosine over", "refactor the python class"]
    rows = [{"group": str(i), "prompt": f"{words[i % 3]} {i}", "domain": None} for i in range(300)]
    rows[0]["domain"] = "given"
    settings = SplitSettings(by="cluster", clusters=3, ood_share=0.34)
    report = split_table(table(tmp_path, rows), tmp_path / "s", settings)
    found = parts(tmp_path / "s")
    held = {row["prompt"][:4] for row in found["test"] if row["ood"]}
    assert len(held) == 1 and report.rows["test (OOD)"] == 100
    assert not held & {row["prompt"][:4] for row in found["train"]}
    domains = {row["domain"] for part in found.values() for row in part}
    assert "given" in domains and len(domains) == 4


def test_languages_are_detected_where_absent(tmp_path: Path) -> None:
    texts = ["Write about the sea", "Schreibe mir etwas über das Meer", "海についての詩"]
    rows = [{"group": str(i), "prompt": f"{texts[i % 3]} {i}"} for i in range(90)]
    settings = SplitSettings(by="language", hold_out=["ja"])
    report = split_table(table(tmp_path, rows), tmp_path / "s", settings)
    assert report.rows["test (OOD)"] == 30 and report.held_out == ["ja"]


def test_filters(tmp_path: Path) -> None:
    rows = conversations()
    rows[0]["reply_tokens"] = [3]  # begins with the assistant: no first turn
    settings = SplitSettings(
        turns="first", max_prompt_tokens=5, max_output_tokens=500, unique_prompts=True
    )
    report = split_table(table(tmp_path, rows), tmp_path / "s", settings)
    assert report.left_out["not a first turn"] == 401
    kept = [row for part in parts(tmp_path / "s").values() for row in part]
    assert all(row["turn"] == 0 and row["prompt_tokens"] <= 5 for row in kept)
    assert all(row["output_tokens"][0] <= 500 for row in kept) and "0" not in {
        r["id"] for r in kept
    }
    prompts = [row["prompt"] for row in kept]
    assert len(set(prompts)) == len(prompts)
    assert len(kept) + sum(report.left_out.values()) == len(rows)


def test_rows_of_a_group_that_is_partly_held_out_are_counted(tmp_path: Path) -> None:
    rows = [{"group": f"g{i // 3}", "prompt": str(i), "domain": "a"} for i in range(60)]
    for i in (0, 1, 5):
        rows[i]["domain"] = "b"  # g0 is mostly b, g1 mostly a
    settings = SplitSettings(by="domain", hold_out=["b"])
    report = split_table(table(tmp_path, rows), tmp_path / "s", settings)
    assert report.rows["test (OOD)"] == 2
    assert report.left_out == {"in a group that is partly held out": 2}
    check_apart(parts(tmp_path / "s"))


def test_a_table_with_the_required_columns_only(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = tmp_path / "t.parquet"
    columns = {"prompt": [f"p{i}" for i in range(50)], "output_tokens": range(50), "model": "m"}
    columns["model"] = ["m"] * 50
    pq.write_table(pa.table({k: list(v) for k, v in columns.items()}), path)
    report = split_table(path, tmp_path / "s")
    assert sum(report.rows.values()) == 50
    assert list(parts(tmp_path / "s")["test"][0]) == SCHEMA.names


def test_what_cannot_be_split(tmp_path: Path) -> None:
    path = table(tmp_path, conversations(90))
    with pytest.raises(SettingsError, match="Did you mean 'domain'"):
        SplitSettings(by="domian")
    with pytest.raises(SettingsError, match="sum to 1"):
        SplitSettings(fractions=(0.5, 0.1, 0.1))
    with pytest.raises(SettingsError, match="Did you mean 'law'"):
        split_table(path, tmp_path / "s", SplitSettings(by="domain", hold_out=["laws"]))
    with pytest.raises(DataError, match="two or more"):
        split_table(path, tmp_path / "s", SplitSettings(by="language"))
    with pytest.raises(DataError, match="no row"):
        split_table(path, tmp_path / "s", SplitSettings(max_prompt_tokens=0))
    with pytest.raises(DataError, match="too few"):
        split_table(table(tmp_path, conversations(3)), tmp_path / "s")
    assert not (tmp_path / "s").exists()
    path = table(tmp_path, conversations(90))
    split_table(path, tmp_path / "s")
    with pytest.raises(DataError, match="--force"):
        split_table(path, tmp_path / "s")
    split_table(path, tmp_path / "s", force=True)
    kept = (tmp_path / "s" / "train.parquet").read_bytes()
    with pytest.raises(DataError, match=r"train\.parquet is the table to be split"):
        split_table(type(path)(tmp_path / "s" / "train.parquet"), tmp_path / "s", force=True)
    assert (tmp_path / "s" / "train.parquet").read_bytes() == kept
    # What reads a part says what is wrong with a length that is none.
    nothing = [{**row, "output_tokens": [None]} for row in conversations(90)]
    assert split_table(table(tmp_path, nothing), tmp_path / "n").rows["train"]
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == sorted(
        f"{name}.parquet" for name in PARTS
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=40))
def test_joined_groups_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    group, content = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
    joined = joined_groups(group, content)
    label = list(range(len(pairs)))
    for _ in pairs:  # the smallest label spreads until nothing changes
        for i, a in enumerate(pairs):
            for j, b in enumerate(pairs):
                if a[0] == b[0] or a[1] == b[1]:
                    label[i] = label[j] = min(label[i], label[j])
    first = {value: number for number, value in enumerate(dict.fromkeys(label))}
    assert joined.tolist() == [first[value] for value in label]
