"""A population's decisions on their way to its members: each goes on with another one's weights under other values.

The driver lays a file into the member's folder and asks it to stop; the member's process carries it out and goes on.
The file stays until that is done, so that a kill loses no decision. Knows no Ray.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from morphmlp.config import ExperimentConfig, config_from_mapping, load_config, with_overrides
from morphmlp.config.loading import config_to_mapping
from morphmlp.errors import CheckpointError
from morphmlp.files import atomic_write
from morphmlp.training.checkpoint.branching import branch, newest_at, recover_branch
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.run_folder import RunFolder, run_lock
from morphmlp.training.workers.stops import StopReason
from morphmlp.tuning.run.trial_queue import Entry, TrialJob, TrialQueue
from morphmlp.tuning.search.population import Exploit, Population


class PbtController:
    """The driver's side."""

    stop_reason = StopReason.EXPLOITS
    """What a member that shall exploit another is asked for."""

    def __init__(self, population: Population, queue: TrialQueue) -> None:
        self._population, self._queue = population, queue

    def take(self, number: int, epoch: int, top1: float) -> str | None:
        """Take in a member's score; why it shall stop, where it shall exploit another."""
        exploit = self._population.decide(number, epoch, top1)
        if exploit is None:
            return None
        self._lay(exploit)
        return f"trial {exploit.donor} has {exploit.donor_top1:.1f} at epoch {exploit.donor_epoch}"

    def given_up(self, number: int) -> None:
        """None: every member trains."""
        del number

    def replay(self) -> None:
        """Tell the population what was known before a stop, and lay out again what wasn't carried out."""
        scores = [
            (when, entry.job.number, epoch, top1)
            for entry in self._queue.entries
            for epoch, top1, when in entry.view.scores
        ]
        last: dict[int, Exploit] = {}
        for _, number, epoch, top1 in sorted(scores):
            exploit = self._population.decide(number, epoch, top1)
            if exploit is not None:
                last[number] = exploit
        for entry in self._queue.entries:
            exploit = last.get(entry.job.number)
            if exploit is not None and entry.view.end is None and not _holds(entry, exploit.values):
                self._lay(exploit)

    def _lay(self, exploit: Exploit) -> None:
        member, donor = self._entry(exploit.member), self._entry(exploit.donor)
        content = {**asdict(exploit), "donor_run": donor.job.run_name}
        atomic_write(_file(member.job), json.dumps(content))

    def _entry(self, number: int) -> Entry:
        return next(entry for entry in self._queue.entries if entry.job.number == number)


def member_config(job: TrialJob) -> tuple[ExperimentConfig, str | None]:
    """What a member trains with now, after it has carried out an exploit that waits for it.

    Returns:
        The experiment, and a line for the user where it exploited another.

    Raises:
        CheckpointError: The donor's checkpoint is gone, or the storage fails.
    """
    folder = _folder(job)
    folder.root.mkdir(parents=True, exist_ok=True)
    store = run_store(job.config, folder)
    with run_lock(folder):
        recover_branch(folder, store)
    config = load_config(folder.experiment) if folder.experiment.exists() else job.config
    file = _file(job)
    if not file.exists():
        return config, None
    asked = json.loads(file.read_text(encoding="utf-8"))
    config = config_from_mapping(with_overrides(config_to_mapping(config), asked["values"]))
    donor_folder = RunFolder(folder.root.parent / asked["donor_run"])
    donor_store = run_store(config, donor_folder)
    donor = newest_at(donor_store, epoch=asked["donor_epoch"])
    if donor is None:
        raise CheckpointError(f"{donor_store.location}: no checkpoint up to epoch {asked['donor_epoch']} is left")
    branch(folder, store, donor=donor, donor_store=donor_store, config=config)
    file.unlink()
    values = ", ".join(f"{name} {value}" for name, value in asked["values"].items())
    return config, f"goes on from trial {asked['donor']} at epoch {donor.facts.epoch} with {values}"


def _holds(entry: Entry, values: Mapping[str, object]) -> bool:
    """Whether a member's experiment has these values already."""
    experiment = _folder(entry.job).experiment
    if not experiment.exists():
        return False
    mapping = config_to_mapping(load_config(experiment))
    return with_overrides(mapping, dict(values)) == mapping  # type: ignore[arg-type]


def _file(job: TrialJob) -> Path:
    return _folder(job).root / "exploit.json"


def _folder(job: TrialJob) -> RunFolder:
    return RunFolder(Path(job.config.cluster.storage) / job.run_name)
