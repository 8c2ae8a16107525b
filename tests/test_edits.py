"""Edits as commits: what each gained, taking one back, dropping those that do not matter, review."""

import copy
import json
import subprocess
import sys

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Edit, prune, revert
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.search.edits import before_edits, revert_edit
from dspy_diffusion_infill.search.reverting import attach_edits
from dspy_diffusion_infill.search.review import ask
from tests.doubles import exact, obey, reviews, rule_lm
from tests.test_orders import INDEPENDENT, Placed, run

TEXT = "a b c d"
UNMEASURED = {"gain": 0.0, "interval": (0.0, 0.0), "moved": (), "metric_calls": 0, "pass_number": 1}


@pytest.fixture(autouse=True)
def lm():
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


def edit(start, before, after, predictor="self"):
    return Edit(predictor, start, before, after, **UNMEASURED)


def both_rewritten(**settings):
    """A program whose two windows were rewritten, the first one last."""
    return run(Placed(first="Be warm", b="or five"), TEXT, **settings)


def program(text):
    return dspy.Predict(dspy.Signature("review -> rating", text))


def test_an_edit_says_what_it_changed_what_it_gained_and_where():
    later, earlier = both_rewritten().edits
    assert (later.start, later.before, later.after) == (4, "c d", "or five")
    assert (earlier.start, earlier.before, earlier.after) == (0, "a b", "Be warm")
    assert later.gain == earlier.gain == 5 / 16
    # examples 0 to 4 went from wrong to right
    assert earlier.moved == tuple((n, 1.0) for n in range(5))
    low, high = earlier.interval
    assert 0 < low < 5 / 16 < high < 1
    assert (earlier.metric_calls, earlier.pass_number) == (16, 1)


def test_edits_lead_from_the_start_to_the_result():
    tuned = both_rewritten()
    assert before_edits(instructions_of(tuned), tuned.edits) == {"self": TEXT}
    plain = json.loads(json.dumps(tuned.detailed_results["edits"]))
    assert [Edit.of(one) for one in plain] == tuned.edits


@pytest.mark.parametrize(("number", "text"), [(0, "Be warm c d"), (1, "a b or five")])
def test_any_edit_is_taken_back_alone(number, text):
    tuned = both_rewritten()
    before = instructions_of(tuned)
    without = revert(tuned, number)
    assert instructions_of(without) == {"self": text}
    assert instructions_of(tuned) == before
    assert len(tuned.edits) == 2
    assert "detailed_results" not in vars(without)
    assert instructions_of(revert(without, 0)) == {"self": TEXT}


def test_edits_survive_copies_and_come_back_from_their_plain_data(tmp_path):
    tuned = both_rewritten()
    assert copy.copy(tuned.edits[0]) == tuned.edits[0]
    assert copy.deepcopy(tuned).edits == tuned.deepcopy().edits == tuned.edits
    tuned.save(tmp_path / "tuned.json")
    loaded = program("")
    loaded.load(tmp_path / "tuned.json")
    with pytest.raises(SettingsError, match="program must be one that DiffusionInfill compiled"):
        revert(loaded, 0)
    edits = [Edit.of(plain) for plain in tuned.detailed_results["edits"]]
    assert instructions_of(revert(loaded, 1, edits=edits)) == {"self": "a b or five"}


def test_edits_of_other_instructions_are_refused():
    tuned = both_rewritten()
    with pytest.raises(SettingsError, match="'Be warm' does not stand at character 0 of predictor 'self'"):
        revert(program("Other."), 0, edits=tuned.edits)


def test_an_edit_that_a_later_one_builds_on_names_that_one():
    edits = [edit(0, "a b", "Be warm"), edit(8, "c", "C"), edit(3, "warm", "hot")]
    with pytest.raises(SettingsError, match="got 0, some of whose text edit 2 rewrote"):
        revert_edit({"self": "Be hot C"}, edits, 0)
    with pytest.raises(SettingsError, match="number must be that of an edit, below 3; got 3"):
        revert_edit({"self": "Be hot C"}, edits, 3)
    texts, others = revert_edit({"self": "Be hot C"}, edits, 2)
    assert revert_edit(texts, others, 0) == ({"self": "a b C"}, [edit(4, "c", "C")])


def test_edits_of_other_predictors_stay_where_they_are():
    edits = [edit(0, "a", "Be warm", "rate"), edit(0, "a", "note", "note"), edit(3, "warm", "hot", "note")]
    texts, others = revert_edit({"rate": "Be warm", "note": "Be hot"}, edits, 0)
    assert (texts, others) == ({"rate": "a", "note": "Be hot"}, edits[1:])


def test_an_edit_without_which_dspy_would_shift_other_text_stays():
    # without "b" at the margin, the indent of "  c" would be taken for the text's own
    with pytest.raises(SettingsError, match="Edit 0 cannot be reverted alone"):
        revert_edit({"self": "a\nb\n  c"}, [edit(2, " x", "b")], 0)


words = st.text("xyz", min_size=1, max_size=3)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=5), st.data())
def test_reverting_gives_what_the_other_edits_alone_would_have_given(original, data):
    indices = data.draw(st.lists(st.integers(0, len(original) - 1), min_size=1, max_size=5, unique=True))
    now, edits = list(original), []
    for index in indices:
        after = data.draw(words)
        edits.append(edit(len(" ".join(now[:index])) + (index > 0), now[index], after))
        now[index] = after
    number = data.draw(st.integers(0, len(edits) - 1))
    expected = list(now)
    expected[indices[number]] = original[indices[number]]
    texts, others = revert_edit({"self": " ".join(now)}, edits, number)
    assert texts == {"self": " ".join(expected)}
    assert before_edits(texts, others) == {"self": " ".join(original)}


def test_a_program_saved_whole_is_loaded_where_this_package_is_not(tmp_path):
    both_rewritten().save(tmp_path / "whole", save_program=True)
    code = (
        "import sys; sys.modules['dspy_diffusion_infill'] = None\n"
        "import inspect, dspy\n"
        "asks = 'allow_pickle' in inspect.signature(dspy.load).parameters\n"
        "loaded = dspy.load(sys.argv[1], **({'allow_pickle': True} if asks else {}))\n"
        "print(loaded.signature.instructions, [edit.after for edit in loaded.edits])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "whole")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    tuned = both_rewritten()
    assert said.strip() == f"{tuned.signature.instructions} {[edit.after for edit in tuned.edits]}"


def test_a_program_with_edits_of_its_own_keeps_them(caplog):
    class Editor(dspy.Module):
        def __init__(self):
            super().__init__()
            self.edits = program(TEXT)

        def forward(self, review):
            return self.edits(review=review)

    infiller = Placed(first="Be warm")
    optimizer = DiffusionInfill(exact, infiller=infiller, masking=INDEPENDENT)
    tuned = optimizer.compile(Editor(), trainset=reviews())
    assert tuned(review="1").rating == "y1"
    assert len(tuned.detailed_results["edits"]) == 1
    assert "The program has `edits` of its own" in caplog.text


def test_a_program_whose_method_is_named_edits_keeps_it():
    class Editor(dspy.Module):
        def edits(self):
            return "its own"

    editor = Editor()
    attach_edits(editor, [])
    assert editor.edits() == "its own"


def test_pruning_drops_edits_that_do_not_matter_and_measures_the_others(lm):
    edits = [edit(0, "a b", "Be warm"), edit(8, "c", "C"), edit(10, "d", "five")]
    tuned = program("Be warm C five")
    calls = lm.engine.num_calls
    pruned = prune(tuned, exact, valset=reviews(8), edits=edits)
    assert instructions_of(pruned) == {"self": "Be warm c five"}
    assert [(kept.after, kept.gain) for kept in pruned.edits] == [("Be warm", 3 / 8), ("five", 3 / 8)]
    results = pruned.detailed_results
    assert (results["score_before"], results["score_after"]) == (1.0, 1.0)
    assert [gone["after"] for gone in results["dropped"]] == ["C"]
    assert lm.engine.num_calls - calls == (1 + 3) * 8
    assert instructions_of(tuned) == {"self": "Be warm C five"}


def test_pruning_keeps_an_edit_that_another_one_builds_on_and_ends_with_the_budget():
    edits = [edit(0, "a", "be W"), edit(3, "W", "warm")]
    pruned = prune(program("be warm b"), exact, valset=reviews(4), edits=edits)
    assert [kept.after for kept in pruned.edits] == ["be W", "warm"]
    edits = [edit(0, "a", "A"), edit(2, "b", "B")]
    pruned = prune(program("A B"), exact, valset=reviews(4), edits=edits, budget=Budget(metric_calls=9))
    assert instructions_of(pruned) == {"self": "A b"}
    assert [kept.after for kept in pruned.edits] == ["A"]


def test_pruning_without_examples_is_refused():
    with pytest.raises(SettingsError, match="valset must hold at least one example"):
        prune(program("A"), exact, valset=[], edits=[edit(0, "a", "A")])


def test_an_edit_turned_down_in_review_stays_out_and_is_not_asked_about_again():
    asked = []

    def no_warmth(edit):
        asked.append((edit.after, edit.gain))
        return "warm" not in edit.after

    tuned = both_rewritten(review=no_warmth)
    assert asked == [("Be warm", 5 / 16), ("or five", 5 / 16)]
    assert instructions_of(tuned) == {"self": "a b or five"}
    assert [trial["refused"] for trial in tuned.trial_logs] == [True, False]
    asked.clear()
    settings = {"infiller": Placed(first="warm"), "denoising": Denoising(num_candidates=1)}
    tuned = DiffusionInfill(exact, review=no_warmth, **settings).compile(program("a"), trainset=reviews())
    assert (asked, tuned.edits) == ([("warm", 5 / 16)], [])


def test_a_review_that_does_not_answer_is_told():
    with pytest.raises(SettingsError, match="review must return True or False for an edit; got None"):
        both_rewritten(review=lambda edit: None)


def test_a_resumed_run_remembers_the_answers(tmp_path):
    asked = []
    review = lambda edit: asked.append(edit) or len(asked) == 1  # noqa: E731
    first = both_rewritten(review=review, log_dir=tmp_path)
    again = both_rewritten(review=review, log_dir=tmp_path)
    assert len(asked) == 2
    assert again.edits == first.edits
    assert [one.after for one in first.edits] == ["Be warm"]


def test_a_review_at_the_terminal_wants_a_yes_or_a_no(monkeypatch):
    answers = iter(["what?", " Yes ", "n"])
    questions = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or next(answers))
    assert ask(edit(0, "a", "b"))
    assert not ask(edit(0, "a", "b"))
    assert questions[0].startswith("self, character 0: 'a' -> 'b'\ngain +0 (+0 to +0). Keep it?")


def test_a_review_at_a_closed_terminal_ends_the_run_with_the_best_so_far(monkeypatch):
    def closed(question):
        raise EOFError

    monkeypatch.setattr("builtins.input", closed)
    tuned = both_rewritten(review=True)
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert instructions_of(tuned) == {"self": TEXT}


def test_a_review_that_cannot_be_asked_is_refused_at_construction():
    with pytest.raises(SettingsError, match=r"review must be True, False, .*got 'yes'"):
        DiffusionInfill(exact, review="yes")
