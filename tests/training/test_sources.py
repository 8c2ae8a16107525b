"""From files to conversations: every form, and what is said of what has none."""

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Value

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.training.corpus import Stream
from dspy_diffusion_infill.training.sources import read
from tests.training.conftest import write_rows

pytestmark = pytest.mark.usefixtures("own_cache")

FEEDBACK = {
    "instruction": "Write a line.", "response": "A line.", "reference_answer": "The line.",
    "criteria": "Is it one line?", **{f"score{n}_description": f"grade {n}" for n in range(1, 6)},
    "feedback": "It is one.", "score": "5", "annotator": "nobody",
}  # fmt: skip
GOOD = {"prompt": "Hi.", "response": "4"}
FORMS = [
    {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "4"}], "id": 1},
    {"prompt": "Hi.", "response": "4"},
    {"prompt": "Hi.", "completion": "4"},
    {"instruction": "Hi.", "output": "4", "orig_score": "4"},
]


def contents(source: str, *, streaming: bool = False) -> list[list[tuple[str, str]]]:
    rows = read(source, streaming=streaming)
    return [[(turn["role"], turn["content"]) for turn in row["messages"]] for row in rows]


@pytest.mark.parametrize("row", FORMS, ids=["messages", "response", "completion", "output"])
def test_every_form_gives_the_same_conversation(row: dict, tmp_path: Path):
    source = write_rows(tmp_path / "rows.jsonl", [row])
    assert contents(source) == [[("user", "Hi."), ("assistant", "4")]]
    assert contents(source, streaming=True) == contents(source)


def test_json_parquet_and_folders_are_read(tmp_path: Path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "rows.json").write_text(json.dumps(FORMS[1:2]))
    Dataset.from_list(FORMS[1:2]).to_parquet(tmp_path / "rows.parquet")
    write_rows(tmp_path / "folder" / "train.jsonl", FORMS[1:2])
    for name in ("rows.json", "rows.parquet", "folder"):
        assert contents(str(tmp_path / name)) == [[("user", "Hi."), ("assistant", "4")]]


@pytest.mark.parametrize(
    ("folder", "names"),
    [
        ("plain", ["train_extra.jsonl", "feedback.jsonl"]),
        ("plain", ["feedback.jsonl", "feedback-eval.json", "deep/er/latest-test.JSONL"]),
        ("part.parquet", ["part-0.jsonl"]),
        ("f[6]", ["a.jsonl"]),
    ],
)
def test_every_file_of_a_folder_is_read_however_it_and_the_folder_are_named(
    folder: str, names: list[str], tmp_path: Path
):
    for number, name in enumerate(names):
        (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(tmp_path / folder / name, [{"prompt": name, "response": number}])
    write_rows(tmp_path / folder / ".hidden.jsonl", [{"prompt": "hidden", "response": "0"}])
    (tmp_path / folder / "empty.jsonl").touch()
    (tmp_path / folder / "notes.txt").write_text("These are notes.")
    found = contents(str(tmp_path / folder), streaming=True)
    assert sorted(found) == sorted(
        [("user", name), ("assistant", str(number))] for number, name in enumerate(names)
    )


def test_a_folder_with_the_name_of_a_kind_of_file_holds_its_own_files_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "json").mkdir()
    write_rows(tmp_path / "json" / "a.jsonl", [GOOD])
    write_rows(tmp_path / "private.jsonl", [{"prompt": "secret", "response": "secret"}])
    monkeypatch.chdir(tmp_path)
    for name in ("json", "./json"):
        assert contents(name, streaming=True) == [[("user", "Hi."), ("assistant", "4")]]
    with pytest.raises(SettingsError, match=r"got 'parquet': there is no such folder\."):
        read("parquet")


def test_a_folder_of_two_kinds_of_files_or_of_none_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"it holds no such file\."):
        read(str(tmp_path))
    write_rows(tmp_path / "a.jsonl", [GOOD])
    (tmp_path / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingsError, match=r"it holds JSON and Parquet files\. Give each kind a folder"):
        read(str(tmp_path))


def test_a_feedback_record_becomes_the_judges_prompt_and_reply(tmp_path: Path):
    (((_, prompt), (_, reply)),) = contents(write_rows(tmp_path / "rows.jsonl", [FEEDBACK]))
    assert prompt.startswith("###Task Description:")
    assert "###Response to evaluate:\nA line.\n" in prompt
    assert prompt.endswith("[Is it one line?]\n" + "\n".join(f"Score {n}: grade {n}" for n in range(1, 6))
                           + "\n\n###Feedback: ")  # fmt: skip
    assert reply == "It is one. [RESULT] 5"
    (((_, _), (_, as_float)),) = contents(write_rows(tmp_path / "floats.jsonl", [FEEDBACK | {"score": 5.0}]))
    assert as_float == reply


def chat(content: Any) -> dict:
    return {"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "4"}]}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Hi.", "response": 4},
        {
            "prompt": [{"role": "user", "content": "Hi."}],
            "completion": [{"role": "assistant", "content": "4"}],
        },
        chat([{"type": "text", "text": "H"}, {"type": "text", "text": "i."}]),
        {"instruction": "Hi.", "input": "", "output": "4"},
        {"instruction": "Hi.", "input": None, "output": "4"},
    ],
)
def test_labels_parts_turns_and_empty_inputs_are_read_as_they_are_meant(row: dict, tmp_path: Path):
    source = write_rows(tmp_path / "data[1].jsonl", [row])
    assert contents(source) == [[("user", "Hi."), ("assistant", "4")]]


def test_numbers_are_read_as_they_were_written(tmp_path: Path):
    values = [4.0, 0.1, -2.5, 1e300, 3.0e8, 2**60 + 1]
    rows = [{"prompt": "Hi.", "response": [{"role": "assistant", "content": value}]} for value in values[:5]]
    source = write_rows(tmp_path / "a.jsonl", rows)
    single = Dataset.from_dict({"prompt": ["Hi."] * 3, "response": [0.1, 4.0, 2.75]})
    single.cast_column("response", Value("float32")).to_parquet(tmp_path / "single.parquet")
    whole = write_rows(tmp_path / "b.jsonl", [{"prompt": "Hi.", "response": values[5]}])
    found = [[turns[1][1] for turns in contents(name, streaming=True)]
             for name in (source, str(tmp_path / "single.parquet"), whole)]  # fmt: skip
    assert found == [
        ["4", "0.1", "-2.5", "1e+300", "300000000"], ["0.1", "4", "2.75"], ["1152921504606846977"]
    ]  # fmt: skip


@pytest.mark.parametrize("streaming", [False, True])
def test_texts_that_look_like_something_else_are_read_as_they_are(streaming: bool, tmp_path: Path):
    """Arrow takes a column of dates for times, and writes those of a later file in its own way."""
    dates = ["2021-01-12", "2021-01-12T10:00:00Z"]
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "folder" / "a.jsonl", [{"prompt": "When?", "response": "Some day."}])
    write_rows(tmp_path / "folder" / "b.jsonl", [{"prompt": "When?", "response": date} for date in dates])
    found = contents(str(tmp_path / "folder"), streaming=streaming)
    assert [turns[1][1] for turns in found] == ["Some day.", *dates]
    alone = contents(str(tmp_path / "folder" / "b.jsonl"), streaming=streaming)
    assert [turns[1][1] for turns in alone] == dates


def test_a_changed_file_is_read_anew(tmp_path: Path):
    source = write_rows(tmp_path / "a.jsonl", [{"prompt": "Hi.", "response": "4"}])
    assert contents(source) == [[("user", "Hi."), ("assistant", "4")]]
    write_rows(tmp_path / "a.jsonl", [{"prompt": "Hi.", "response": "5"}])
    assert contents(source) == [[("user", "Hi."), ("assistant", "5")]]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_broken_file_of_a_folder_is_named(streaming: bool, tmp_path: Path):
    write_rows(tmp_path / "a.jsonl", [GOOD])
    (tmp_path / "b.json").write_text('[{"prompt": "a", "response": "b"}, 4]')
    with pytest.raises(SettingsError, match=r"data must be .*: item 2 of b\.json is no object with columns"):
        list(read(str(tmp_path), streaming=streaming))
    (tmp_path / "b.json").write_text('[{"prompt": "a", "response": "b"}')
    with pytest.raises(SettingsError, match=r"data must be .*: the array of b\.json is not JSON: "):
        list(read(str(tmp_path), streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_line_that_breaks_late_is_named(streaming: bool, tmp_path: Path):
    (tmp_path / "a.jsonl").write_text((json.dumps(GOOD) + "\n") * 150 + "{\n")
    with pytest.raises(SettingsError, match=r"data must be .*a\.jsonl': line 151 is not JSON: "):
        list(read(str(tmp_path / "a.jsonl"), streaming=streaming))


def test_what_an_instruction_is_about_is_read_with_it(tmp_path: Path):
    row = {"instruction": "Translate.", "input": "bonjour", "output": "hello"}
    assert contents(write_rows(tmp_path / "a.jsonl", [row])) == [
        [("user", "Translate.\n\nbonjour"), ("assistant", "hello")]
    ]


UNFIT = [
    (
        [GOOD, {"prompt": "Hi."}],
        r"response must be text.*got None, in row 2 of '.*rows\.jsonl'\. Correct that row",
    ),
    ([chat("Hi."), {"messages": None}], "messages must be a list of turns; got None, in row 2"),
    ([{"prompt": float("nan"), "response": 1}], "prompt must be text, a number.*got nan, in row 1"),
    ([{"messages": "Hi."}], "messages must be a list of turns; got 'Hi.', in row 1"),
    ([{"messages": [{"role": "user"}]}], "content of the user turn must be text.*got None, in row 1"),
    ([chat(None)], "content of the user turn must be text.*got None, in row 1"),
    ([chat([{"type": "image", "url": "x"}])], "content of the user turn must be text.*got .*image"),
    (
        [{"messages": [{"role": "tool", "content": "4"}]}],
        "role must be one of 'system', 'user', 'assistant'; got 'tool'",
    ),
    (
        [{"messages": [{"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}],
        "must say all in its content, with no tool_calls; got .*in row 1",
    ),
    (
        [GOOD, {"prompt": "Hi.", "response": "\ud800"}],
        r"response must be .*UTF-8 can hold.*got '\\ud800', in row 2",
    ),
    ([FEEDBACK | {"reference_answer": None}], "reference_answer must be text.*got None, in row 1"),
]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("rows", "why"), UNFIT)
def test_a_row_without_its_form_is_refused_by_number(
    rows: list[dict], why: str, streaming: bool, tmp_path: Path
):
    source = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(SettingsError, match=why):
        list(read(source, streaming=streaming))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"", r"data must hold at least one row; '.*' holds none"),
        (b"[ ]\n", r"data must hold at least one row; '.*' holds none"),
        (
            b'{"prompt": "a", "response": "b"}\n{"prompt": "x", \n',
            r"got '.*rows\.jsonl': line 2 is not JSON: ",
        ),
        (
            '{"prompt": "\u00e9", "response": "b"}\n'.encode("latin-1"),
            "line 1 is not UTF-8. Save the file as UTF-8",
        ),
        (b'{"prompt": "a", "response": "b"}\n4\n', "line 2 is no object with columns"),
    ],
)
def test_a_broken_file_is_refused_by_line(text: bytes, why: str, streaming: bool, tmp_path: Path):
    (tmp_path / "rows.jsonl").write_bytes(text)
    with pytest.raises(SettingsError, match=why):
        read(str(tmp_path / "rows.jsonl"), streaming=streaming)


def test_sources_that_are_none_are_refused_with_their_reason(tmp_path: Path):
    with pytest.raises(SettingsError, match="got an empty text"):
        read("")
    with pytest.raises(SettingsError, match=r"forms: messages; .*prompt, response; .*has question\."):
        read(write_rows(tmp_path / "odd.jsonl", [{"question": "Why?"}]))
    with pytest.raises(
        SettingsError, match=r"data must be a \.json, .*got '.*none\.jsonl': there is no such file"
    ):
        read(str(tmp_path / "none.jsonl"))
    (tmp_path / "folder").mkdir()
    write_rows(tmp_path / "folder" / "a.jsonl", [GOOD])
    write_rows(tmp_path / "folder" / "b.jsonl", [{"question": "Why?"}])
    with pytest.raises(SettingsError, match=r"prompt must be text, .*got None, in row 2 of '.*folder'"):
        read(str(tmp_path / "folder"))


def test_a_stream_that_breaks_off_is_refused_in_one_sentence():
    class Broken:
        def shuffle(self, **_: object):
            return self

        def __iter__(self):
            raise ValueError("JSON parse error")

    with pytest.raises(SettingsError, match="readable to their end; this stream is not: JSON parse error"):
        Stream(Broken(), seed=0, kept=1)[0]  # pyright: ignore[reportArgumentType]


FOUND = [[("user", "Hi."), ("assistant", "4")]]


def test_parquet_files_are_read_however_their_folder_is_named(tmp_path: Path):
    folder = tmp_path / "f[6]"
    folder.mkdir()
    Dataset.from_list([GOOD]).to_parquet(folder / "a.parquet")
    assert contents(str(folder)) == FOUND


def test_files_of_hidden_folders_are_left_out_but_the_source_may_lie_in_one(tmp_path: Path):
    source = tmp_path / ".cache" / "data"
    (source / ".git").mkdir(parents=True)
    write_rows(source / "a.jsonl", [GOOD])
    write_rows(source / ".git" / "b.jsonl", [{"prompt": "secret", "response": "secret"}])
    assert contents(str(source)) == FOUND


def test_files_of_a_folder_come_in_the_order_of_their_names(tmp_path: Path):
    """Whatever order the file system has them in: else another machine would hold other rows out."""
    names = [f"{number:02}.jsonl" for number in range(30)]
    for name in sorted(names, key=hash):
        write_rows(tmp_path / name, [{"prompt": name, "response": "1"}])
    assert [turns[0][1] for turns in contents(str(tmp_path), streaming=True)] == names


def test_the_form_is_told_by_all_rows_looked_at(tmp_path: Path):
    """JSON leaves columns out; the row that lacks one is named."""
    rows = [{"prompt": "Hi."}, GOOD]
    with pytest.raises(ValueError, match=r"response must be text.*got None, in row 1"):
        list(read(write_rows(tmp_path / "a.jsonl", rows)))


def test_a_score_that_is_a_float_in_a_text_is_written_as_a_whole_number(tmp_path: Path):
    ((_, (_, reply)),) = contents(write_rows(tmp_path / "a.jsonl", [FEEDBACK | {"score": "5.0"}]))
    assert reply == "It is one. [RESULT] 5"


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + json.dumps(GOOD) + "\n",
        "\ufeff" + json.dumps([GOOD]),
        "\n" + json.dumps([GOOD]),
        "\n \n" + json.dumps(GOOD) + "\n\n",
    ],
    ids=["mark, lines", "mark, array", "blank, array", "blank lines"],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_a_mark_of_utf8_and_blank_lines_are_passed_over(text: str, streaming: bool, tmp_path: Path):
    """As editors on Windows write files."""
    (tmp_path / "a.json").write_bytes(text.encode())
    assert contents(str(tmp_path / "a.json"), streaming=streaming) == FOUND


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_rows(tmp_path / "a.jsonl", [GOOD])
    assert contents("~/a.jsonl") == FOUND
