"""The journal: every whole line is kept, for its owner alone, and for this very run."""

import json
import os
import stat
import subprocess
import sys

import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.search.journal import is_faithful, open_journal

RUN = {"program": "p1", "metric": "m1"}
RECORDS = {("valset", "a", 0): {"score": 1.0}, ("valset", "a", 1): {"score": None, "failure": "\n\ud800"}}


@pytest.fixture
def file(tmp_path):
    """A journal of two records."""
    with open_journal(tmp_path, RUN, resume=True) as journal:
        for place, record in RECORDS.items():
            journal.write(place, record)
    return tmp_path / "journal.jsonl"


def found_in(folder, resume=True):
    with open_journal(folder, RUN, resume=resume) as journal:
        return {place: record for place in RECORDS if (record := journal.find(place)) is not None}


def test_what_was_written_is_found_by_the_next_process(file, tmp_path):
    assert found_in(tmp_path) == RECORDS
    assert len(file.read_text().splitlines()) == 3


def test_a_file_cut_at_any_byte_keeps_its_whole_lines_and_goes_on(file, tmp_path):
    whole = file.read_bytes()
    ends = [n + 1 for n, byte in enumerate(whole) if byte == ord("\n")]
    for cut in range(len(whole)):
        file.write_bytes(whole[:cut])
        records = max(0, sum(end <= cut for end in ends) - 1)
        with open_journal(tmp_path, RUN, resume=True) as journal:
            assert [journal.find(place) for place in RECORDS] == [
                record if n < records else None for n, record in enumerate(RECORDS.values())
            ]
            journal.write(("valset", "b", 0), {"score": 0.5})
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert (len(lines), lines[0], lines[-1]["score"]) == (records + 2, {"run": RUN}, 0.5)


@pytest.mark.parametrize(
    ("run", "aspect"), [(RUN | {"metric": "m2"}, "metric"), (RUN | {"seed": "1"}, "seed"), ({}, ".*metric")]
)
def test_another_run_is_refused_by_what_differs_and_changes_nothing(run, aspect, file, tmp_path):
    before = file.read_bytes()
    with (
        pytest.raises(SettingsError, match=rf"of a run with another {aspect}\. Use another folder"),
        open_journal(tmp_path, run, resume=True),
    ):
        pass
    assert file.read_bytes() == before


def test_a_broken_line_in_the_middle_is_refused(file, tmp_path):
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"garbage\n" + lines[2])
    with pytest.raises(SettingsError, match=r"line 2 is not"):
        found_in(tmp_path)


JUNK = [b"5", b"null", b'{"x": 1}', b'{"at": 1}', b'{"at": {}}', b'{"at": [{}]}', b"\0\0", b"\xff"]


@pytest.mark.parametrize("junk", JUNK)
def test_a_line_that_is_no_record_is_dropped_at_the_end_and_refused_before(junk, file, tmp_path):
    whole = file.read_bytes()
    file.write_bytes(whole + junk + b"\n")
    assert found_in(tmp_path) == RECORDS
    assert file.read_bytes() == whole
    first, *others = whole.splitlines(keepends=True)
    for lines, number in (([first, junk + b"\n", *others], 2), ([junk + b"\n"], 1)):
        file.write_bytes(b"".join(lines))
        with pytest.raises(SettingsError, match=f"must be a record; line {number} is not"):
            found_in(tmp_path)
        assert file.read_bytes() == b"".join(lines)


def test_what_is_no_folder_is_refused(file):
    with pytest.raises(SettingsError, match=r"log_dir must be a folder, or one .* got .*journal.jsonl"):
        found_in(file)


def test_without_resume_a_run_begins_anew(file, tmp_path):
    assert found_in(tmp_path, resume=False) == {}
    assert file.read_text() == json.dumps({"run": RUN}) + "\n"


def test_two_runs_in_one_folder_are_refused(tmp_path):
    with (
        open_journal(tmp_path, RUN, resume=True),
        pytest.raises(SettingsError, match=rf"one run at a time; got .*which process {os.getpid()} uses"),
        open_journal(tmp_path, RUN, resume=True),
    ):
        pass


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        "import os, signal\n"
        "from dspy_diffusion_infill.search.journal import open_journal\n"
        f"with open_journal({str(tmp_path)!r}, {RUN!r}, resume=True) as journal:\n"
        "    journal.write(('valset', 'a', 0), {'score': 1.0})\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
    assert found_in(tmp_path) == {("valset", "a", 0): {"score": 1.0}}


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_the_files_are_the_owners_alone(file, tmp_path):
    assert {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()} == {0o600}


def test_without_a_folder_there_is_no_journal():
    with open_journal(None, RUN, resume=True) as journal:
        assert journal is None


@pytest.mark.parametrize(
    ("value", "faithful"),
    [({"a": [1, None, "x"]}, True), ((1, 2), False), ({1: 2}, False), (object(), False), ({"a": {1}}, False)],
)
def test_what_json_would_change_is_not_faithful(value, faithful):
    assert is_faithful(value) is faithful
