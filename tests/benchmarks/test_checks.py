"""What a benchmark refuses before it measures anything, and what its intervals are over."""

import argparse
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks import ablation, results, serve_load, unlock
from benchmarks.checks import parsed
from benchmarks.clusters import crossed_interval, interval
from benchmarks.rating import gain_line, gain_row


def given(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--limit", type=int)
    for name in ("--json", "--figure"):
        parser.add_argument(name, type=Path)
    return parsed(parser, arguments)


@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_count_is_at_least_one(value: str, capsys):
    with pytest.raises(SystemExit):
        given("--limit", value)
    assert f"--limit must be at least 1; got {value}." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["--json", "--figure"])
def test_a_result_that_could_not_be_written_is_refused_at_the_start(name: str, tmp_path: Path, capsys):
    for path, why in ((tmp_path / "nowhere" / "r.json", "No such file"), (tmp_path, "it is a folder")):
        with pytest.raises(SystemExit):
            given(name, str(path))
        assert f"{name} must be a file that can be written; got {path}: {why}" in capsys.readouterr().err


def test_a_result_that_can_be_written_is_left_as_it_was(tmp_path: Path):
    (tmp_path / "r.json").write_text("old")
    assert given("--limit", "1", "--json", str(tmp_path / "r.json")).limit == 1
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_a_figure_that_fails_does_not_lose_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = {"scheme": "s", "seed": 0, "steps": 1, "vague": 0.0, "score": 0.5, "instructions": "x"}
    monkeypatch.setattr(ablation, "run_cells", lambda *_, **__: [[row]])
    monkeypatch.setattr(ablation, "draw", lambda *_: 1 / 0)
    (tmp_path / unlock.SENTENCES).touch()
    monkeypatch.setattr(unlock, "run", lambda *_: ([], []))
    monkeypatch.setattr(unlock, "tables", lambda *_: [])
    monkeypatch.setattr(unlock, "bars", lambda *_: {})
    monkeypatch.setattr(unlock, "draw", lambda *_: 1 / 0)
    for main, more in (
        (ablation.main, ["--what", "steps", "--steps", "1", "--figure", str(tmp_path / "f.svg")]),
        (unlock.main, ["--data", str(tmp_path), "--work", str(tmp_path / "work")]),
    ):
        file = tmp_path / f"{main.__module__}.json"
        with pytest.raises(ZeroDivisionError):
            main([*more, "--json", str(file)])
        assert file.is_file()


def test_a_page_of_no_results_is_refused(tmp_path: Path, capsys):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(SystemExit):
            results.main([str(folder), "--output", str(tmp_path / "page.md")])
        assert f"must be a folder that holds result files; got {folder}" in capsys.readouterr().err


def test_cells_of_one_scheme_are_drawn_together():
    def share(cells):
        return sum(cells) / len(cells)

    cells = [("a", 0.0), ("a", 0.0), ("a", 0.0), ("b", 1.0), ("b", 1.0), ("b", 1.0)]
    assert interval(cells, share) == (0.0, 1.0)  # drawn one by one: nearly never all of one kind
    assert interval(cells[:3], share) is None
    assert interval(cells, lambda drawn: share(drawn) or None) == (0.5, 1.0)
    assert interval(cells, lambda drawn: None) is None


def test_schemes_and_seeds_are_drawn_at_once():
    def share(cells):
        return sum(cells) / len(cells)

    def cells(worth):
        return [(scheme, seed, worth(scheme, seed)) for scheme in "abc" for seed in range(3)]

    by_scheme, by_seed = cells(lambda scheme, _: scheme == "a"), cells(lambda _, seed: seed == 0)
    assert crossed_interval(by_scheme, share) == crossed_interval(by_seed, share) == (0.0, 1.0)
    luck = cells(lambda scheme, seed: scheme == "a" and seed == 0)
    assert crossed_interval(luck, share) == (0.0, pytest.approx(4 / 9))
    assert crossed_interval(by_scheme[::3], share) is None, "one seed"
    assert crossed_interval(by_scheme[:3], share) is None, "one scheme"


def test_one_scheme_has_a_gain_without_an_interval():
    row = gain_row("m", "written", ["a", "a"], [0.0, 0.0], [0.25, 0.75])
    assert (row["gain"], row["low"], row["high"]) == (0.5, None, None)
    assert gain_line(row).endswith("+0.500")


def test_one_scheme_is_drawn_without_intervals(tmp_path: Path):
    rows = [{"steps": steps, "gain": 0.5, "low": None, "high": None} for steps in (1, 2)]
    ablation.draw(rows, tmp_path / "f.svg")
    assert (tmp_path / "f.svg").stat().st_size > 1000


def test_a_server_ends_with_a_measurement_that_failed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(serve_load, "create_app", lambda *_, **__: None)
    server = SimpleNamespace(started=True, should_exit=False)
    over = threading.Event()

    async def serve(sockets):
        while not server.should_exit:
            over.wait(0.01)
        sockets[0].close()

    server.serve = serve
    monkeypatch.setattr(serve_load.uvicorn, "Server", lambda _: server)
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), serve_load.served(None):  # type: ignore[arg-type]
        1 / 0  # noqa: B018
    if not server.should_exit:
        server.should_exit = True
        pytest.fail("The server was left running.")
    assert threading.active_count() == before
