"""Reports: what they show, that no text of the user's becomes markup, and who may read them."""

import json
import os
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill import CompactAdapter, Denoising, DiffusionInfill
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.report import RESULTS, _curve, _diff, html_report, markdown_summary, write_report
from tests.contrast import contrast
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm

HOSTILE = "</style><script>alert(1)</script> {{ seed }} `tick`\n```\n<img src=x onerror='a'>"
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's elements, the text of each kind of element, and whether every element is closed in order."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.texts, self.attributes, self._open = [], [], [], []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._open += [tag] * (tag not in VOID)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def of(self, tag):
        return [text for owner, text in self.texts if owner == tag]

    @property
    def text(self):
        return "".join(text for owner, text in self.texts if owner != "style")


def trial(**fields):
    plain = {
        "pass_number": 1,
        "predictor": "self",
        "start": 0,
        "before": "Rate",
        "after": None,
        "num_candidates": 2,
        "rejected": [],
        "refused": False,
        "score": 0.25,
        "gain": 0.0,
        "metric_calls": 10,
        "spent": 30,
        "accepted": False,
    }
    return plain | fields


def edit(**fields):
    plain = {
        "predictor": "self",
        "start": 0,
        "before": "Rate",
        "after": "Grade",
        "gain": 0.5,
        "interval": [0.25, 0.75],
        "moved": [[1, 1.0], [3, -0.5], [7, 1.0]],
        "metric_calls": 10,
        "pass_number": 1,
    }
    return plain | fields


@pytest.fixture
def run():
    """Scored 0.25 for 20 calls; a window for 10 calls that failed, one for 10 that gained 0.5."""
    before, after = (
        {"self": "Rate the text.", "note": "Note it."},
        {"self": "Grade the text.", "note": "Note it."},
    )
    won = trial(after="Grade", score=0.75, gain=0.5, spent=40, accepted=True)
    lost = trial(start=5, before="the text.", rejected=[{"text": "\x07", "reason": "unprintable"}])
    return {
        "detailed_results": {
            "instructions_before": before,
            "instructions_after": after,
            "changes": {"self": {"start": 0, "before": "Rate", "after": "Grade"}},
            "edits": [edit()],
            "confirmation": {"verdict": "unconfirmed", "num_examples": 0, "gain": None, "interval": None},
            "score_before": 0.25,
            "score_after": 0.75,
            "num_failures": 0,
            "unscored": {},
            "metric_calls": 40,
            "seconds": 12.34,
            "stop_reason": "passes: 1",
            "base_stopped": False,
            "base_error": None,
            "settings": {"seed": 7, "base": None},
        },
        "trial_logs": [lost, won],
        "candidate_programs": [
            {"score": 0.75, "instructions": after},
            {"score": 0.25, "instructions": before},
        ],
        "versions": {"dspy": "3.4.1"},
    }


def program(run):
    return SimpleNamespace(**{name: run[name] for name in RESULTS})


def poisoned(run, text=HOSTILE):
    """The same run with hostile text wherever text of the user's or of a model can stand."""
    found, (lost, won) = run["detailed_results"], run["trial_logs"]
    found["base_error"] = text
    found["instructions_before"] = {text: text}
    found["instructions_after"] = {text: f"{text} more"}
    found["unscored"] = {3: text}
    found["stop_reason"] = text
    found["settings"] = {"infiller": text}
    lost |= {"before": text, "predictor": text, "rejected": [{"text": text, "reason": "empty"}]}
    won |= {"before": text, "after": text, "predictor": text}
    found["edits"] = [edit(before=text, after=f"{text} more", predictor=text)]
    run["candidate_programs"] = [{"score": 1.0, "instructions": {text: f"More {text}"}}]
    return run


def test_the_page_says_what_was_gained_what_it_cost_and_why_it_ended(run):
    page = Page(html_report(run))
    assert page.of("title")[0] == "Prompt infilling: 0.25 → 0.75"
    assert "40 metric calls, 12.3 seconds" in page.text
    assert "The run ended: passes: 1." in page.text
    assert {"seed", "7", "base", "none", "dspy", "3.4.1"} <= set(page.of("dt") + page.of("dd"))


def test_every_edit_is_shown_with_its_gain_and_the_examples_it_moved(run):
    run["detailed_results"]["edits"] = [edit(), edit(before="the text", after="the review", gain=-0.1)]
    page = Page(html_report(run))
    text = " ".join(page.text.split())
    assert "+0.5 +0.25 to +0.75 0: self, character 0, pass 1, 10 metric calls" in text
    assert "Examples that got better: 2 (1, 7); worse: 1 (3)" in text
    assert {"Rate", "text"} <= set(page.of("del"))
    assert {"Grade", "review"} <= set(page.of("ins"))
    run["detailed_results"]["edits"] = [edit(moved=[[n, 1.0] for n in range(30)])]
    text = " ".join(Page(html_report(run)).text.split())
    assert "better: 30 (0, 1, 2," in text
    assert "18, 19, …); worse: 0" in text


def test_whether_the_gain_held_on_examples_kept_out_is_told(run):
    assert "The gain is unconfirmed: it was not tried" in Page(html_report(run)).text
    check = {"verdict": "refuted", "num_examples": 20, "gain": -0.1, "interval": [-0.3, 0.05]}
    run["detailed_results"]["confirmation"] = check
    told = "On 20 examples kept out of the search it was -0.1 (-0.3 to +0.05): refuted"
    assert f"{told}, so the start is returned." in " ".join(Page(html_report(run)).text.split())
    assert f"{told}." in markdown_summary(run)


def test_a_winner_that_was_turned_down_is_told(run):
    run["trial_logs"][0]["refused"] = True
    assert "turned down" in html_report(run)


def test_the_page_marks_the_words_that_changed(run):
    run["trial_logs"] = run["detailed_results"]["edits"] = []
    page = Page(html_report(run))
    assert page.of("del") == ["Rate"]
    assert page.of("ins") == ["Grade", "Grade"]  # the instructions, and the best candidate
    assert "note, unchanged" in page.of("h3")


def test_every_window_has_a_row_and_the_accepted_ones_stand_out(run):
    page = html_report(run)
    rows = re.findall(r"<tr.*?</tr>", page, re.DOTALL)[1:]
    assert ['class="won"' in row for row in rows] == [False, True]
    assert "+0.5" in rows[1]
    assert "<del>Rate</del> <ins>Grade</ins>" in rows[1]
    assert "unprintable" in rows[0]


def test_many_windows_are_folded_and_few_are_not(run):
    assert ("open", None) in Page(html_report(run)).attributes
    run["trial_logs"] = [trial(accepted=n == 7, after="Grade") for n in range(41)]
    page = Page(html_report(run))
    assert ("open", None) not in page.attributes
    assert "41, of which 1 accepted" in page.of("summary")


def test_candidates_stand_best_first_and_at_most_ten(run):
    run["candidate_programs"] *= 6
    page = Page(html_report(run))
    assert page.of("b") == ["0.75", "0.25"] * 5
    assert "And 2 more, in run.json." in page.text


def test_the_curve_steps_up_where_a_window_was_accepted(run):
    curve = _curve(run)
    assert curve["path"] == "M50.0 100.0H75.0V100.0H100.0V0.0H100"
    assert [(x, y, dot["gain"]) for x, y, dot in curve["dots"]] == [(100.0, 0.0, 0.5)]
    assert (curve["first"], curve["low"], curve["high"]) == (20, 0.25, 0.75)


def test_a_run_that_gained_nothing_has_a_flat_curve(run):
    run["trial_logs"] = [trial()]
    assert _curve(run)["path"] == "M50.0 50.0H75.0V50.0H100"
    assert 'class="scale upright flat"' in html_report(run)


def test_a_run_that_changed_nothing_says_nothing_of_a_gain(run):
    run["detailed_results"]["instructions_after"] = run["detailed_results"]["instructions_before"]
    assert "unconfirmed" not in html_report(run)
    assert "unconfirmed" not in markdown_summary(run)


def test_a_long_text_that_a_candidate_kept_is_cut_in_its_middle(run):
    kept = " word" * 99
    run["detailed_results"]["instructions_before"]["self"] = f"Rate{kept}"
    run["candidate_programs"] = [{"score": 1.0, "instructions": {"self": f"Grade{kept}"}}]
    _, best = html_report(run).split("Best candidates")
    text = Page(best.partition("<h2>Settings")[0].removeprefix("</h2>")).text
    assert f"Grade{kept[:100]} … {kept[-100:]}" in text


def test_a_run_that_ended_before_the_start_was_scored_says_so(run):
    run["detailed_results"] |= {"score_before": None, "score_after": None}
    run |= {"trial_logs": [], "candidate_programs": []}
    page = Page(html_report(run))
    assert "not scored → not scored" in page.text
    assert "svg" not in page.tags
    assert "not scored → not scored" in markdown_summary(run)


def test_failures_and_unscored_examples_are_told(run):
    run["detailed_results"] |= {
        "num_failures": 3,
        "unscored": {4: "the judge was silent"},
        "base_stopped": True,
    }
    text = Page(html_report(run)).text
    assert "Failed program runs: 3." in text
    assert "Example 4: the judge was silent" in text
    assert "The base optimizer was stopped" in text


def test_a_base_that_failed_is_told_with_its_error(run):
    assert "failed" not in Page(html_report(run)).text + markdown_summary(run)
    run["detailed_results"]["base_error"] = "RuntimeError: no proposals"
    said = "The base optimizer failed, so the search began from the student: "
    assert said + "RuntimeError: no proposals" in Page(html_report(run)).text
    assert said + "`RuntimeError: no proposals`" in markdown_summary(run)


@pytest.mark.parametrize(("score", "said"), [(0.125, True), (None, False), ("same", False)])
def test_what_the_student_scored_before_its_base_is_told(run, score, said):
    found = run["detailed_results"]
    found["student_score"] = found["score_before"] if score == "same" else score
    for page in (Page(html_report(run)).text, markdown_summary(run)):
        assert ("as it was given scored 0.125" in page) == said


def test_no_text_of_the_user_becomes_markup_in_html(run):
    clean, page = Page(html_report(run)), Page(html_report(poisoned(run)))
    assert not {"script", "img"} & set(page.tags)
    assert page.tags.count("style") == clean.tags.count("style") == 1
    assert HOSTILE in page.text


def test_the_page_fetches_nothing(run):
    page = Page(html_report(run))
    assert not {"link", "script", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "url(" not in html_report(run)
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'") in page.attributes


def test_the_page_fits_phones_and_both_schemes(run):
    page = Page(html_report(run))
    assert ("lang", "en") in page.attributes
    assert ("content", "width=device-width, initial-scale=1") in page.attributes
    assert ("content", "light dark") in page.attributes
    labels = [value for name, value in page.attributes if name == "data-label"]
    assert labels == [*("Pass", "Gain", "Score", "Calls", "Candidates")] * 2  # the head is hidden on phones


def test_every_text_stands_out_from_its_ground_in_both_schemes(run):
    style = re.findall(r"<style>.*</style>", html_report(run), re.DOTALL)[0]
    schemes = [
        dict(re.findall(r"--([\w-]+): (#\w+)", root)) for root in re.findall(r":root {(.*?)}", style, re.S)
    ]
    assert [scheme["page"] for scheme in schemes] == ["#fbfaf7", "#14171b"]
    for of in schemes:
        plain = [(of[text], of[ground]) for text in ("ink", "soft") for ground in ("page", "card", "won")]
        marked = [(of["good"], of[ground]) for ground in ("card", "won", "good-back")]
        for text, ground in [*plain, *marked, (of["bad"], of["bad-back"])]:
            assert contrast(text, ground) >= 4.5


def test_contrast_is_as_published():
    assert contrast("#000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#fff") == pytest.approx(
        4.48, abs=0.01
    )  # the well-known grey that falls short


def test_no_text_of_the_user_becomes_markup_in_markdown(run):
    from markdown_it import MarkdownIt  # comes with rich

    tokens = MarkdownIt("commonmark").parse(markdown_summary(poisoned(run)))
    inline = [child for token in tokens for child in token.children or ()]
    assert not [token for token in tokens + inline if token.type.startswith("html")]
    assert [token.content for token in tokens if token.type == "fence"] == [
        f"{HOSTILE}\n",
        f"{HOSTILE} more\n",
    ]


def test_no_text_steers_a_terminal_or_turns_the_words_around(run):
    bad = "a\x1b[2Jb\x00c\u202ed\x9b"
    for page in (html_report(poisoned(run, bad)), markdown_summary(poisoned(run, bad))):
        assert not set(page) & set("\x1b\x00\u202e\x9b")
        assert r"a\x1b[2Jb\x00c\u202ed\x9b" in page


def test_the_summary_tells_the_change_the_gain_and_the_settings(run):
    text = markdown_summary(run)
    assert text.startswith("# Prompt infilling: 0.25 → 0.75\n\n40 metric calls, 12.3 s.")
    assert "0. +0.5 (+0.25 to +0.75) in `self`: `Rate` → `Grade`" in text
    assert "- seed: `7`" in text
    assert "`the text.`" not in text  # a window that was kept as it was
    assert "Unchanged." in text


@settings(deadline=None)
@given(st.text("ab \n"), st.text("ab \n"))
def test_a_diff_holds_both_texts_whole(before, after):
    pieces = _diff(before, after)
    assert "".join(old for old, _ in pieces) == before
    assert "".join(new for _, new in pieces) == after


def test_a_diff_keeps_spaces_only_beside_words_it_keeps():
    assert _diff("Rate it now", "Be warm now") == [("Rate it", "Be warm"), (" now", " now")]


def test_a_diff_keeps_the_longest_runs_of_words():
    found = _diff("the cat and the dog and the bird", "see the bird")
    assert found == [("the cat and the dog and", "see"), (" the bird",) * 2]
    assert _diff("the dog sat", "Then the dog sat") == [("", "Then "), ("the dog sat",) * 2]


def test_a_diff_marks_characters_where_a_script_has_no_spaces():
    assert _diff("请评分一到五", "请打分一到五") == [("请",) * 2, ("评", "打"), ("分一到五",) * 2]


def test_a_diff_keeps_words_whose_spaces_changed():
    assert _diff("a b\n", "a\nb") == [("a", "a"), (" ", "\n"), ("b", "b"), ("\n", "")]


def test_the_files_are_the_owners_alone(run, tmp_path):
    page = write_report(program(run), tmp_path / "new" / "folder")
    files = {file.name: stat.S_IMODE(file.stat().st_mode) for file in page.parent.iterdir()}
    assert page == tmp_path / "new" / "folder" / "report.html"
    assert files == {"report.html": 0o600, "report.md": 0o600, "run.json": 0o600}


def test_the_data_kept_beside_a_page_makes_the_same_page(run, tmp_path):
    run["detailed_results"] |= {"unscored": {4: "silent"}, "settings": {"infiller": Path("model")}}
    page = write_report(program(run), tmp_path)
    kept = json.loads((tmp_path / "run.json").read_text())
    assert html_report(kept) == page.read_text(encoding="utf-8")
    assert markdown_summary(kept) == (tmp_path / "report.md").read_text(encoding="utf-8")


def test_half_a_surrogate_pair_does_not_lose_the_report(run, tmp_path):
    run["trial_logs"][1]["after"] = "half \ud83d"
    assert "half ?" in write_report(program(run), tmp_path).read_text(encoding="utf-8")


def test_a_report_that_cannot_be_finished_leaves_the_earlier_one(run, tmp_path, monkeypatch):
    write_report(program(run), tmp_path)
    earlier = {file: file.read_bytes() for file in tmp_path.iterdir()}
    run["detailed_results"]["seconds"] = 99.0

    def full(self, data):
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_report(program(run), tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == earlier


def test_a_program_that_was_not_compiled_here_is_refused(tmp_path):
    with pytest.raises(
        SettingsError, match="got a Predict without detailed_results, trial_logs, candidate_prog"
    ):
        write_report(dspy.Predict("a -> b"), tmp_path / "none")
    assert os.listdir(tmp_path) == []


def test_what_compile_leaves_behind_makes_a_report(tmp_path):
    infiller = ScriptedInfiller("Be warm", "Judge", "Be warm and five", "Rate the text.")
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    optimizer = DiffusionInfill(exact, infiller=infiller, denoising=Denoising(num_candidates=3))
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter()):
        tuned = optimizer.compile(student, trainset=reviews())
    page = Page(write_report(tuned, tmp_path).read_text(encoding="utf-8"))
    assert page.of("title")[0] == "Prompt infilling: 0 → 0.625"
    assert "Be warm and five" in page.of("ins")
    assert tuned.detailed_results["stop_reason"] in page.text
    assert "scripted:4" in page.of("dd")
