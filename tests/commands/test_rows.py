"""Rows of data from files and folders, and what is said of those that cannot be read."""

import json
from pathlib import Path

import pytest

from dspy_diffusion_infill.commands.rows import read_rows
from dspy_diffusion_infill.errors import SettingsError


def written(folder: Path, name: str, text: str, encoding: str = "utf-8") -> str:
    (folder / name).write_bytes(text.encode(encoding))
    return str(folder / name)


def test_a_jsonl_file_gives_typed_values_and_says_where_they_stand(tmp_path: Path):
    file = written(
        tmp_path, "a.jsonl", '{"review": "Dull.", "rating": 2}\n\n{"review": "A\u2028B", "rating": 5}\n'
    )
    rows = read_rows(file)
    assert [row.values for row in rows] == [
        {"review": "Dull.", "rating": 2},
        {"review": "A\u2028B", "rating": 5},
    ]
    assert [row.place for row in rows] == [f"{file}, line 1", f"{file}, line 3"]


def test_a_csv_file_gives_text_and_the_line_its_row_ends_on(tmp_path: Path):
    file = written(tmp_path, "a.CSV", '\ufeffreview,rating\r\n"Dull,\r\nand long",2\r\nFine,3\r\n')
    rows = read_rows(file)
    assert rows[0].values == {"review": "Dull,\r\nand long", "rating": "2"}
    assert [row.place for row in rows] == [f"{file}, line 3", f"{file}, line 4"]


def test_no_more_rows_are_read_than_asked_for(tmp_path: Path):
    file = written(tmp_path, "a.jsonl", '{"n": 1}\n{"n": 2}\nnot read\n')
    assert [row.values["n"] for row in read_rows(file, limit=2)] == [1, 2]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": }\n', r"a\.jsonl, line 2 is not: Expecting value: line 1 column 7"),
        ("a.jsonl", '[{"a": 1}]\n', "a.jsonl, line 1 is a list"),
        ("a.jsonl", "\n", "must hold at least one row; .* holds none"),
        ("a.jsonl", '{"a": 1}\n{"a": "\\ud83d"}\n', r"a\.jsonl, line 2 is not: .*surrogates not allowed"),
        ("a.jsonl", '{"a": ' + "[" * 99999, r"a\.jsonl, line 1 is not: maximum recursion depth"),
        ("a.csv", "a,b\n1,2\n3\n", "must have 2 values, one a column; .*a.csv, line 3 does not"),
        ("a.csv", "a,b\n1,2,3\n", "a.csv, line 2 does not"),
        ("a.csv", "a,a\n1,2\n", r"different names; got \['a', 'a'\]"),
        ("a.csv", 'a\n"open\n', "a.csv, line 2, is no CSV: unexpected end of data"),
        ("a.txt", "hello", "must be in a .jsonl or a .csv file; got '.*a.txt'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(tmp_path: Path, name: str, text: str, message: str):
    with pytest.raises(SettingsError, match=message):
        read_rows(written(tmp_path, name, text))


def test_a_cell_may_be_long(tmp_path: Path):
    (row,) = read_rows(written(tmp_path, "a.csv", f"a,b\n{'x' * 200_000},2\n"))
    assert len(row.values["a"]) == 200_000


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "must be in a file, a folder or on the hub; got no name"),
        ("~nobody1/x.csv", "got '~nobody1/x.csv': Could not determine home"),
        ("x" * 5000, "got 'xxx.*': File name too long"),
        ("dir.csv", "got 'dir.csv': it is a folder"),
    ],
)
def test_a_name_that_is_no_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
):
    (tmp_path / "dir.csv").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message):
        read_rows(source)


def test_a_missing_file_and_another_encoding_are_named(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"got '.*none.jsonl': no such file"):
        read_rows(str(tmp_path / "none.jsonl"))
    with pytest.raises(SettingsError, match=r"must be UTF-8 text; .*latin.csv' is not"):
        read_rows(written(tmp_path, "latin.csv", "a\nä\n", "latin-1"))


def test_a_folder_is_read_by_datasets_split_by_split(tmp_path: Path):
    for split, count in (("train", 1), ("test", 2)):
        rows = [json.dumps({"n": n, "split": split}) for n in range(count)]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(rows))
    assert [row.values for row in read_rows(f"{tmp_path}:test")] == [
        {"n": 0, "split": "test"},
        {"n": 1, "split": "test"},
    ]
    (row,) = read_rows(str(tmp_path))
    assert row.values["split"] == "train"
    assert row.place == f"{tmp_path}, row 0"
    with pytest.raises(SettingsError, match=r"perhaps with :split or :config:split behind it; got '.*:dev'"):
        read_rows(f"{tmp_path}:dev")


def test_a_folder_whose_files_do_not_fit_together_is_refused(tmp_path: Path):
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    (tmp_path / "b.csv").write_text("c\n1\n")
    with pytest.raises(SettingsError, match="file, a folder of data, or a hub id"):
        read_rows(str(tmp_path))
