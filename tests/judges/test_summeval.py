"""The SummEval benchmark: recorded judgements and our own by one code path, whole articles, no call twice."""

import json
from pathlib import Path

import dspy
import pytest

from benchmarks import summeval
from benchmarks.tables import improvement_line, improvements
from benchmarks.tuning import Tuned, Tuning, lm_of, tuned
from dspy_diffusion_infill.errors import EvaluationError, SettingsError
from dspy_diffusion_infill.judges.agreement import Judged
from dspy_diffusion_infill.judges.metrics import Closeness
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.templates import rubric
from tests.doubles import ScriptedInfiller, rule_lm

AS_KNOWN = {
    "gpt35": {"coherence": 0.444, "consistency": 0.423, "fluency": 0.285, "relevance": 0.447},
    "gpt4": {"coherence": 0.444, "consistency": 0.550, "fluency": 0.500, "relevance": 0.420},
}
"""Record-level Spearman with the experts, as the README of the data says."""


def test_recorded_judgements_correlate_as_is_known(shared_data: Path, tmp_path: Path, capsys):
    file = tmp_path / "found.json"
    data, scores = shared_data / "summeval.jsonl", shared_data / "summeval_llm_scores.jsonl"
    arguments = ["--data", data, "--judge-scores", scores, "--resamples", "0", "--json", file]
    summeval.main([str(argument) for argument in arguments])
    found = json.loads(file.read_text())
    for judge, known in AS_KNOWN.items():
        for dimension, value in known.items():
            assert round(found["bars"][f"{judge}_{dimension}"], 3) == value
    rows = {(row["judge"], row["target"]): row for row in found["rows"]}
    assert rows["gpt-4-0314", "consistency"]["unscored"] == 4
    assert rows["gpt-4-0314", "overall"]["unscored"] == 5
    assert rows["gpt-3.5-turbo-0301", "overall"]["n"] == 1200
    assert "gpt-4-0314 as recorded" in capsys.readouterr().out


def record(article: int, system: int) -> dict:
    grades = {"coherence": article % 5 + 1, "consistency": 5, "fluency": 4, "relevance": system % 5 + 1}
    return {
        "doc_id": f"d{article}",
        "system_id": f"M{system}",
        "source": "It pours all day.",
        "reference": "Rain.",
        "system_output": f"summary {article} {system}",
        "scores": grades,
    }


RECORDS = [record(article, system) for system in range(4) for article in range(20)]


def test_whole_articles_are_for_tuning_and_the_rest_is_judged():
    dev, test = summeval.split(RECORDS)
    assert (len(dev), len(test)) == (8, 72)
    assert not {one["doc_id"] for one in dev} & {one["doc_id"] for one in test}
    assert summeval.split(RECORDS) == (dev, test)
    assert [one["doc_id"] for one in test[:4]] == [test[0]["doc_id"]] * 4


def test_the_overall_grade_is_the_mean_of_four():
    scores = {"coherence": 1, "consistency": 2, "fluency": 3, "relevance": 5}
    assert summeval.overall(scores) == 2.75
    assert summeval.people({"scores": scores})["overall"] == 2.75
    assert summeval.overall(scores | {"fluency": None}) is None
    assert summeval.overall({"coherence": 1}) is None


def test_a_record_is_shown_as_article_summary_and_reference():
    shown = summeval.example(record(2, 3), "relevance")
    assert shown.instruction == "Summarize the following article.\n\nIt pours all day."
    assert (shown.response, shown.reference_answer, shown.score) == ("summary 2 3", "Rain.", 4)


def test_what_cannot_be_judged_is_refused_in_words(capsys):
    with pytest.raises(SystemExit):
        summeval.main(["--limit", "0"])
    assert "--limit must be at least 1; got 0." in capsys.readouterr().err
    with pytest.raises(SettingsError, match=r"must hold judge, .* got no judge"):
        summeval.recorded(RECORDS, RECORDS)
    with pytest.raises(SettingsError, match=r"Judgements on record must be at least 1; got 0\."):
        summeval.recorded(RECORDS, [])
    stranger = dict.fromkeys(summeval.JUDGEMENT, "x")
    with pytest.raises(SettingsError, match=r"must be of a record of --data; got one of x x\."):
        summeval.recorded(RECORDS, [stranger])


def test_one_article_is_too_few_to_tune_on(run, tmp_path: Path):
    (tmp_path / "records.jsonl").write_text(json.dumps(record(0, 0)) + "\n")
    with pytest.raises(SettingsError, match=r"Records for tuning must be at least 4; got 0\."):
        run(Judging(lives=0))


class Judging:
    """Grades by the number of the system; can die after some replies."""

    def __init__(self, lives: float = float("inf")) -> None:
        self.lives, self.seen = lives, []

    def __call__(self, system: str, user: str) -> str:
        if len(self.seen) >= self.lives:
            raise RuntimeError("killed")
        summary = user.split("###Response to evaluate:\n")[1].split("\n")[0]
        self.seen.append(summary)
        return "no verdict" if summary.endswith(" 3") else f"[RESULT] {int(summary.split()[-1]) + 1.5}"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    data = tmp_path / "records.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in RECORDS))

    def run(judging: Judging, *more: str) -> tuple[list[dict], str]:
        monkeypatch.setattr(summeval, "lm_of", lambda *names, **settings: rule_lm(judging))
        arguments = ["--data", data, "--judge", "rule", "--methods", "baseline", "--resume", tmp_path / "run"]
        arguments += [
            "--limit",
            12,
            "--resamples",
            20,
            "--shots",
            4,
            "--json",
            tmp_path / "found.json",
            *more,
        ]
        summeval.main([str(argument) for argument in arguments])
        return json.loads((tmp_path / "found.json").read_text())["rows"], capsys.readouterr().out

    return run


def test_what_a_judge_leaves_unread_is_counted_and_is_no_score(run):
    (row,), shown = run(Judging())
    assert (row["n"], row["documents"], row["unscored"], row["distinct"]) == (12, 3, 3, 3)
    assert row["document"]["pearson"]["value"] == pytest.approx(1)
    assert " 25.0% " in shown
    assert "The paper's own numbers, Table 4, Prometheus 8x7B v2.0:" in shown


@pytest.mark.parametrize("threads", ["1", "4"])
def test_a_run_that_was_killed_goes_on_and_asks_nothing_twice(run, threads):
    killed, resumed = Judging(lives=5), Judging()
    with pytest.raises(EvaluationError, match="killed"):
        run(killed, "--threads", threads)
    rows, _ = run(resumed, "--threads", threads)
    assert sorted(killed.seen + resumed.seen) == sorted({*killed.seen, *resumed.seen})
    assert len(killed.seen + resumed.seen) == 12
    again, _ = run(Judging(lives=0), "--threads", threads)
    assert again == rows


def propose(system: str, user: str) -> str:
    """As COPRO's prompt model: always the same instruction. As judge: honest if told to be."""
    if "[[ ## proposed_instruction ## ]]" in system:
        return (
            "[[ ## proposed_instruction ## ]]\nBe honest.\n[[ ## proposed_prefix_for_output_field ## ]]\nx:"
        )
    summary = user.split("###Response to evaluate:\n")[1].split("\n")[0]
    return f"[RESULT] {summary.split()[-1] if 'honest' in user else 3}"


@pytest.mark.parametrize("method", ["infill", "copro", "copro+infill"])
def test_every_method_tunes_the_judge_on_people_s_scores(method):
    shots = [summeval.example(record(0, system), "relevance") for system in range(1, 5)]
    shots = [shot.copy(score=int(shot.response.split()[-1])) for shot in shots]
    judge = Judge(rubric("summeval-overall"))
    filler = ScriptedInfiller("honest marks", "any marks")
    tuning = Tuning(
        metric=Closeness(judge), infiller=filler, proposer=None, budget="medium", threads=2, folder=None
    )
    with dspy.context(lm=rule_lm(propose), adapter=judge.adapter):
        found = tuned(judge, method, shots, tuning, seed=0)
        better = found.program
        assert better is not None
        assert 0 < found.metric_calls <= 120
        assert [better(**shot.inputs()).score for shot in shots] == [1, 2, 3, 4]
    assert "honest" not in judge.grade.signature.instructions


def test_methods_are_compared_with_the_baseline_on_the_same_records():
    people = [Judged(str(n // 2), n, None if n == 5 else 3 - n) for n in range(6)]
    after = [Judged(one.document, one.target, one.target) for one in people]
    found = {("j", "t", "baseline", "1", "overall"): people, ("j", "t", "infill", "1", "overall"): after}
    (row,) = improvements(found, resamples=20)
    assert (row["judge"], row["method"], row["target"]) == ("j", "infill over baseline", "overall")
    assert row["gain"]["pearson"]["value"] == pytest.approx(2)
    assert improvement_line(row).startswith("infill over baseline, seed 1: pearson +2.000 [+2.000, +2.000]")
    assert improvements({("j", "t", "infill", "1", "overall"): after}, resamples=0) == []
    nothing = [Judged(one.document, one.target, None) for one in people]
    assert improvements(found | {("j", "t", "infill", "1", "overall"): nothing}, resamples=0) == []


def test_judges_of_one_family_keep_bars_of_their_own():
    rows = [
        {
            "judge": name,
            "template": "as recorded",
            "target": "overall",
            "dataset": {"spearman": {"value": at}},
        }
        for name, at in (("gpt-4-0314", 0.1), ("gpt-4-0613", 0.2))
    ]
    assert summeval.bars(rows) == {"gpt-4-0314_overall": 0.1, "gpt-4-0613_overall": 0.2}
    assert summeval.bars(rows[:1]) == {"gpt4_overall": 0.1}


def test_a_judge_has_as_many_tokens_as_its_authors_gave_it_wherever_it_is_asked():
    named = lm_of("openai/gpt-4o", None, conversation="v1", max_tokens=6)
    served = lm_of("prometheus", "http://localhost:1/v1", conversation="v2", max_tokens=6)
    plain = lm_of("openai/gpt-4o", None, conversation="plain", max_tokens=6)
    assert [lm.kwargs.get("max_tokens") for lm in (named, served, plain)] == [256, 1024, None]


def test_gains_over_the_baseline_stand_in_the_result_file(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(summeval, "tuned", lambda program, *rest: Tuned(program, 7))
    rows, shown = run(Judging(), "--methods", "baseline", "infill")
    assert [row["method"] for row in rows] == ["baseline", "infill", "infill over baseline"]
    assert [row.get("metric_calls") for row in rows] == [7, 7, None]
    assert rows[2]["gain"]["spearman"]["value"] == 0
    assert "infill, seed 0, 7 metric calls: " in shown


def test_a_method_that_failed_is_a_row_that_says_so(run, monkeypatch: pytest.MonkeyPatch):
    def half(program, method, *rest):
        return Tuned(None, 3, "COPRO failed: no") if method == "copro" else Tuned(program)

    monkeypatch.setattr(summeval, "tuned", half)
    rows, shown = run(Judging(), "--methods", "copro", "baseline")
    assert [(row["failed"], row["unscored"]) for row in rows] == [("COPRO failed: no", 12), (None, 3)]
    assert "copro, seed 0, 3 metric calls: COPRO failed: no" in shown
