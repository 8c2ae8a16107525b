"""The benchmark of the claim, cut short: it runs, keeps what it did, and reports what it found."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
import torch

from benchmarks import unlock, unlock_cells, unlock_models
from benchmarks.demo_gap import Cell
from benchmarks.tasks import RandomInfiller, WithoutExamples
from benchmarks.unlock import about, run
from benchmarks.unlock_cells import Scores, controls
from benchmarks.unlock_data import conversations, stop_share, unpaired
from benchmarks.unlock_models import OBJECTIVES, VARIANTS, Models, Plan
from benchmarks.unlock_tables import Seed, along, bars, draw, tables
from benchmarks.work_folder import claim
from dspy_diffusion_infill import demo
from dspy_diffusion_infill.engine.vocabulary import Vocabulary
from dspy_diffusion_infill.errors import SettingsError
from dspy_diffusion_infill.prompts.canvas import Canvas, Masked, Message
from dspy_diffusion_infill.training import trainer
from dspy_diffusion_infill.training.loss import IGNORED
from dspy_diffusion_infill.training.schemes import ORACLE, Instruction, held_out_schemes
from dspy_diffusion_infill.training.world import PARTS, Stage
from tests.training.conftest import TINY

SHORT = Plan(
    recipe=TINY,
    start_updates=2,
    public=(Stage(name="all", num_updates=2, learning_rate=1e-3, objectives=("ro",)),),
    refinement=6,
    variants=tuple(VARIANTS),
    num_schemes=1,
    held_out=8,
)
SEED = Seed(0, {}, {}, {})
CONTROLS = ("none", "vague", "oracle", "nearest", "random", "shuffled", "no_examples", "guess")


class InPlace:
    """In place of a pool of processes: its tasks, one after the other, where they can be watched."""

    def __init__(self, **settings) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        pass

    map = staticmethod(map)


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_variants_take_equally_many_updates_from_one_parent():
    def updates(path: tuple[str, ...]) -> int:
        return sum(stage.num_updates for end in range(2, len(path) + 1) for stage in SHORT.stages(path[:end]))

    lengths = {name: updates(path) for name, path in VARIANTS.items()}
    assert lengths == {"public": 0, "ro": 6, "fs": 6, "fs_first": 4, "fsro": 6, "eq2": 6, "mix": 6}
    for path in VARIANTS.values():
        for end in range(2, len(path) + 1):
            (stage,) = SHORT.stages(path[:end])
            assert stage.objectives == OBJECTIVES[path[end - 1]]


def test_the_last_third_of_every_variant_is_gentle():
    for path in (path for path in VARIANTS.values() if len(path) == 3):
        stages = [stage for end in (2, 3) for stage in SHORT.stages(path[:end])]
        assert [(stage.learning_rate, stage.decay) for stage in stages] == [(8e-4, False), (2e-4, True)]


def test_one_variant_masks_any_token_as_the_paper_does():
    given = {
        name: {
            (stage.given_share, stage.answers_given)
            for end in range(2, len(path) + 1)
            for stage in SHORT.stages(path[:end])
        }
        for name, path in VARIANTS.items()
    }
    assert given.pop("eq2") == {(0.0, 0.0)}
    assert set().union(*given.values()) == {(0.95, 0.6)}


def test_the_mix_is_made_where_it_is_asked_for():
    assert set(VARIANTS) - set(Plan().variants) == {"mix"}


def test_public_saw_responses_alone():
    assert {objective for stage in Plan().public for objective in stage.objectives} <= {"ro", "rest"}


@pytest.mark.slow
@pytest.mark.usefixtures("ready_tokenizer")
def test_a_short_run_measures_every_variant_and_a_second_one_only_reads_it(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(demo, "NUM_SHOTS", 4)
    monkeypatch.setattr(demo, "NUM_SCORED", 6)
    monkeypatch.setattr(unlock_cells, "SHUFFLES", 2)
    monkeypatch.setattr(unlock, "ProcessPoolExecutor", InPlace)
    work = tmp_path / "work"
    cells, seeds = run(real, work, SHORT, [0], str(work / "start"))
    orders = {f"shuffled#{order}" for order in range(unlock_cells.SHUFFLES)}
    ways = {f"{name}@{updates}" for name in ("ro", "fs", "fsro", "eq2", "mix") for updates in (0, 2, 4, 5, 6)}
    assert [set(cell.scores) for cell in cells] == [{*CONTROLS, *VARIANTS, *ways}]
    assert set(cells[0].instructions) == set(cells[0].scores) - {"shuffled", "guess"} | orders
    folders = Models(real, work, SHORT).checkpoints(0)
    assert weights(folders["fs@0"]) == weights(folders["public"]) != weights(folders["fs@2"])
    assert weights(folders["fs@2"]) == weights(folders["fsro@2"]) != weights(folders["fs_first"])
    assert weights(folders["fsro@4"]) == weights(folders["fs_first"]) != weights(folders["fsro@5"])
    assert weights(folders["fsro@6"]) == weights(folders["fsro"]) != weights(folders["fsro@5"])
    assert f"({1 / cells[0].scores['guess']:.0f})" in cells[0].scheme
    (found,) = seeds
    for name in VARIANTS:
        assert set(found.own[name]) == {"none", "own", "fsro", "oracle"}
        assert 0 <= found.losses[name]["stop_share"] <= 1
        assert found.losses[name]["prompt_perplexity"] > 1
    assert found.curves["fsro"][: len(found.curves["fs_first"])] == found.curves["fs_first"]
    assert len(found.curves["fsro"]) > len(found.curves["fs_first"]) > len(found.curves["public"]) == 1
    updates = [entry["updates"] for entry in found.curves["fsro"]]
    assert updates == sorted(set(updates))
    assert updates[0] == 0
    assert updates[-1] == SHORT.refinement
    draw(tmp_path / "figure.svg", cells, seeds)
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    assert [line.split()[0] for line in tables(cells, seeds) if line.startswith("fsro")] == ["fsro"] * 3
    monkeypatch.setattr(trainer.MaskedDiffusionTrainer, "training_step", lambda *_: 1 / 0)
    assert run(real, work, SHORT, [0], str(work / "start")) == (cells, seeds)
    with pytest.raises(SettingsError, match="another task"):
        run(real, work, SHORT, [0], "embedded")


def test_a_work_folder_is_of_one_task_plan_and_data(tmp_path: Path):
    for name in ("data", "others"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sst5_train.jsonl").write_text(f'{{"text": "{name}"}}\n')
    told = about(tmp_path / "data", SHORT, "embedded")
    claim(tmp_path / "work", told)
    claim(tmp_path / "work", about(tmp_path / "data", replace(SHORT, variants=("public",)), "embedded"))
    for other, aspect in (
        (about(tmp_path / "data", SHORT, "elsewhere"), "task"),
        (about(tmp_path / "data", replace(SHORT, refinement=9), "embedded"), "plan"),
        (about(tmp_path / "others", SHORT, "embedded"), "data"),
    ):
        with pytest.raises(SettingsError, match=rf"run with another {aspect}\. Use another folder\."):
            claim(tmp_path / "work", other)


def test_work_that_does_not_say_of_what_it_is_is_refused(tmp_path: Path):
    (tmp_path / "cell-0-0-of-5.json").write_text("{}")
    with pytest.raises(SettingsError, match=r"--work must be a new folder.* Use a new one\."):
        claim(tmp_path, {"task": "embedded"})


def test_seeds_share_no_model_but_the_start(tmp_path: Path):
    models = object.__new__(Models)
    models.work = tmp_path
    folders = {seed: {name: models._folder(path, seed) for name, path in VARIANTS.items()} for seed in (0, 1)}
    assert len({*folders[0].values(), *folders[1].values()}) == 2 * len(VARIANTS)


def test_the_control_without_examples_shows_none():
    class Spy:
        name, context_length = "spy", 512
        seen: tuple = ()

        def infill(self, canvases, **_):
            self.seen = tuple(canvases)
            return []

    spy = Spy()
    canvas = Canvas((Message("system", (Masked(2),)),), (Message.text("user", "secret"),))
    WithoutExamples(spy).infill([canvas], num_candidates=1, seed=0)  # type: ignore[arg-type]
    assert spy.seen == (replace(canvas, context=()),)


def test_gaps_are_those_of_the_demo_with_an_interval_over_schemes_and_seeds():
    scores = dict.fromkeys((*CONTROLS, *VARIANTS), 0.2) | {"vague": 0.0, "oracle": 0.8, "fsro": 0.6}
    kappas = scores | {"vague": 0.2}
    cell = Cell("generated", "1..5", 0, {}, scores, kappas, 1.0)
    other = replace(cell, scheme="a..e", scores=scores | {"fsro": 1.0})
    cells = [replace(one, seed=seed) for one in (cell, other) for seed in (0, 1)]
    found = bars(cells)
    assert found["fsro_gap_closed"] == pytest.approx(0.875)  # (.6 + .8, clipped at the oracle) over 1.6
    assert found["ro_gap_closed"] == found["shuffled_gap_closed"] == pytest.approx(0.25)
    lines = {line.split()[0]: line for line in islice(tables(cells, [SEED]), 1 + len(scores))}
    assert lines["fsro"].split()[1:5] == ["0.800", "0.87", "[0.75,", "1.00]"]
    assert lines["fsro"].split()[5:] == ["0.600", "0.67", "[0.67,", "0.67]"]
    assert lines["oracle"].split()[1:] == ["0.800", "0.800"]
    alone = {line.split()[0]: line for line in islice(tables(cells[:1], [SEED]), 1 + len(scores))}
    assert alone["fsro"].split()[1:] == ["0.600", "0.75", "0.600", "0.67"]
    assert found["fsro_kappa_closed"] == pytest.approx(2 / 3)  # .4 of .6
    assert found["shuffled_kappa_closed"] == 0.0
    way = scores | {"fs@1200": 0.6, "fs@400": 0.4, "fsro@400": 0.8}
    assert along([replace(cell, scores=way)], "fs") == [(400, 0.5), (1200, pytest.approx(0.75))]
    shown = islice(tables([replace(cell, scores=way, kappas=way)], [SEED]), 4 + len(scores))
    assert [line.split() for line in shown if "400" in line] == [
        ["fs", "400:", "0.50", "1200:", "0.75"],
        ["fsro", "400:", "1.00"],
    ]
    assert bars([replace(cell, scores=way, kappas=way)]).keys() == found.keys()
    nothing = scores | {"oracle": 0.0}
    assert bars([replace(cell, scores=nothing, kappas=nothing)]) == {}


def test_shuffled_labels_count_as_the_mean_of_their_orders():
    found = unlock_cells.averaged({"fsro": 0.5, "shuffled#0": 0.0, "shuffled#1": 0.5})
    assert found == {"fsro": 0.5, "shuffled": 0.25}


@pytest.mark.parametrize("options", [[], ["--data", "nowhere"]])
def test_data_that_is_not_there_is_refused_before_anything_is_made(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unlock, "DATA", Path("absent"))
    with pytest.raises(SystemExit):
        unlock.main(["--json", "found.json", *options])
    where = options[-1] if options else "absent"
    assert f"--data must be a folder with sst5_train.jsonl; got {where}." in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_each_control_lacks_what_its_name_says(vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[list[Any], Any]] = []

    def written(shots: Any, seed: int, filler: Any) -> str:
        asked.append((list(shots), filler))
        return str(len(asked) - 1)

    monkeypatch.setattr(unlock_cells, "written", written)
    shots = [dspy.Example(review=str(n), rating=str(n)).with_inputs("review") for n in range(8)]
    filler: Any = SimpleNamespace(name="it", context_length=512, model=SimpleNamespace(vocabulary=vocabulary))
    found = {name: asked[int(text)] for name, text in controls(shots, 3, filler).items()}
    assert isinstance(found["random"][1], RandomInfiller)
    assert isinstance(found["no_examples"][1], WithoutExamples)
    orders = [value for name, value in found.items() if name.startswith("shuffled")]
    assert len(orders) == unlock_cells.SHUFFLES
    for shown, by in orders:
        assert by is filler
        assert [one.review for one in shown] == [one.review for one in shots]
        assert [one.rating for one in shown] != [one.rating for one in shots]
        assert sorted(one.rating for one in shown) == [one.rating for one in shots]
    assert len({tuple(one.rating for one in shown) for shown, _ in orders}) > 1


class Told:
    """In place of `Models`."""

    plan = SHORT

    def __init__(self, work: Path) -> None:
        self.work = work

    def variant(self, name: str, seed: int) -> Path:
        return Path(f"{name}-of-{seed}")

    def checkpoints(self, seed: int) -> dict[str, Path]:
        return {"fsro": self.variant("fsro", seed)}


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Scores, list[Any]]:
    """Scores whose parts say what they were asked for."""
    log: list[Any] = []
    scores = Scores(Told(tmp_path), "the task LM")  # type: ignore[arg-type]

    class Answering:
        def __init__(self, model: str) -> None:
            self.model = model

        def __enter__(self):
            log.append(("answers", self.model))

        def __exit__(self, *error: object) -> None:
            log.append(("done", self.model))

    def measured(cell: Cell, scored: Any) -> Cell:
        log.append(("scored", tuple(scored)))
        return replace(
            cell, scores=dict.fromkeys(cell.instructions, 0.5), kappas=dict.fromkeys(cell.instructions, 0.1)
        )

    def wrote(shots: Any, seed: int, told: Any) -> dict[str, str]:
        log.append(("shown", tuple(shots), seed, told))
        return {"shuffled#0": "", **({name: name for name in told} if isinstance(told, dict) else {})}

    def score(text: str, examples: Any) -> float:
        log.append(("score", text, tuple(examples)))
        return 0.5

    monkeypatch.setattr(scores, "answering", Answering)
    monkeypatch.setattr(unlock_cells, "infiller", lambda path: path)
    for name, part in (("measured", measured), ("controls", wrote), ("by_models", wrote), ("score", score)):
        monkeypatch.setattr(unlock_cells, name, part)
    return scores, log


def test_a_cell_shows_some_reviews_and_is_scored_on_others_by_the_fixed_task_lm(
    watched: tuple[Scores, list[Any]],
):
    scores, log = watched
    cell = scores.cell(7, 1)
    scheme = held_out_schemes()[1]
    shots, scored = map(tuple, unlock_cells.split(scores.reviews, scheme, 7))
    by_fsro = Path("fsro-of-7")
    assert log == [
        ("answers", "the task LM"),
        ("shown", shots, 7, by_fsro),
        ("shown", shots, 7, {"fsro": by_fsro}),
        ("scored", scored),
        ("done", "the task LM"),
    ]
    assert (cell.scheme, cell.seed) == (scheme.name, 7)
    assert cell.instructions["oracle"] == Instruction(ORACLE, scheme).text
    assert cell.instructions["vague"] == unlock_cells.VAGUE
    assert cell.instructions["nearest"] not in ("", cell.instructions["oracle"])
    assert len({cell.instructions[name] for name in ("none", "vague", "oracle")}) == 3
    assert cell.scores["guess"] == 1 / len(scheme.labels)


def test_a_variant_answers_for_itself_on_reviews_it_was_not_shown(watched: tuple[Scores, list[Any]]):
    scores, log = watched
    scores.cell(7, 0)
    log.clear()
    scores.own(7, "fsro")
    scheme = held_out_schemes()[0]
    scored = tuple(unlock_cells.split(scores.reviews, scheme, 7)[1])
    asked = ("answers", "fsro-of-7"), ("done", "fsro-of-7")
    texts = [unlock_cells.NONE, "fsro", "fsro", Instruction(ORACLE, scheme).text]
    assert log == [asked[0], *(("score", text, scored) for text in texts), asked[1]]


class Guessing(torch.nn.Module):
    """Guesses a stop token at masks alone."""

    def __init__(self, vocabulary: Vocabulary, other: int) -> None:
        super().__init__()
        self.mask, self.stop, self.other, self.size = (
            vocabulary.mask_token_id, next(iter(vocabulary.stop_ids)), other, vocabulary.num_ids
        )  # fmt: skip

    def forward(self, input_ids: torch.Tensor, use_cache: bool):
        guesses = torch.where(input_ids == self.mask, self.stop, self.other)
        return SimpleNamespace(logits=torch.nn.functional.one_hot(guesses, self.size).float())


def test_stop_tokens_are_counted_where_the_instruction_is_masked_and_only_there(vocabulary: Vocabulary):
    examples = conversations(vocabulary, 6)
    assert stop_share(Guessing(vocabulary, other=5), examples, vocabulary) == 1.0
    halting = Guessing(vocabulary, other=next(iter(vocabulary.stop_ids)))
    halting.stop = 5
    assert stop_share(halting, examples, vocabulary) == 0.0


def test_losses_are_measured_on_schemes_that_no_model_saw(vocabulary: Vocabulary):
    found = [vocabulary.decode(example.ids) for example in conversations(vocabulary, 8)]
    schemes = (held_out_schemes() * 8)[:8]
    for text, scheme in zip(found, schemes, strict=True):
        assert Instruction(ORACLE, scheme).text in text
        assert any(text.rstrip().removesuffix("<|eot_id|>").endswith(f"\n{label}") for label in scheme.labels)


def test_what_is_unpaired_is_one_turn_masked_anywhere(vocabulary: Vocabulary):
    batch = unpaired(vocabulary, 2000, "0:0")
    texts = [vocabulary.decode(row.tolist()) for row in batch["input_ids"]]
    kinds = [["system" in text, "user" in text] for text in texts]
    assert all(sum(kind) == 1 for kind in kinds)
    assert [True, False] in kinds
    assert [False, True] in kinds
    assert ((batch["labels"] != IGNORED).sum(1) > 0).all()
    assert 2000 <= int(batch["attention_mask"].sum()) < 2100


def test_each_part_is_learned_from_the_one_before_it_and_drawn_by_its_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models: Any = object.__new__(Models)
    models.work, models.plan, models.start = tmp_path, SHORT, tmp_path / "start"
    models.world = SimpleNamespace(
        batch=lambda stage, tokens, seed, number: (stage.name, tokens, seed, number)
    )
    parents: dict[str, str] = {}

    def learned(folder: Path, parent: Path, stages: Any) -> Path:
        parents[folder.name] = parent.name
        folder.mkdir()
        assert [make(3) for _, make in stages] == [(stage.name, 300, 1, 3) for stage, _ in stages]
        return folder

    models._train = learned
    monkeypatch.setattr(unlock_models, "_keep_half", lambda *_: None)
    for name in SHORT.variants:
        models.variant(name, 1)
    assert parents == {
        "public-1": "start", "public-fs-1": "public-1", "public-fs-fs-1": "public-fs-1",
        "public-fs-ro-1": "public-fs-1", "public-ro-1": "public-1", "public-ro-ro-1": "public-ro-1",
        "public-eq2-1": "public-1", "public-eq2-eq2-1": "public-eq2-1",
        "public-mix-1": "public-1", "public-mix-mix-1": "public-mix-1",
    }  # fmt: skip


def test_a_stage_is_learned_as_the_plan_says(
    checkpoint: Path, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    models: Any = object.__new__(Models)
    models.work, models.plan = tmp_path, SHORT
    asked: list[tuple[int, dict[str, Any]]] = []

    def train(model: object, batches: Any, output: Path, **how: Any):
        asked.append((len(batches), how))
        return SimpleNamespace(state=SimpleNamespace(log_history=[]))

    saved: list[torch.dtype] = []
    monkeypatch.setattr(unlock_models, "train", train)
    monkeypatch.setattr(unlock_models, "save", lambda model, start, folder, dtype, card: saved.append(dtype))
    stage = Stage(name="s", num_updates=80, learning_rate=3e-4, decay=False)
    models._train(tmp_path / "out", checkpoint, [(stage, lambda number: {})])
    ((number, how),) = asked
    assert (number, how["accumulation"]) == (80 * PARTS, PARTS)
    assert (how["learning_rate"], how["decay"], how["warmup_updates"]) == (3e-4, False, 20)
    assert (how["monitor_updates"], how["monitor"].shift, saved) == (10, 0, [torch.float32])


def test_what_the_models_measured_is_shown_as_the_mean_of_the_seeds():
    scores = dict.fromkeys(("none", "vague", "oracle", "public"), 0.5) | {"oracle": 0.8}
    cell = Cell("generated", "1..5", 0, {}, scores, scores, 1.0)
    seeds = [Seed(n, {"public": {"own": n / 2}}, {"public": {"loss": 3.0 * n}}, {}) for n in (0, 1)]
    lines = [line.split() for line in tables([cell], seeds)]
    assert ["public", "0.250"] in lines
    assert ["public", "1.500"] in lines
