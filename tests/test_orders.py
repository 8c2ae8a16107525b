"""The independent order: all windows from one base, and winners together only if that is better."""

import dspy
import pytest

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, Selection, SlidingWindow
from dspy_diffusion_infill.prompts.canvas import Filling
from dspy_diffusion_infill.prompts.program import instructions_of
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm, system_text

INDEPENDENT = SlidingWindow(window=2, stride=2, mask=3, order="independent", passes=1)


@pytest.fixture(autouse=True)
def lm():
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter(), num_threads=2):
        yield


class Placed(ScriptedInfiller):
    """Fills each window with its own text, by what the masked prompt reads."""

    def __init__(self, **fillings):
        super().__init__("")
        self.fillings, self.batches = fillings, []

    def infill(self, canvases, *, num_candidates, seed):
        super().infill(canvases, num_candidates=1, seed=seed)
        self.batches.append([system_text(canvas) for canvas in canvases])
        texts = [self.fillings.get(self._place(shown), "x") for shown in self.batches[-1]]
        return [[Filling((text,), -1.0, 1)] * num_candidates for text in texts]

    @staticmethod
    def _place(shown):
        """The word before the masks; "first" if there is none."""
        return (shown.partition("_")[0].split() or ["first"])[-1]


def run(infiller, text="a b c d", masking=INDEPENDENT, metric=exact, **settings):
    settings = {"denoising": Denoising(num_candidates=1), "budget": "medium", **settings}
    student = dspy.Predict(dspy.Signature("review -> rating", text))
    optimizer = DiffusionInfill(metric, infiller=infiller, masking=masking, **settings)
    return optimizer.compile(student, trainset=reviews())


def accepted(tuned):
    return [trial["after"] for trial in tuned.trial_logs if trial["accepted"]]


def test_all_windows_are_filled_in_one_batch_from_one_base_beside_the_same_examples():
    infiller = Placed(first="warm")
    run(infiller)
    assert infiller.batches == [["___ c d", "a b ___"]]
    first, second = infiller.canvases
    assert first.context == second.context != ()


def test_winners_that_are_better_together_all_stay():
    tuned = run(Placed(first="Be warm", b="or five"))
    assert instructions_of(tuned) == {"self": "Be warm or five"}
    assert [(trial["gain"], trial["score"]) for trial in tuned.trial_logs] == [(5 / 16, 10 / 16)] * 2
    # the start, two winners, and both together
    assert tuned.detailed_results["metric_calls"] == 4 * 16 == tuned.trial_logs[0]["spent"]
    assert [trial["metric_calls"] for trial in tuned.trial_logs] == [16, 16]


def test_winners_that_are_no_better_together_leave_the_best_of_them_alone():
    tuned = run(Placed(first="Be warm", b="be warm"))
    assert instructions_of(tuned) == {"self": "Be warm c d"}
    assert accepted(tuned) == ["Be warm"]
    tuned = run(Placed(first="Be warm", b="warm and five"))
    assert instructions_of(tuned) == {"self": "a b warm and five"}
    assert [trial["gain"] for trial in tuned.trial_logs] == [0.0, 10 / 16]


def test_of_winners_that_overlap_the_one_with_the_larger_gain_is_combined():
    masking = SlidingWindow(window=2, stride=1, mask=1, order="independent", passes=1)
    tuned = run(Placed(first="warm", a="five best", d="warm"), text="a b c d e f", masking=masking)
    assert accepted(tuned) == ["five best", "warm"]
    assert instructions_of(tuned) == {"self": "a five best d warm"}
    tuned = run(Placed(first="warm", a="five", b="best"), text="a b c d", masking=masking)
    assert instructions_of(tuned) == {"self": "warm best"}


class Two(dspy.Module):
    def __init__(self):
        super().__init__()
        self.early = dspy.Predict(dspy.Signature("review -> rating", "a b"))
        self.late = dspy.Predict(dspy.Signature("review -> rating", "c d"))

    def forward(self, review):
        rating = self.early(review=review).rating
        return self.late(review=review) if rating == "no" else dspy.Prediction(rating=rating)


def test_the_windows_of_several_predictors_are_one_batch():
    infiller = ScriptedInfiller("warm", "five warm")
    settings = {"infiller": infiller, "masking": INDEPENDENT, "denoising": Denoising(num_candidates=2)}
    tuned = DiffusionInfill(exact, **settings).compile(Two(), trainset=reviews())
    assert len(infiller.seeds) == 1
    assert [trial["predictor"] for trial in tuned.trial_logs] == ["early", "late"]
    assert tuned.detailed_results["score_after"] == 10 / 16
    assert len(accepted(tuned)) == 1  # the second says nothing that the first did not


def test_what_the_guard_refuses_together_is_not_scored():
    # each alone repeats a word three times, both together six times
    tuned = run(Placed(first="warm warm warm", b="warm warm warm"))
    assert tuned.detailed_results["metric_calls"] == 3 * 16
    assert instructions_of(tuned) == {"self": "warm warm warm c d"}


def test_the_cap_holds_and_the_best_so_far_is_kept():
    for cap in (16, 17, 32, 40, 48, 60, 64):
        calls = []
        metric = lambda e, p, trace=None: calls.append(1) or exact(e, p)  # noqa: B023, E731
        tuned = run(Placed(first="Be warm", b="five"), metric=metric, budget=Budget(metric_calls=cap))
        results = tuned.detailed_results
        assert len(calls) == results["metric_calls"] <= cap
        assert results["score_after"] == {64: 10 / 16}.get(cap, 5 / 16 if cap >= 32 else 0.0)


def test_ctrl_c_in_a_pass_returns_the_best_window_so_far():
    calls = []

    def metric(example, prediction):
        calls.append(1)
        if len(calls) > 40:
            raise KeyboardInterrupt
        return exact(example, prediction)

    tuned = run(Placed(first="Be warm", b="five"), metric=metric, num_threads=1)
    assert tuned.detailed_results["stop_reason"] == "interrupted"
    assert instructions_of(tuned) == {"self": "Be warm c d"}
    assert accepted(tuned) == ["Be warm"]


def test_a_later_pass_starts_from_what_was_put_together():
    masking = SlidingWindow(window=2, stride=2, mask=3, order="independent")
    infiller = Placed(first="Be warm", b="or five", warm="or best five")
    tuned = run(infiller, masking=masking, budget="heavy")
    assert infiller.batches[1] == ["___ or five", "Be warm ___"]
    assert instructions_of(tuned) == {"self": "Be warm or best five"}
    assert tuned.detailed_results["stop_reason"] == "no window helped in 2 passes"


def test_a_run_gives_the_same_on_eight_threads_and_from_its_journal(tmp_path):
    def outcome(num_threads, **settings):
        infiller = Placed(first="Be warm", b="or five")
        tuned = run(infiller, num_threads=num_threads, **settings)
        return tuned.trial_logs, tuned.candidate_programs, infiller.seeds

    single = outcome(1, log_dir=tmp_path)
    assert outcome(8) == outcome(8, log_dir=tmp_path) == single


def test_the_papers_preset_adds_nothing_of_ours(lm):
    infiller = ScriptedInfiller("Rate the text {now} {now}")
    optimizer = DiffusionInfill.paper(exact, infiller=infiller, seed=3)
    text = "Cite {source} and rate the review"
    student = dspy.Predict(dspy.Signature("review -> rating", text))
    tuned = optimizer.compile(student, trainset=reviews(4))
    # one pass over one window; nothing is locked, guarded, raced or kept out
    assert [system_text(canvas) for canvas in infiller.canvases] == ["_" * 8]
    assert len(infiller.canvases[0].context) == 2
    assert tuned.detailed_results["metric_calls"] == 2 * 4
    assert tuned.detailed_results["stop_reason"] == "passes: 1"
    assert (optimizer.seed, optimizer.get_params()["denoising.cache"]) == (3, "exact")


def test_a_run_cut_anywhere_goes_on_to_the_same_end(tmp_path):
    def outcome():
        calls = []
        metric = lambda e, p: calls.append(1) or exact(e, p)  # noqa: E731
        settings = {"selection": Selection(holdout=0.25), "review": lambda edit: True, "log_dir": tmp_path}
        tuned = run(Placed(first="Be warm", b="or five"), metric=metric, **settings)
        check = tuned.detailed_results["confirmation"]
        return len(calls), (instructions_of(tuned), tuned.edits, tuned.trial_logs, check)

    total, whole = outcome()
    journal = tmp_path / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 1 + total + 2  # what it is of, the scores, two answers of the reviewer
    for count in range(1, len(lines), 3):
        journal.write_bytes(b"".join(lines[:count]) + lines[count][:7])
        kept = sum(b'"score"' in line for line in lines[:count])
        assert outcome() == (total - kept, whole)
