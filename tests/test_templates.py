"""Templates: the regions that the user names are filled, and nothing else is."""

import inspect
import re

import dspy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dspy_diffusion_infill import CompactAdapter, Denoising, DiffusionInfill, Template
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.candidates import propose
from dspy_diffusion_infill.prompts.canvas import Filling, Masked
from dspy_diffusion_infill.prompts.program import instructions_of
from dspy_diffusion_infill.prompts.windows import Window
from tests.doubles import ScriptedInfiller, exact, obey, reviews, rule_lm, system_text

ONE = Denoising(num_candidates=1)


@pytest.fixture(autouse=True)
def lm():
    lm = rule_lm(obey)
    with dspy.context(lm=lm, adapter=CompactAdapter(), num_threads=2):
        yield lm


def student(text="Rate the text."):
    return dspy.Predict(dspy.Signature("review -> rating", text))


class Filler(ScriptedInfiller):
    """Fills the masked parts of a canvas with its script, in order."""

    def infill(self, canvases, *, num_candidates, seed):
        super().infill(canvases, num_candidates=1, seed=seed)
        return [[Filling(self.script[: canvas.num_masked_parts], -1.0, 1)] for canvas in canvases]


def run(template, *script, program=None, passes=1, **settings):
    infiller = Filler(*script)
    settings = {"infiller": infiller, "denoising": ONE, "budget": "medium", **settings}
    optimizer = DiffusionInfill(exact, masking=Template(template, passes=passes), **settings)
    return optimizer.compile(program or student(), trainset=reviews()), infiller


def test_the_regions_are_filled_together_and_the_rest_stays():
    template = "Say: {{mask:3}}; labels: {{mask:2}}. Cite {source}."
    tuned, infiller = run(template, "warm", "five")
    assert [system_text(canvas) for canvas in infiller.canvases] == ["Say: ___; labels: __. Cite {source}."]
    assert instructions_of(tuned) == {"self": "Say: warm; labels: five. Cite {source}."}
    (trial,) = tuned.trial_logs
    assert (trial["before"], trial["gain"]) == ("Rate the text.", 10 / 16)


def test_tokens_are_put_in_front_of_the_instructions_that_the_search_starts_from():
    tuned, infiller = run("{{mask:4}}\n{instructions}", "Be warm.", passes=3)
    # an accepted filling is masked again: text does not pile up
    assert [system_text(canvas) for canvas in infiller.canvases] == ["____\nRate the text."] * 3
    assert instructions_of(tuned) == {"self": "Be warm.\nRate the text."}
    contexts = [canvas.context for canvas in infiller.canvases]
    assert contexts[0] != contexts[1]


def test_without_a_limit_passes_go_on_until_none_of_two_helped():
    tuned, infiller = run("{{mask:4}}", "warm", passes=None)
    assert len(infiller.canvases) == 3
    assert tuned.detailed_results["stop_reason"] == "no window helped in 2 passes"


def test_the_margin_of_a_text_in_code_is_not_part_of_it():
    (window,) = Template("""
        Rate it.
          {{mask:2}}
        Now.
    """).cutter("self", "first")("before", [], [])
    assert window.around == ("Rate it.\n  ", "\nNow.")


@pytest.mark.parametrize(
    "typed", ["{instruction}", "{Instructions}", "{{instructions}}", "{{Mask:4}}", "{{masks:4}}"]
)
def test_a_typing_error_in_a_template_is_refused(typed):
    with pytest.raises(SettingsError, match=re.escape(f"and {{instructions}}; got {typed}.")):
        Template(f"{{{{mask:3}}}} Classify. {typed}")


def test_what_looks_like_a_mask_token_is_text():
    template = "Say [MASK], <|mdm_mask|> or {{masked:3}}: {{ mask: 2 }}"
    _, infiller = run(template, "warm")
    (message, *_), (part,) = infiller.canvases[0].messages, [Masked(2)]
    assert message.parts == ("Say [MASK], <|mdm_mask|> or {{masked:3}}: ", part)


def test_instructions_that_hold_the_signs_of_a_template_are_text():
    text = "Keep {{mask:3}} and {instructions}."
    tuned, infiller = run("{{mask:2}} {instructions}", "warm", program=student(text))
    assert system_text(infiller.canvases[0]) == f"__ {text}"
    assert instructions_of(tuned) == {"self": f"warm {text}"}


def test_what_the_user_wrote_passes_the_guard_and_what_is_filled_in_does_not():
    template = "Use {source} and `x` and say very very very very well: {{mask:2}}" + " and so on" * 60
    tuned, _ = run(template, "warm")
    assert tuned.detailed_results["score_after"] == 5 / 16
    tuned, _ = run(template, "warm {oops}")
    (trial,) = tuned.trial_logs
    assert [refused["reason"] for refused in trial["rejected"]] == ["breaks or adds markup"]
    assert instructions_of(tuned) == {"self": "Rate the text."}


class Two(dspy.Module):
    def __init__(self):
        super().__init__()
        self.note = dspy.Predict(dspy.Signature("review -> note", "Take a note."))
        self.rate = dspy.Predict(dspy.Signature("review -> rating", "Rate it."))

    def forward(self, review):
        return self.rate(review=review)


def test_templates_by_name_leave_other_predictors_alone():
    tuned, infiller = run({"rate": "Be {{mask:1}}."}, "warm", program=Two())
    assert instructions_of(tuned) == {"note": "Take a note.", "rate": "Be warm."}
    assert len(infiller.canvases) == 1


def test_one_template_around_their_instructions_serves_several_predictors():
    _, infiller = run("{{mask:1}} {instructions}", "warm", program=Two())
    assert [system_text(canvas) for canvas in infiller.canvases] == ["_ Take a note.", "_ Rate it."]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("Rate it.", r"A template must hold at least one {{mask:N}}; got 'Rate it.'"),
        ("Rate {{mask}}", r"A mask must read {{mask:N}}, N at least 1; got {{mask}}"),
        ("Rate {{mask:0}}", r"A mask must read {{mask:N}}, N at least 1; got {{mask:0}}"),
        ("{{mask:2}} {{mask:-1}}", r"A mask must read {{mask:N}}, N at least 1; got {{mask:-1}}"),
        ({"self": "Rate it."}, r"A template must hold at least one"),
        ({"self": 3}, "A template must be a text; got 3"),
        ({}, "text must be a text, or texts by predictor name; got {}"),
        (8, "text must be a text, or texts by predictor name; got 8"),
    ],
)
def test_a_template_that_says_nothing_to_fill_is_refused_at_construction(template, message):
    with pytest.raises(SettingsError) as raised:
        Template(template)
    assert message in str(raised.value)


def act(question):
    return question


@pytest.mark.parametrize(
    ("template", "program", "message"),
    [
        ({"rated": "{{mask:1}}"}, Two, r"text must name predictors of the program, .*got \['rated'\]"),
        ("{{mask:1}}", Two, "text must be by predictor name, or hold {instructions}"),
        (
            {"react": "{{mask:1}}"},
            lambda: dspy.ReAct("question -> answer", tools=[act]),
            "text must keep what predictor 'react' relies on; it leaves out .*Write {instructions}",
        ),
    ],
)
def test_a_template_that_does_not_fit_the_program_is_refused_before_any_call(template, program, message, lm):
    with pytest.raises(SettingsError, match=message):
        run(template, "warm", program=program())
    assert lm.engine.num_calls == 0


def test_an_agent_keeps_its_protocol_where_the_template_does(lm):
    Template({"react": "{{mask:1}} {instructions}"}).check({"react": ["tools"], "extract": ["all of it"]})
    Template({"react": "{{mask:1}} tools"}).check({"react": ["tools"], "extract": ["all of it"]})


def test_a_lock_for_a_predictor_that_is_not_there_is_refused_before_any_call(lm):
    with pytest.raises(SettingsError, match=r"lock must name predictors .*got \['rated'\]"):
        run("{{mask:1}} {instructions}", "warm", lock={"rated": ["it"]})
    assert lm.engine.num_calls == 0


def test_templates_are_counted_in_an_estimate_and_are_plain_settings():
    optimizer = DiffusionInfill(exact, infiller=Filler("x"), denoising=ONE, masking=Template("{{mask:1}}"))
    assert optimizer.estimate(student(), trainset=reviews()).windows == {"self": 1}
    assert optimizer.get_params()["masking.text"] == "{{mask:1}}"


pieces = st.text(st.sampled_from("ab \n\t{}"), max_size=8)


@settings(deadline=None)
@given(st.lists(pieces, min_size=2, max_size=4), st.data())
def test_the_users_text_survives_to_the_byte_around_every_filling(around, data):
    template = "{{mask:2}}".join(around)
    (window,) = Template(template).cutter("self", "first")("before", [], [])
    texts = tuple(data.draw(pieces) for _ in window.masks)
    candidates, rejected = propose({"self": "before"}, "self", window, [Filling(texts, -1.0, 1)])
    assert len(candidates) + len(rejected) == 1
    for candidate in candidates:
        text, place = candidate["self"], 0
        assert inspect.cleandoc(text) == text
        assert text.startswith(window.around[0])
        assert text.endswith(window.around[-1])
        for piece in window.around:
            place = text.index(piece, place) + len(piece)


def test_each_masked_part_wants_its_text():
    window = Window(5, 8, (2, 3), ("<", "|", ">"))
    assert window.replace("Rate the.", window.fill(["a", "b"])) == "Rate <a|b>."
    assert window.given("Rate the.") == ("Rate <", "|", ">.")
    with pytest.raises(ValueError, match="longer"):
        window.fill(["a"])
