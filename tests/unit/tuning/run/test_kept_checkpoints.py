"""Which trials keep their checkpoints while a sweep runs and when it is done. Nothing that may be needed is removed."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from synthetic_sweeps import result_of, trial

from morphmlp.config import load_config
from morphmlp.config.sweep import PopulationSearch, SweepConfig
from morphmlp.training.checkpoint.content import FORMAT
from morphmlp.training.checkpoint.store import CheckpointFacts, CheckpointStore
from morphmlp.training.record.run_folder import RunFolder, run_lock
from morphmlp.tuning.report.summary import checkpoints_summary
from morphmlp.tuning.run.kept_checkpoints import KeptCheckpoints
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.trials import TrialEnd

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
SPACE = {"optim.lr": (0.1, 0.2)}


class Log:
    def __init__(self):
        self.lines = []

    def line(self, text):
        self.lines.append(text)


class Sweep:
    """A sweep's folder with trials that have two checkpoints each, and one skipped step with its state."""

    def __init__(self, root, ends, **fields):
        self.folder, self.log = SweepFolder(root=root), Log()
        self.sweep = SweepConfig(name="s", experiment="e.yaml", overrides={}, space=SPACE, **fields)
        self.entries = [self._entry(number, end) for number, end in enumerate(ends, start=1)]

    def _entry(self, number, state):
        job = SimpleNamespace(
            number=number,
            run_name=f"t{number}",
            folder=RunFolder(self.folder.root / f"t{number}"),
            config=load_config(SMALL, {"cluster.storage": str(self.folder.root)}),
        )
        store = CheckpointStore.of(str(self.folder.root), job.run_name)
        for step in (1, 2):
            store.save({"format": FORMAT, "model": number}, CheckpointFacts(epoch=0, step=step, score=None))
        skipped = RunFolder(self.folder.root / job.run_name).skipped_steps / "step-00000007"
        skipped.mkdir(parents=True)
        (skipped / "state.pt").write_bytes(bytes(1000))
        (skipped / "step.json").write_text("{}")
        end = None if state is None else TrialEnd(state=state)
        return SimpleNamespace(job=job, view=SimpleNamespace(end=end, name=f"trial {number}"))

    def kept(self):
        return KeptCheckpoints(self.sweep, self.folder, self.log)

    def holds(self):
        """Checkpoints and states that each trial has left."""
        return [
            (
                len(list(self.folder.root.glob(f"{entry.job.run_name}/checkpoints/step-*/complete.json"))),
                len(list(self.folder.root.glob(f"{entry.job.run_name}/skipped-steps/*/state.pt"))),
            )
            for entry in self.entries
        ]

    def size(self):
        return sum(path.stat().st_size for path in self.folder.root.glob("t*/**/*.pt"))


COMPLETE, GONE = (2, 1), (0, 0)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [COMPLETE, GONE, GONE, COMPLETE, COMPLETE, COMPLETE]),
        ({"keep_checkpoints": "all"}, [COMPLETE] * 6),
        (
            {"search": PopulationSearch(kind="population", size=6), "max_concurrent_trials": 6},
            [COMPLETE] * 6,  # members continue from each other's
        ),
    ],
    ids=["winners", "all", "population"],
)
def test_while_a_sweep_runs_only_what_was_given_up_or_diverged_goes(fields, expected, tmp_path):
    sweep = Sweep(tmp_path, ["finished", "stopped", "diverged", "failed", "timed_out", None], **fields)
    for entry in sweep.entries:
        sweep.kept().after(entry)
    assert sweep.holds() == expected
    assert sweep.log.lines == []


def done(sweep, scores):
    """The result of a sweep whose trials have these states and scores."""
    states = [entry.view.end.state for entry in sweep.entries]
    trials = [
        trial(number, {"optim.lr": number / 10}, state=state, score=score, num_videos=10_000, run_name=f"t{number}")
        for number, (state, score) in enumerate(zip(states, scores, strict=True), start=1)
    ]
    return sweep.kept().when_done(result_of(trials), sweep.entries)


STATES = ["finished", "finished", "finished", "stopped", "failed", "timed_out"]
SCORES = [90.0, 89.9, 40.0, None, None, None]


@pytest.mark.parametrize("population", [False, True])
def test_when_a_sweep_is_done_winners_and_what_came_to_no_end_stay(population, tmp_path):
    search = {"search": PopulationSearch(kind="population", size=6), "max_concurrent_trials": 6} if population else {}
    sweep = Sweep(tmp_path, STATES, **search)
    before = sweep.size()
    result = done(sweep, SCORES)
    assert sweep.holds() == [COMPLETE, COMPLETE, GONE, GONE, COMPLETE, COMPLETE]
    assert result.with_checkpoints == ("t1", "t2", "t5", "t6")
    assert result.freed_bytes == before - sweep.size() > 0
    assert checkpoints_summary(result).startswith("Checkpoints are kept of 4 trials: ")
    assert f"; {result.freed_bytes / 1e6:.1f} MB of others were freed." in checkpoints_summary(result)
    assert (tmp_path / "t3" / "skipped-steps" / "step-00000007" / "step.json").exists()


def test_all_stay_where_the_sweep_says_so(tmp_path):
    sweep = Sweep(tmp_path, STATES, keep_checkpoints="all")
    result = done(sweep, SCORES)
    assert sweep.holds() == [COMPLETE] * 6
    assert (result.with_checkpoints, result.freed_bytes) == (None, 0)
    assert checkpoints_summary(result) is None
    assert not sweep.folder.freed.exists()


def test_a_removal_that_was_cut_short_is_completed_and_counted_once(tmp_path, monkeypatch):
    sweep = Sweep(tmp_path, STATES)
    before, removed = sweep.size(), []

    def killed(store, name):
        if len(removed) == 3:
            raise KeyboardInterrupt
        removed.append(name)
        remove(store, name)

    remove = CheckpointStore._remove
    monkeypatch.setattr(CheckpointStore, "_remove", killed)
    with pytest.raises(KeyboardInterrupt):
        done(sweep, SCORES)
    monkeypatch.setattr(CheckpointStore, "_remove", remove)
    with sweep.folder.freed.open("a") as file:
        file.write('{"trial": 4, "by')  # a line that a kill cut short
    result = done(sweep, SCORES)
    assert sweep.holds() == [COMPLETE, COMPLETE, GONE, GONE, COMPLETE, COMPLETE]
    again = done(sweep, SCORES)
    assert again == result
    assert 0 < result.freed_bytes <= before - sweep.size()
    assert [json.loads(line)["trial"] for line in sweep.folder.freed.read_text().splitlines()] == [3, 4]


def test_a_trial_whose_former_process_still_works_on_it_is_left_for_later(tmp_path):
    sweep = Sweep(tmp_path, ["stopped"])
    with run_lock(RunFolder(tmp_path / "t1")):
        sweep.kept().after(sweep.entries[0])
    assert sweep.holds() == [COMPLETE]
    assert sweep.log.lines[0].startswith("trial 1: its checkpoints stay: ")
    sweep.kept().after(sweep.entries[0])
    assert sweep.holds() == [GONE]


def test_a_trial_that_never_began_has_nothing_to_remove(tmp_path):
    sweep = Sweep(tmp_path, [])
    config = load_config(SMALL, {"cluster.storage": str(tmp_path)})
    job = SimpleNamespace(number=1, run_name="t1", folder=RunFolder(tmp_path / "t1"), config=config)
    entry = SimpleNamespace(job=job, view=SimpleNamespace(end=TrialEnd(state="stopped"), name="trial 1"))
    sweep.kept().after(entry)
    assert sweep.log.lines == []
    assert not (tmp_path / "t1").exists()
