"""Reading traces: every record of a log is a trace, or is listed with its line and the reason."""

import json
import logging
import time
from types import SimpleNamespace

import pytest

from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.trace_formats import from_dspy, from_history, from_mlflow, read_dialogues
from dspy_diffusion_infill.traces import Log, Refused, Trace, hide_secrets, read_traces


def written(folder, *lines):
    path = folder / "log.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return path


def test_a_trace_holds_fields_a_score_and_feedback():
    trace = Trace({"question": "2+2?"}, {"answer": 5}, score=False, feedback="It is 4.")
    assert trace.score == 0.0
    assert isinstance(trace.score, float)
    assert list(trace.texts()) == ["2+2?", "5", "It is 4."]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inputs": "2+2?"}, "inputs must be values by field name; got '2"),
        ({"outputs": {4: "x"}}, "outputs must be values by field name; got {4"),
        ({"score": float("nan")}, "score must be a finite number, or None; got nan"),
        ({"score": "good"}, "score must be a finite number"),
        ({"score": 10**400}, "score must be a finite number, or None; got 1000"),
        ({"feedback": 3}, "feedback must be a text, or None; got 3"),
        ({"predictor": 3}, "predictor must be a text"),
        ({"outputs": {}}, "must hold an output or feedback"),
    ],
)
def test_what_breaks_a_rule_is_no_trace(fields, message):
    with pytest.raises(SettingsError, match=message):
        Trace(**{"inputs": {"question": "2+2?"}, "outputs": {"answer": "5"}, **fields})


def test_json_lines_hold_inputs_and_outputs(tmp_path):
    path = written(
        tmp_path,
        '{"inputs": {"question": "a", "hint": null}, "outputs": {"answer": "b"}, "score": 1}',
        '{"inputs": "hello", "outputs": "hi", "feedback": "Too short.", "score": null}',
    )
    assert read_traces(path) == Log(
        [
            Trace({"question": "a"}, {"answer": "b"}, 1.0),
            Trace({"inputs": "hello"}, {"outputs": "hi"}, None, "Too short."),
        ],
        [],
    )


def test_keys_of_a_flat_log_are_named(tmp_path):
    path = written(tmp_path, '{"q": "a", "a": "b", "stars": 0.5, "said": "Meh.", "id": 7}')
    log = read_traces(path, inputs=["q"], outputs=["a"], score="stars", feedback="said")
    assert log.traces == [Trace({"q": "a"}, {"a": "b"}, 0.5, "Meh.")]


def test_every_bad_record_is_listed_with_its_line_and_reason(tmp_path, caplog):
    good = '{"q": "a", "a": "b"}'
    lines = (
        "",
        good,
        "{oops",
        "[1]",
        '{"q": "a"}',
        '{"q": null, "a": "b"}',
        b'{"q": "\xff", "a": "b"}',
        good,
    )
    path = written(tmp_path, *lines, '{"q": "a", "a": "b", "score": "5 stars"}', '{"q": "a", "a": null}')
    with caplog.at_level(logging.WARNING):
        log = read_traces(path, inputs=["q"], outputs=["a"])
    assert log.traces == [Trace({"q": "a"}, {"a": "b"})] * 2
    assert [one.line for one in log.refused] == [3, 4, 5, 6, 7, 9, 10]
    assert [one.reason for one in log.refused][1:4] == [
        "It must be a JSON object; got [1].",
        "It lacks 'a'.",
        "Its inputs are empty.",
    ]
    assert caplog.messages == [
        f"7 of 9 records of {path} are no traces, the first on line 3: {log.refused[0].reason}"
    ]


def test_a_score_too_large_for_a_number_costs_its_line_alone(tmp_path):
    good = '{"inputs": "a", "outputs": "b"}'
    log = read_traces(written(tmp_path, good[:-1] + f', "score": 1{"0" * 400}}}', good))
    assert [one.line for one in log.refused] == [1]
    assert len(log.traces) == 1


def test_a_key_that_no_record_has_is_told(tmp_path, caplog):
    (tmp_path / "log.jsonl").write_text('{"q": "a", "a": "b", "s": 1}\n')
    named = {"inputs": ["q"], "outputs": ["a"]}
    read_traces(tmp_path / "log.jsonl", **named, score="s")
    assert not caplog.text
    read_traces(tmp_path / "log.jsonl", **named, score="scoer")
    assert "log.jsonl has 'scoer'." in caplog.text


def test_keys_are_a_list(tmp_path):
    for name in ("inputs", "outputs"):
        with pytest.raises(SettingsError, match=rf"{name} must be a list of keys; got 'q'. Say \['q'\]"):
            read_traces(written(tmp_path, '{"q": "a"}'), **{name: "q"})


class Found(dict):
    """Like a Prediction: its items are the fields."""


def test_a_dspy_trace_gives_one_trace_a_call_with_the_predictors_name():
    ask, other = object(), object()
    program = SimpleNamespace(named_predictors=lambda: [("ask", ask)])
    steps = [(ask, {"q": "a"}, Found(a="b")), (other, {"x": "1"}, Found(y="2"))]
    assert from_dspy(steps, program, score=0, feedback="No.") == [
        Trace({"q": "a"}, {"a": "b"}, 0.0, "No.", "ask"),
        Trace({"x": "1"}, {"y": "2"}, 0.0, "No."),
    ]


def test_a_history_gives_what_was_sent_last_and_the_answer():
    parts = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": "x"}]
    history = [
        {
            "messages": [{"role": "system", "content": "Be."}, {"role": "user", "content": "hi"}],
            "outputs": ["yo"],
        },
        {"prompt": "hello", "messages": None, "outputs": [{"text": "hey", "logprobs": None}]},
        {"messages": [{"role": "user", "content": parts}], "outputs": ["seen"]},
        {"messages": [{"role": "user", "content": "hi"}], "outputs": []},
        "no entry",
    ]
    log = from_history(history)
    assert [(dict(one.inputs), dict(one.outputs)) for one in log.traces] == [
        ({"prompt": "hi"}, {"response": "yo"}),
        ({"prompt": "hello"}, {"response": "hey"}),
        ({"prompt": "Look"}, {"response": "seen"}),
    ]
    assert [one.line for one in log.refused] == [4, 5]


def mlflow_trace(inputs='{"question": "a"}', outputs='{"answer": "b"}', assessments=()):
    """As `mlflow.entities.Trace.to_dict` writes it."""
    attributes = {"mlflow.spanInputs": inputs, "mlflow.spanOutputs": outputs, "mlflow.spanType": '"CHAIN"'}
    child = {"name": "llm", "span_id": "c", "parent_span_id": "r", "attributes": {"mlflow.spanInputs": '"x"'}}
    root = {"name": "run", "span_id": "r", "parent_span_id": None, "attributes": attributes}
    return {"info": {"trace_id": "tr-1", "assessments": list(assessments)}, "data": {"spans": [child, root]}}


def said(name, value, rationale=None):
    found = {"assessment_name": name, "source": {"source_type": "HUMAN"}, "feedback": {"value": value}}
    return found | ({"rationale": rationale} if rationale else {})


def test_an_mlflow_trace_gives_its_root_span_and_what_was_said_of_it():
    expected = {"assessment_name": "gold", "expectation": {"value": "c"}}
    old = said("correct", True, "Fine.") | {"valid": False}
    rated = [old, said("correct", False, "It is c."), said("stars", 0.5), said("tone", "rude"), expected]
    plain = mlflow_trace(assessments=rated)
    wanted = Trace({"question": "a"}, {"answer": "b"}, 0.25, "tone: rude It is c.")
    assert from_mlflow([plain, SimpleNamespace(to_dict=lambda: plain)]).traces == [wanted, wanted]
    assert from_mlflow([mlflow_trace('"hi"', '"yo"')]).traces == [Trace({"inputs": "hi"}, {"outputs": "yo"})]


def test_every_rating_of_an_mlflow_trace_counts_and_a_null_is_no_input():
    rated = [said("ok", 0), said("ok", 1), said("ok", 0), said("tone", "rude"), said("tone", "kind")]
    (trace,) = from_mlflow([mlflow_trace(assessments=rated)]).traces
    assert trace.score == pytest.approx(1 / 3)
    assert trace.feedback == "tone: rude tone: kind"
    large = mlflow_trace(assessments=[said("ok", 10**400)])
    assert [one.line for one in from_mlflow([mlflow_trace('{"q": null}'), large]).refused] == [1, 2]


def test_mlflow_traces_without_a_root_inputs_or_answer_are_listed():
    bare = {"info": {}, "data": {"spans": []}}
    log = from_mlflow([bare, mlflow_trace(inputs=None), mlflow_trace(outputs="null"), 3])
    assert log.traces == []
    assert [one.line for one in log.refused] == [1, 2, 3, 4]
    assert "include_spans=True" in log.refused[0].reason


TRANSCRIPT = "user: Cancel it.\nassistant: None\ntool: {}\nassistant: Which one?\nThe first?\nuser: Both.\n"


def test_a_transcript_is_a_conversation_up_to_the_last_answer_in_words(tmp_path):
    record = {"transcript": TRANSCRIPT + "assistant: Done.\nuser: Bye.", "reward": 1.0, "feedback": "Quick."}
    path = written(tmp_path, json.dumps(record), "")
    (trace,) = read_dialogues(path).traces
    assert trace.inputs == {
        "conversation": "user: Cancel it.\ntool: {}\nassistant: Which one?\nThe first?\nuser: Both."
    }
    assert (trace.outputs, trace.score, trace.feedback) == ({"reply": "Done."}, 1.0, "Quick.")


def test_turns_with_tool_calls_are_read_from_a_json_list(tmp_path):
    call = {"function": {"name": "find", "arguments": '{"id": 1}'}, "id": "c1", "type": "function"}
    turns = [
        {"role": "system", "content": "The policy."},
        {"role": "user", "content": "Find it."},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "here"},
        {"role": "assistant", "content": "It is here.", "tool_calls": None},
    ]
    path = written(tmp_path, json.dumps([{"traj": turns, "reward": 0.0}, {"traj": turns[:3]}, {"x": 1}, 5]))
    log = read_dialogues(path)
    assert log.traces == [
        Trace(
            {"conversation": 'user: Find it.\nassistant: [call find {"id": 1}]\ntool: here'},
            {"reply": "It is here."},
            0.0,
        )
    ]
    assert [one.line for one in log.refused] == [2, 3, 4]
    assert log.refused[0] == Refused(2, "It must hold an answer of the assistant in words.")


def test_an_answer_that_nothing_came_before_is_listed(tmp_path):
    log = read_dialogues(written(tmp_path, '{"transcript": "assistant: Hello."}', '{"transcript": ""}'))
    assert [one.line for one in log.refused] == [1, 2]


ASKED = {"role": "user", "content": "Hi."}
ANSWERED = {"role": "assistant", "content": "Yes."}
CALL = {"function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("role", ["system", "System", "developer"])
def test_no_turn_of_the_system_is_shown(tmp_path, role):
    turns = [{"role": role, "content": "Be kind."}, ASKED, ANSWERED]
    (trace,) = read_dialogues(written(tmp_path, json.dumps({"messages": turns}))).traces
    assert trace.inputs == {"conversation": "user: Hi."}


@pytest.mark.parametrize(
    ("turn", "shown"),
    [
        ({"content": "None", "tool_calls": [CALL]}, "[call f {}]"),
        ({"content": None, "function_call": CALL["function"]}, "[call f {}]"),
        ({"content": [{"type": "text", "text": None}], "tool_calls": [CALL]}, "[call f {}]"),
        ({"content": " \n"}, None),
    ],
)
def test_a_call_or_a_blank_is_no_answer_in_words(tmp_path, turn, shown):
    turns = [ASKED, {"role": "assistant", **turn}]
    lines = [json.dumps({"traj": all_turns}) for all_turns in (turns, [*turns, ANSWERED])]
    log = read_dialogues(written(tmp_path, *lines))
    assert log.refused == [Refused(1, "It must hold an answer of the assistant in words.")]
    wanted = ["user: Hi.", *([f"assistant: {shown}"] if shown else [])]
    assert log.traces == [Trace({"conversation": "\n".join(wanted)}, {"reply": "Yes."})]


def test_an_answer_in_brackets_and_one_in_parts_are_words(tmp_path):
    parts = [{"type": "text", "text": None}, {"type": "text", "text": "cat"}]
    answers = ["[call me]", parts]
    lines = [json.dumps({"messages": [ASKED, {"role": "assistant", "content": one}]}) for one in answers]
    log = read_dialogues(written(tmp_path, *lines))
    assert [trace.outputs["reply"] for trace in log.traces] == ["[call me]", "cat"]


def test_a_call_in_a_transcript_is_no_answer_in_words(tmp_path):
    log = read_dialogues(written(tmp_path, '{"transcript": "user: Hi.\\nassistant: [call f {}]"}'))
    assert log.refused == [Refused(1, "It must hold an answer of the assistant in words.")]


def test_a_transcript_begins_with_a_role_and_keeps_what_its_user_wrote(tmp_path):
    texts = ["I log in.\nuser: Hi.\nassistant: Yes.", "system: Be.\nuser: Hi.\nsystem: down\nassistant: Yes."]
    log = read_dialogues(written(tmp_path, *(json.dumps({"transcript": text}) for text in texts)))
    reason = "Its transcript must begin with a role; it begins with 'I log in.\\n'."
    assert log.refused == [Refused(1, reason)]
    assert [trace.inputs["conversation"] for trace in log.traces] == ["user: Hi.\nsystem: down"]


@pytest.mark.parametrize(
    ("first", "refused"),
    [(b'["x"]', [1]), (b'[{"mess', [1]), (b"[" * 9999, [1]), (b"  ", []), (b"\xef\xbb\xbf", [])],
)
def test_a_damaged_first_line_costs_itself_alone(tmp_path, first, refused):
    good = json.dumps({"traj": None, "messages": [ASKED, ANSWERED]})
    log = read_dialogues(written(tmp_path, first, good))
    assert len(log.traces) == 1
    assert [one.line for one in log.refused] == refused


def test_a_byte_order_mark_before_a_list_is_passed_over(tmp_path):
    good = json.dumps([{"messages": [ASKED, ANSWERED]}]).encode()
    assert len(read_dialogues(written(tmp_path, b"\xef\xbb\xbf" + good)).traces) == 1


def test_all_dialogues_of_tau_bench_are_read(shared_data):
    log = read_dialogues(shared_data / "traces_tau.jsonl")
    assert (len(log.traces), log.refused) == (288, [])
    assert sum(trace.score == 1.0 for trace in log.traces) == 84
    assert sum(trace.score == 0.0 for trace in log.traces) == 116


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("use sk-proj-abcdefghij0123456789.", "use [hidden]."),
        ("ghp_abcdefghijklmnopqrst0123 x", "[hidden] x"),
        ("AKIAABCDEFGHIJKLMNOP", "[hidden]"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer [hidden]"),
        ("password: hunter22, ok", "password[hidden], ok"),
        ('{"api_key": "abcd1234"}', '{"api_key[hidden]"}'),
        ("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl", "[hidden]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[hidden]"),
        ("hf_abcdefghijklmnopQRST", "[hidden]"),
        ("github_pat_11ABCDEFG0abcdefghijkl", "[hidden]"),
        ("AIzaSyA1234567890abcdefghijklmnopqrstuv", "[hidden]"),
        ("ASIAABCDEFGHIJKLMNOP", "[hidden]"),
        ("glpat-abcdefghij0123456789", "[hidden]"),
        ("npm_abcdefghijklmnopqrst0123", "[hidden]"),
        ("xapp-1-A0123-4567", "[hidden]"),
        ("SG.abcdefghijklmnop.abcdefghijklmnopqr", "[hidden]"),
        (r"a\nsk-proj-abcdefghij0123456789", r"a\n[hidden]"),
        ("aws_secret_access_key = wJalr/ab+c", "aws_secret_access_key[hidden]"),
        ('"SecretAccessKey": "wJalr"', '"SecretAccessKey[hidden]"'),
        ("SECRET_KEY=abcd access_key=efgh", "SECRET_KEY[hidden] access_key[hidden]"),
        ('"private_key": "ab cd"', '"private_key[hidden]"'),
        ("pwd=abcd passphrase: efgh API key: ijkl", "pwd[hidden] passphrase[hidden] API key[hidden]"),
        (r"{\"password\": \"hunter2 hunter2\", \"a\": 1}", r"{\"password[hidden]\", \"a\": 1}"),
        (r"{\"password\": \"hunter2\\\"TAIL\"}", r"{\"password[hidden]\"}"),
        ("postgres://admin:p:w@host/db", "postgres://admin:[hidden]@host/db"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: Basic [hidden]"),
        ("Bearer  abcdefgh", "Bearer  [hidden]"),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nabc\n-----END PGP PRIVATE KEY BLOCK----- x",
            "[hidden] x",
        ),
        ("-----BEGIN PRIVATE KEY-----\nabc", "[hidden]"),
        ('password: "correct horse battery staple" x', 'password[hidden]" x'),
        ("password: 'abcd;TAIL' x", "password[hidden]' x"),
        (r'password: "abc\"TAIL" x', 'password[hidden]" x'),
        ("password=ab,cdTAIL x", "password[hidden] x"),
        ("token=12345:AbcdTAIL", "token[hidden]"),
        ("login --password hunter22 -v", "login --password [hidden] -v"),
        ("--db-api-key  'ab cd' --token 12345678", "--db-api-key [hidden]' --token [hidden]"),
        ("Cookie: sid=abcd; theme=dark\nHost: a", "Cookie: [hidden]\nHost: a"),
        ('{"set-cookie": "sid=abcd; Path=/", "a": 1}', '{"set-cookie": "[hidden]", "a": 1}'),
    ],
)
def test_what_looks_like_a_secret_is_hidden_and_nothing_else(text, hidden):
    assert hide_secrets(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "The secret garden has 5 tokens, max_tokens=4096.",
        "sk-learn-is-a-fine-library",
        "pk_constraint_name_of_table",
        'max_token=4096, {"token": 12}',
        "http://127.0.0.1:8011/v1, ann@x.org",
        "Options: --password --token, --max-token 4096. Best cookie: oats and honey.",
    ],
)
def test_what_is_no_secret_is_shown(text):
    assert hide_secrets(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "eyJ-",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ",
        "sk-",
        "://a:",
        "secret-",
        "token ",
        "SG.",
        'pwd="',
        "--password ",
        "--a-",
        "cookie: a",
    ],
)
def test_a_long_text_takes_linear_time(text):
    started = time.process_time()
    hide_secrets(text * (100_000 // len(text)))
    assert time.process_time() - started < 2  # a quadratic search takes ten and more
