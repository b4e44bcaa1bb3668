"""A scheduler's decisions on their way to the trials.

The driver asks a trial to stop by a file in its folder, and the trial's process saves before it does. A member of a
population that exploits another finds a second file, which says from whom it continues and with which values; it stays
until that is done, so that a kill loses no decision.
"""

import json
from dataclasses import asdict

from morphmlp.config import ExperimentConfig, config_from_mapping, load_config, with_overrides
from morphmlp.config.loading import config_to_mapping
from morphmlp.errors import CheckpointError
from morphmlp.files import atomic_write
from morphmlp.training.checkpoint.branching import branch, newest_at, recover_branch
from morphmlp.training.checkpoint.saving import run_store
from morphmlp.training.record.run_folder import RunFolder, run_lock
from morphmlp.training.workers.stops import Stop, StopReason, write_stop_request
from morphmlp.tuning.run.trial_queue import TrialJob, TrialQueue
from morphmlp.tuning.run.trials import TrialEnd
from morphmlp.tuning.search.scheduler import Exploit, GiveUp, SweepScheduler

_EXPLOIT = "exploit.json"


def request(queue: TrialQueue, job: TrialJob, decision: GiveUp | Exploit) -> None:
    """Ask a trial at work to do what was decided."""
    reason = StopReason.PRUNED
    if isinstance(decision, Exploit):
        reason = StopReason.EXPLOITS
        _prepare(queue, job, decision)  # before the member stops: it looks for the file then
    write_stop_request(job.folder.stop_request, Stop(reason=reason, detail=decision.reason))


def replay(queue: TrialQueue, scheduler: SweepScheduler) -> None:
    """Tell the scheduler of a resumed sweep what trials had scored, in that order.

    What it decided and a kill kept from being carried out is made up for: a trial that was given up ends here, a
    member finds its exploit when it continues.
    """
    scores = sorted((when, e.job.number, at, score) for e in queue.entries for at, score, when in e.view.scores)
    last: dict[int, GiveUp | Exploit] = {}
    for _, number, at, score in scores:
        if (decision := scheduler.on_score(number, at, score)) is not None:
            last[number] = decision
    for entry in queue.entries:
        decided = last.get(entry.job.number)
        if entry.view.end is not None or decided is None:
            continue
        if isinstance(decided, GiveUp):
            queue.end(entry, TrialEnd(state="stopped", error=decided.reason))
        elif not _was_carried_out(entry.job, decided):
            _prepare(queue, entry.job, decided)


def carry_out_exploit(job: TrialJob) -> tuple[ExperimentConfig, str | None]:
    """What a member trains with now, after it has carried out the exploit that waits for it, if one does.

    That is the experiment, and a line for the user where the member exploited another.

    Raises:
        CheckpointError: The donor's checkpoint is gone, or the storage fails.
    """
    folder = job.folder
    folder.root.mkdir(parents=True, exist_ok=True)
    store = run_store(job.config.checkpoint, folder)
    with run_lock(folder):
        recover_branch(folder, store)
    config = load_config(folder.experiment) if folder.experiment.exists() else job.config
    file = folder.root / _EXPLOIT
    if not file.exists():
        return config, None
    asked = json.loads(file.read_text(encoding="utf-8"))
    config = config_from_mapping(with_overrides(config_to_mapping(config), asked["values"]))
    donor_store = run_store(config.checkpoint, RunFolder(folder.root.parent / asked["donor_run"]))
    if (donor := newest_at(donor_store, at=asked["donor_at"], unit=asked["unit"])) is None:
        up_to = f"{asked['unit']} {asked['donor_at']}"
        raise CheckpointError(f"{donor_store.location}: no checkpoint up to {up_to} is left")
    branch(folder, store, donor=donor, donor_store=donor_store, config=config)
    file.unlink()
    values = ", ".join(f"{name} {value}" for name, value in asked["values"].items())
    at = donor.facts.epoch if asked["unit"] == "epoch" else donor.facts.step
    return config, f"continues from trial {asked['donor']} at {asked['unit']} {at} with {values}"


def _prepare(queue: TrialQueue, job: TrialJob, exploit: Exploit) -> None:
    content = {**asdict(exploit), "donor_run": queue.entries[exploit.donor - 1].job.run_name}
    atomic_write(job.folder.root / _EXPLOIT, json.dumps(content))


def _was_carried_out(job: TrialJob, exploit: Exploit) -> bool:
    """Whether the member's experiment has the exploit's values already."""
    experiment = job.folder.experiment
    if not experiment.exists():
        return False
    mapping = config_to_mapping(load_config(experiment))
    return with_overrides(mapping, exploit.values) == mapping
