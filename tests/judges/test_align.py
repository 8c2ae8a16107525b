"""Alignment recovers what was planted: a criterion and a scale, by a judge whose bias is known."""

import csv
import json
import re
import shutil
from functools import partial
from pathlib import Path

import dspy
import pytest

from dspy_diffusion_infill import Denoising, SlidingWindow
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.judges import align
from dspy_diffusion_infill.judges.align import rubric_locks
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.templates import Rubric, template
from dspy_diffusion_infill.prompts.locks import locked_spans
from dspy_diffusion_infill.prompts.program import with_instructions
from dspy_diffusion_infill.report import write_report
from tests.doubles import ScriptedInfiller, rule_lm

align_judge = partial(align.align_judge, resamples=40)
DIMENSIONS = ("coherence", "consistency", "fluency", "relevance")
GOOD = Rubric(
    "How good is the summary?", {1: "Very poor", 2: "Poor", 3: "Moderate", 4: "Good", 5: "Excellent"}
)


def shown(text: str) -> str:
    return text.split("###Response to evaluate:\n")[1].split("\n\n###")[0]


@pytest.fixture(scope="module")
def summaries(shared_data: Path) -> list[dict]:
    """Sixteen articles of SummEval, six systems each."""
    with (shared_data / "summeval.jsonl").open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    articles = list(dict.fromkeys(row["doc_id"] for row in rows))[:16]
    systems = {"M8", "M9", "M11", "M13", "M17", "M22"}
    return [row for row in rows if row["doc_id"] in articles and row["system_id"] in systems]


def examples(rows: list[dict], score) -> list[dspy.Example]:
    return [
        dspy.Example(
            response=row["system_output"], instruction="Sum up.", score=score(row), document=row["doc_id"]
        )
        for row in rows
    ]


def one_dimension(rows: list[dict], system: str, user: str) -> str:
    """Knows what the experts gave; grades by the dimension that the rubric names first, else by fluency."""
    scores = {row["system_output"]: row["scores"] for row in rows}[shown(user)]
    told = user.split("###Score Rubrics:")[1]
    named = [dimension for dimension in DIMENSIONS if dimension in told]
    return f"I look at that. [RESULT] {scores[named[0] if named else 'fluency']}"


def test_a_planted_criterion_is_recovered(summaries):
    # people graded relevance; the judge's bias is to grade fluency unless its rubric names another dimension
    judge = Judge(GOOD, template="judge-no-reference")
    fillings = ScriptedInfiller(*(f"Grade its {dimension} alone" for dimension in DIMENSIONS))
    with dspy.context(lm=rule_lm(partial(one_dimension, summaries))):
        found = align_judge(
            examples(summaries, lambda row: row["scores"]["relevance"]),
            judge=judge,
            infiller=fillings,
            masking=SlidingWindow(window=5, stride=5, mask=8, passes=1),
        )
    instructions = found.judge.grade.signature.instructions
    assert "Grade its relevance alone" in instructions
    assert found.after.dataset["spearman"].value == pytest.approx(1)
    assert found.before.dataset["spearman"].high < 0.9
    assert found.gain["spearman"].low > 0.1
    # all else is as it was
    before, after = (
        told.split("###Score Rubrics:") for told in (judge.grade.signature.instructions, instructions)
    )
    assert before[0] == after[0]
    assert re.findall("^Score .:", after[1], re.MULTILINE) == re.findall("^Score .:", before[1], re.MULTILINE)


SCALE = {1: 1.0, 2: 1.2, 3: 1.8, 4: 4.8, 5: 5.0}
"""Figure 3 of arXiv:2604.03677: what infilling made of five even scores."""


def level(row: dict) -> int:
    return round(row["scores"]["relevance"])


def evenly_unless_told(rows: list[dict], system: str, user: str) -> str:
    """Knows every summary's level; answers with what the rubric says it is worth, else with its number."""
    right = {row["system_output"]: level(row) for row in rows}[shown(user)]
    (line,) = re.findall(rf"^Score {right}: (.*)$", user, re.MULTILINE)
    told = re.search(r"Score of ([\d.]+)", line)
    return f"[RESULT] {told[1] if told else right}"


@pytest.mark.slow
def test_a_planted_scale_is_recovered(summaries):
    # people's scores are not even; the judge's bias is to answer 1, 2, 3, 4, 5
    judge = Judge(GOOD, template="judge-no-reference")
    fillings = ScriptedInfiller(*(f"Score of {value}" for value in SCALE.values()))
    with dspy.context(lm=rule_lm(partial(evenly_unless_told, summaries))):
        found = align_judge(
            examples(summaries, lambda row: SCALE[level(row)]),
            judge=judge,
            infiller=fillings,
            masking=SlidingWindow(window=2, stride=2, mask=4, passes=2),  # the text grows; a pass does not
            denoising=Denoising(num_candidates=len(SCALE)),
            budget="heavy",
        )
    told = dict(
        re.findall(r"^Score (\d): Score of ([\d.]+)$", found.judge.grade.signature.instructions, re.MULTILINE)
    )
    assert {told[number] for number in told} <= {str(value) for value in SCALE.values()}
    assert (told["2"], told["3"], told["4"]) == ("1.2", "1.8", "4.8")
    assert found.after.dataset["pearson"].value == pytest.approx(1)
    assert found.gain["pearson"].low > 0


# --- what goes in and out


def plain(count: int = 8) -> list[dspy.Example]:
    return [
        dspy.Example(response=f"r{n % 5 + 1}", score=n % 5 + 1, document=str(n // 2)) for n in range(count)
    ]


def by_number(system: str, user: str) -> str:
    return user[1:]


def test_documents_are_never_parted_and_the_student_is_not_touched():
    seen = []

    def judge_of(system: str, user: str) -> str:
        seen.append((system, user))
        return user[1:]

    judge = Judge(template="brief")
    records = [
        dspy.Example(response=f"{n // 2}{n % 5 + 1}", score=n % 5 + 1, document=str(n // 2))
        for n in range(16)
    ]
    with dspy.context(lm=rule_lm(judge_of)):
        found = align_judge(records, judge=judge, infiller=ScriptedInfiller("Rate"), num_threads=1)
    assert found.num_tuned == 8
    assert found.after.num_records == 8
    assert found.after.num_documents == 4
    tuned, held_out = seen[:8], seen[-8:]
    assert not {user[0] for _, user in tuned} & {user[0] for _, user in held_out}
    assert judge.grade.signature.instructions == "Rate the text (1-5)."
    assert set(records[0].toDict()) == {"response", "score", "document"}


def test_scores_come_from_a_csv_file(tmp_path: Path):
    file = tmp_path / "scores.csv"
    with file.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["response", "score"])
        writer.writeheader()
        writer.writerows({"response": f"r{n % 5 + 1}\n", "score": n % 5 + 1} for n in range(10))
    with dspy.context(lm=rule_lm(lambda system, user: user.strip()[1:])):
        found = align_judge(file, judge=Judge(template="brief"), infiller=ScriptedInfiller("Rate"))
    assert found.after.dataset["pearson"].value == pytest.approx(1)
    assert (found.num_tuned, found.after.num_records) == (6, 4)  # of five texts, each twice: five documents


def test_the_report_says_before_after_and_how_many_were_unread(tmp_path: Path):
    with dspy.context(lm=rule_lm(lambda system, user: user[1:] if user != "r2" else "no verdict")):
        found = align_judge(plain(20), judge=Judge(template="brief"), infiller=ScriptedInfiller("Rate"))
    text = found.markdown()
    assert f"unscored {found.before.num_unscored} before, {found.after.num_unscored} after" in text
    assert found.after.num_unscored > 0
    assert "| pearson | 1.000 [1.000, 1.000] | 1.000 [1.000, 1.000] | 0.000 [0.000, 0.000] |" in text
    assert "Rate the text (1-5)." in text
    assert write_report(found.judge, tmp_path).is_file()


def test_a_run_that_was_cut_short_goes_on(tmp_path: Path):
    calls = []

    def count(system: str, user: str) -> str:
        calls.append(user)
        return user[1:]

    def run(**settings):
        with dspy.context(lm=rule_lm(count)):
            return align_judge(
                plain(),
                judge=Judge(template="brief", **settings),
                infiller=ScriptedInfiller("Rate"),
                log_dir=tmp_path,
            )

    first, num_calls = run(), len(calls)
    again = run()
    assert len(calls) == num_calls
    assert again.after == first.after
    with pytest.raises(SettingsError, match="another program"):
        run(conversation="v1")
    assert len(calls) == num_calls
    shutil.rmtree(tmp_path / "tuning")
    with pytest.raises(SettingsError, match="another judge"):
        run(conversation="v1")


def test_all_but_the_rubric_s_words_are_locked():
    judge = Judge(GOOD)
    text = judge.grade.signature.instructions
    ends = [0, *(end for span in locked_spans(text, rubric_locks(judge)) for end in span), len(text)]
    parts = [text[start:end] for start, end in zip(ends[::2], ends[1::2], strict=True)]
    assert [part for part in parts if part] == [
        "How good is the summary?", " Very poor", " Poor", " Moderate", " Good", " Excellent"
    ]  # fmt: skip
    told = Judge(GOOD, template="c-gen")
    spans = locked_spans(told.grade.signature.instructions, rubric_locks(told))
    start = told.grade.signature.instructions.index(GOOD.criterion)
    assert spans[0] == (0, start)
    assert spans[1][0] == start + len(GOOD.criterion)


def test_an_aligned_judge_keeps_its_locks():
    judge = Judge(GOOD)
    text = judge.grade.signature.instructions
    rewritten = text.replace(GOOD.criterion, "Is it true").replace("Score 1: Very poor", "Score 1: False")
    aligned = with_instructions(judge, {"grade": rewritten})
    start = text.index(GOOD.criterion)
    assert locked_spans(rewritten, rubric_locks(aligned))[0] == (0, start)
    other = with_instructions(judge, {"grade": "Grade it."})
    with pytest.raises(SettingsError, match="must hold its template's text around the rubric"):
        rubric_locks(other)


@pytest.mark.parametrize("document", [0, "a"])
def test_every_document_but_none_keeps_its_records_together(document):
    judge = Judge(template="brief")
    records = [dspy.Example(response=f"r{n}", score=1, document=document) for n in range(2)]
    assert [align._ready(record, judge).document for record in records] == [document] * 2
    assert len({align._ready(record.without("document"), judge).document for record in records}) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"response,score\nr,3,extra\n", "a name for each cell; record 1 has more"),
        ("response,score\né,3\n".encode("latin-1"), "must be a CSV file in UTF-8"),
        (b"response,score\nr,good\n", "score must be a number in every record; got 'good'"),
        ("\ufeffresponse,score\nr,3\n".encode(), "at least 4 documents"),
    ],
)
def test_a_file_is_read_or_refused_in_words(tmp_path: Path, content, message):
    file = tmp_path / "scores.csv"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        align_judge(file, judge=Judge(template="brief"))
    with pytest.raises(SettingsError, match="No such file"):
        align_judge(tmp_path / "nowhere.csv", judge=Judge(template="brief"))


@pytest.mark.parametrize("resamples", ["10", 2.5, -1])
def test_resamples_are_counted_before_anything_is_spent(resamples):
    with pytest.raises(SettingsError, match="resamples must be"):
        align.align_judge(plain(), judge=Judge(template="brief"), resamples=resamples)


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([{"score": 3}], "got no response"),
        ([{"response": "r"}], "got no score"),
        ([{"response": "r", "score": 7}], "score must be on the judge's scale, 1 to 5; got 7.0"),
        (
            [{"response": f"r{n}", "score": 3, "document": "d"} for n in range(9)],
            "at least 4 documents; got 1",
        ),
    ],
)
def test_records_are_checked_before_anything_is_spent(records, message):
    with pytest.raises(SettingsError, match=message):
        align_judge(
            [dspy.Example(**one) for one in records], judge=Judge(template="brief"), infiller="embedded"
        )


@pytest.mark.parametrize("share", [0, 1])
def test_some_is_held_out_and_some_is_not(share):
    with pytest.raises(SettingsError, match="held_out must be above 0 and below 1"):
        align_judge(plain(), judge=Judge(template="brief"), infiller="embedded", held_out=share)


def test_the_brief_judge_has_no_rubric_and_nothing_else_locked():
    assert template("brief").scale is not None
    assert locked_spans("Rate the text (1-5).", rubric_locks(Judge(template="brief"))) == []
