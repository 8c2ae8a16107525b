"""`diffusion-infill optimize`: a program, data and a metric in files; a tuned program and a report out."""

import json
import signal
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import dspy
import pytest
from typer.testing import CliRunner, Result

from dspy_diffusion_infill import CompactAdapter, DiffusionInfill
from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.commands import optimize as command
from dspy_diffusion_infill.commands import tuning
from dspy_diffusion_infill.commands.saving import save
from dspy_diffusion_infill.errors import EvaluationError, SettingsError
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm

# each word in the instructions lets the LM answer five more of the examples
SOURCE = """
import dspy
from tests.doubles import exact, obey, rule_lm

print("a line that is no JSON")
program = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
program.set_lm(rule_lm(obey))

def other(example, prediction, trace=None):
    return exact(example, prediction) / 2
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "tuned_task.py").write_text(SOURCE)
    rows = [json.dumps({"review": str(n), "rating": f"y{n}"}) for n in range(8)]
    (tmp_path / "train.jsonl").write_text("\n".join(rows))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    infiller = ScriptedInfiller("five it", "warm five text")
    monkeypatch.setattr(tuning, "connect", lambda name, denoising: infiller)
    yield tmp_path
    sys.modules.pop("tuned_task", None)


def ran(*options: str) -> Result:
    fixed = ["optimize", "tuned_task:program", "--trainset", "train.jsonl", "--metric", "tuned_task:exact"]
    with dspy.context(adapter=CompactAdapter()):  # the LM answers without field markers
        return CliRunner().invoke(app, [*fixed, *options], catch_exceptions=False)


def test_a_program_is_tuned_from_files_alone_and_loads_again(files: Path):
    done = ran("--budget", "medium")
    assert done.exit_code == 0
    assert "Program tuned_task:program, LM rule/test; examples: 8 in the trainset." in done.stderr
    assert "Metric calls: at most 240, up to 8 of them to score the start" in done.stderr
    assert "score   0 -> 1 on the examples that select" in done.stdout
    assert "before  Rate the text.\nafter   " in done.stdout
    assert "failed" not in done.stdout
    assert (files / "tuned" / "report.html").is_file()
    assert (files / "tuned" / "run.json").is_file()
    loading = done.stdout.split("Load it with\n")[1]
    assert [line[:2] for line in loading.splitlines()] == ["  ", "  "]
    names: dict[str, dspy.Predict] = {}
    exec("\n".join(line.strip() for line in loading.splitlines()), names)
    instructions = names["program"].signature.instructions
    assert "warm" in instructions
    assert "five" in instructions


def test_json_stands_alone_on_standard_output_and_says_what_was_found(files: Path):
    found = json.loads(ran("--json", "--output", "out", "--seed", "3", "--lock", "text").stdout)
    assert found["instructions_before"] == {"self": "Rate the text."}
    assert (found["score_before"], found["score_after"], found["stop_reason"]) == (0.0, 1.0, "perfect score")
    assert found["instructions_after"]["self"].endswith("text.")  # "text" alone could be kept by chance
    assert found["estimate"]["metric_calls"] == 80
    assert found["program"] == str(Path("out", "program.json"))
    assert found["load"] == [
        "from tuned_task import program",
        f"program.load({found['program']!r}, allow_unsafe_lm_state=True)",
    ]


def test_the_same_line_goes_on_and_pays_for_no_score_twice(files: Path):
    first, again = (json.loads(ran("--json").stdout) for _ in range(2))
    assert (first["resumed_calls"], again["resumed_calls"]) == (0, first["metric_calls"])
    assert again["instructions_after"] == first["instructions_after"]
    with pytest.raises(SettingsError, match=r"--output must .* of a run with another .*metric.*--no-resume"):
        ran("--metric", "tuned_task:other")
    anew = json.loads(ran("--json", "--metric", "tuned_task:other", "--no-resume").stdout)
    assert anew["resumed_calls"] == 0


def test_a_dry_run_and_a_no_spend_nothing(files: Path, monkeypatch: pytest.MonkeyPatch):
    dry = ran("--dry-run", "--budget", "9")
    assert "Metric calls: at most 9" in dry.stderr
    assert "WARNING" not in dry.stderr
    assert dry.stderr.endswith("Nothing was spent.\n")
    assert json.loads(ran("--dry-run", "--json").stdout)["estimate"]["metric_calls"] == 80
    monkeypatch.setattr(command, "at_terminal", lambda: True)
    monkeypatch.setattr(command.typer, "confirm", lambda *said, **how: False)
    refused = ran()
    assert (refused.exit_code, refused.stdout) == (0, "")
    assert not (files / "tuned").exists()
    assert ran("--yes").exit_code == 0


@pytest.fixture
def term() -> Iterator[None]:
    """SIGTERM, which would end the tests, is passed over where nothing heeds it; SIGINT is heeded.

    A job in the background begins with passing SIGINT over.
    """
    interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    assert signal.signal(signal.SIGTERM, before) is signal.SIG_IGN
    signal.signal(signal.SIGINT, interrupt)


def test_a_metric_that_is_the_program_is_refused_and_a_lock_of_nothing_is_said(files: Path):
    with pytest.raises(SettingsError, match=r"metric must be callable as metric\(example, prediction\)"):
        ran("--dry-run", "--metric", "tuned_task:program")
    said = ran("--dry-run", "--lock", "Rate", "--lock", "not in it").stderr
    assert "Nothing is locked by 'not in it': no instructions hold it.\n" in said
    assert "'Rate'" not in said


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_written_and_its_exit_code_says_so(
    files: Path, monkeypatch: pytest.MonkeyPatch, term: None, sent: signal.Signals
):
    def stop(self, *arguments, **how):
        signal.raise_signal(sent)

    monkeypatch.setattr(ScriptedInfiller, "infill", stop)
    done = ran()
    assert done.exit_code == 130
    assert "ended   interrupted" in done.stdout
    assert (files / "tuned" / "program.json").is_file()


def test_a_program_that_ends_the_process_is_an_error(files: Path, monkeypatch: pytest.MonkeyPatch):
    def stop(self, *arguments, **how):
        sys.exit(0)

    monkeypatch.setattr(ScriptedInfiller, "infill", stop)
    with pytest.raises(
        EvaluationError, match="must not end the process that runs it; it raised SystemExit: 0"
    ):
        ran()


def test_no_instructions_steer_the_terminal(files: Path):
    (files / "tuned_task.py").write_text(SOURCE.replace("Rate the text.", r"Rate \x1b[2J the text."))
    assert r"before  Rate \x1b[2J the text." in ran().stdout


def test_files_of_a_run_are_its_owners_alone(files: Path):
    assert ran().exit_code == 0
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in (files / "tuned").iterdir()}
    modes.pop("journal")
    assert modes == dict.fromkeys(["program.json", "report.html", "report.md", "run.json"], 0o600)


@pytest.mark.parametrize(
    ("there", "message"),
    [
        ("program.json", "has program.json of another run, and no journal. Name another"),
        ("run.json", "has run.json of another run"),
        ("program.json/x", "program.json must be a file, or not there; it is a folder"),
    ],
)
def test_an_output_folder_that_is_taken_is_refused(files: Path, there: str, message: str):
    file = files / "tuned" / there
    file.parent.mkdir(parents=True)
    file.write_text("old")
    with pytest.raises(SettingsError, match=message):
        ran("--dry-run")
    assert file.read_text() == "old"


def test_a_program_that_cannot_be_saved_costs_nothing(files: Path):
    with open(files / "tuned_task.py", "a") as file:
        file.write("program.demos = [dspy.Example(review=object(), rating='5')]\n")
    with pytest.raises(
        SettingsError, match="must be one that can be saved as JSON in tuned; it cannot: Failed"
    ):
        ran()
    assert not list((files / "tuned").iterdir())


def test_a_program_that_was_not_saved_leaves_the_report_and_the_earlier_one(tmp_path: Path):
    class Unsaved(dspy.Predict):
        def save(self, path, *arguments, **how):
            raise RuntimeError("no")

    (tmp_path / "program.json").write_text("old")
    optimizer = DiffusionInfill(exact, infiller=ScriptedInfiller("warm"))
    program = Unsaved(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter()):
        tuned = optimizer.compile(program, trainset=reviews())
    with pytest.raises(RuntimeError, match="no"):
        save(tuned, tmp_path)
    assert (tmp_path / "program.json").read_text() == "old"
    assert "Rate" in (tmp_path / "report.md").read_text()


def test_answers_that_cannot_be_parsed_are_counted(files: Path):
    command_line = [
        "optimize",
        "tuned_task:program",
        "--trainset",
        "train.jsonl",
        "--metric",
        "tuned_task:exact",
    ]
    done = CliRunner().invoke(app, command_line, catch_exceptions=False)  # DSPy's own adapter wants markers
    assert "score   0 -> 0" in done.stdout
    assert "failed  16 of these runs, such as answers that could not be parsed" in done.stdout


def test_valset_inputs_base_and_a_limit_reach_the_optimizer(files: Path):
    (files / "val.csv").write_text("review,rating\n1,y1\n2,y2\n3,y3\n")
    student, _ = tuning_of(
        "--valset", "val.csv", "--max-examples", "2", "--base", "dspy:COPRO", "--threads", "3"
    )
    assert [len(student.sets[name]) for name in ("trainset", "valset")] == [2, 2]
    assert type(student.optimizer.base).__name__ == "COPRO"
    assert student.optimizer.num_threads == 3
    assert student.sets["valset"][0].inputs().keys() == ["review"]


def tuning_of(*options: str):
    """What a command line prepares."""
    kept = []

    def keep(program, given):
        kept.append((prepare(program, given), given))
        raise SystemExit

    prepare = tuning.prepare
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "prepare", keep)
        ran(*options)
    return kept[0]
