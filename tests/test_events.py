"""Callbacks hear of a run as it goes, and progress is shown where somebody looks."""

import io
import sys

import dspy
import pytest
from dspy.utils.callback import BaseCallback

from dspy_diffusion_infill import Budget, CompactAdapter, Denoising, DiffusionInfill, SlidingWindow
from dspy_diffusion_infill.errors import MetricError, MissingExtraError, SettingsError
from dspy_diffusion_infill.search.events import (
    CandidateScored,
    EditAccepted,
    Event,
    RunEnded,
    RunFailed,
    RunStarted,
    StartScored,
    WindowFilled,
)
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm

rich = pytest.importorskip("rich.console")

SHOW_CURSOR = "\x1b[?25h"


def compile_with(*callbacks, metric=exact, script=("Be warm", "Judge"), **settings):
    defaults = {"budget": Budget(metric_calls=80), "masking": SlidingWindow(passes=1), "num_threads": 1}
    optimizer = DiffusionInfill(
        metric,
        infiller=ScriptedInfiller(*script),
        denoising=Denoising(num_candidates=len(script)),
        callbacks=callbacks,
        **{**defaults, **settings},
    )
    student = dspy.Predict(dspy.Signature("review -> rating", "Rate the text."))
    with dspy.context(lm=rule_lm(obey), adapter=CompactAdapter()):
        return optimizer.compile(student, trainset=reviews(8))


def test_a_run_is_told_from_start_to_end():
    heard = []
    tuned = compile_with(heard.append)
    start, scored, filled, *candidates, accepted, ended = heard
    assert start == RunStarted(
        metric_calls=0, budget="80 metric calls", cap=80, num_examples=8, num_held_out=0
    )
    assert scored == StartScored(metric_calls=8, score=0.0)
    assert filled == WindowFilled(
        metric_calls=8,
        pass_number=1,
        predictor="self",
        start=0,
        before="Rate the text.",
        num_candidates=2,
        num_rejected=0,
    )
    assert [(type(one), one.text, one.score) for one in candidates] == [
        (CandidateScored, found["text"], found["score"]) for found in tuned.trial_logs[0]["candidates"]
    ]
    (edit,) = tuned.edits
    assert accepted == EditAccepted(metric_calls=tuned.trial_logs[0]["spent"], edit=edit, score=5 / 8)
    results = tuned.detailed_results
    assert ended == RunEnded(
        metric_calls=results["metric_calls"], stop_reason="passes: 1", score=5 / 8, verdict="unconfirmed"
    )
    assert all(isinstance(event, Event) for event in heard)


def test_a_run_that_fails_is_told_with_its_error():
    heard = []
    with pytest.raises(MetricError):
        compile_with(heard.append, metric=lambda example, prediction: None)
    assert [type(event) for event in heard] == [RunStarted, RunFailed]
    assert heard[-1].error.startswith("MetricError: metric must return a finite number")


def test_functions_hear_the_run_and_callbacks_of_dspys_hear_dspy():
    class Heard(BaseCallback):
        def __init__(self):
            self.modules = 0

        def on_module_start(self, call_id, instance, inputs):
            self.modules += 1

    heard, listener = [], Heard()
    tuned = compile_with(listener, heard.append)
    assert listener.modules >= tuned.detailed_results["metric_calls"]
    assert isinstance(heard[0], RunStarted)


def test_dspy_does_not_take_functions_for_its_own_callbacks(caplog):
    compile_with([].append)
    names = {record.name for record in caplog.records if record.name.startswith("dspy.")}
    assert names <= {"dspy.teleprompt.diffusion_infill"}


def test_what_a_callback_raises_stops_the_run():
    def refuse(event):
        if isinstance(event, EditAccepted):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        compile_with(refuse)


def test_what_is_no_callback_is_refused_at_construction():
    with pytest.raises(SettingsError, match="callbacks must be DSPy's, or functions of an event; got 'log'"):
        DiffusionInfill(exact, callbacks=["log"])


@pytest.mark.parametrize("callbacks", [None, print])
def test_callbacks_are_a_list(callbacks):
    with pytest.raises(SettingsError, match="callbacks must be a list; got"):
        DiffusionInfill(exact, callbacks=callbacks)


def show_on(page, *, terminal):
    from dspy_diffusion_infill import ShowProgress

    return ShowProgress(rich.Console(file=page, force_terminal=terminal, width=60, force_jupyter=False))


def shown(*, terminal, **settings):
    page = io.StringIO()
    show = show_on(page, terminal=terminal)
    compile_with(show, **settings)
    assert show._live is None
    return page.getvalue()


def test_piped_progress_is_plain_lines():
    page = shown(terminal=False)
    assert page.splitlines() == [
        "Up to 80 metric calls, on 8 examples.",
        "The start scores 0 after 8 metric calls.",
        "self: 'Rate the text.' -> 'Be warm': +0.625, score 0.625 after 20 metric calls.",
        "Ended after 20 metric calls: passes: 1; unconfirmed.",
    ]


def test_a_terminal_gets_a_live_line_that_ends_with_the_run():
    page = shown(terminal=True)
    assert "20/80" in page
    assert SHOW_CURSOR in page
    assert "Up to 80 metric calls, on 8 examples." in page


def test_a_failed_run_ends_its_live_line():
    page = io.StringIO()
    show = show_on(page, terminal=True)
    with pytest.raises(MetricError):
        compile_with(show, metric=lambda example, prediction: None)
    assert show._live is None
    assert SHOW_CURSOR in page.getvalue()


def test_what_a_model_wrote_is_no_markup():
    page = shown(terminal=False, script=("[red]warm[/red]", "[/]"))
    assert "'[red]warm[/red]'" in page


def test_without_rich_the_extra_is_named(monkeypatch):
    import dspy_diffusion_infill

    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.delitem(sys.modules, "rich.console")
    monkeypatch.delitem(sys.modules, "dspy_diffusion_infill.search.progress", raising=False)
    monkeypatch.delitem(vars(dspy_diffusion_infill), "ShowProgress", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'dspy-diffusion-infill\[cli\]'"):
        dspy_diffusion_infill.ShowProgress  # noqa: B018
