"""A worker's books around the loop, as `train_worker` drives them, without Ray: what it saves and reports.

Not a test module, so that several processes can import it by its name.
"""

from types import SimpleNamespace

import tiny_training as tiny

from morphmlp.config.loading import config_from_mapping, config_to_mapping, with_overrides
from morphmlp.errors import StorageError
from morphmlp.tasks.factory import task_of
from morphmlp.training.loop.loop import Recipe, StepSummary, fit
from morphmlp.training.record.reporter import Reporter
from morphmlp.training.workers import ray_worker
from morphmlp.training.workers.start import WorkerStart

STEPS_PER_EPOCH = 2
IN_STEPS = {"train.epochs": None, "optim.warmup_epochs": None, "optim.warmup_steps": 2}


class KeptSaving:
    """Notes what would be saved: the steps taken, and the top-1 that goes along."""

    def __init__(self, state, plan):
        self.state, self.plan, self.saved = state, plan, []
        self.keep = lambda step, score: None
        self.refuses = self.last = False

    def after_step(self):
        self.save()

    def after_round(self, *, score, last=False):
        self.last = last
        self.save(score=score)

    def save(self, *, score=None, required=False):
        self.saved.append((self.plan.step_of(self.state.cursor), score))
        self.keep(*self.saved[-1])

    def notes(self):
        return []

    def finish(self, *, hurry, log):
        if self.refuses:
            log("waiting" if not hurry() else "no time to wait")
            raise StorageError("the disk is full")


class Training:
    """A training of two steps an epoch in which every step's checkpoint is due, as `train_worker` drives it."""

    def __init__(self, folder, *, num_videos=12, broken=(), worker=0, workers=1, saving=None, **fields):
        """Prepare; `saving` makes what saves in the place of `KeptSaving`, of the job, the state and the reporter."""
        overrides = {"execution.report_every_steps": 1, **fields}
        overrides = IN_STEPS | overrides if "train.steps" in fields else {"train.epochs": 2} | overrides
        config = config_from_mapping(with_overrides(config_to_mapping(tiny.CONFIG), overrides))
        plan = tiny.recipe_of(config).plan
        assert plan.steps_per_epoch == STEPS_PER_EPOCH
        self.state = tiny.new_state(config, tiny.CPU)
        tiny.hold_biases_before_batch_norm(self.state.model)
        self.clips = tiny.ListClips(plan, worker=worker, num_workers=workers, broken=broken)
        self.network = ray_worker._parallel(self.state.model, workers)
        job = SimpleNamespace(
            config=config,
            task=task_of(config),
            folder=folder,
            placement=SimpleNamespace(ingest_cpus=1),
            num_videos=num_videos,
            num_val_videos=4,
        )
        self.job = job
        recipe = Recipe.of(config, plan=plan, task=job.task)
        reporter = Reporter(recipe=recipe, first=worker == 0, gmacs_per_view=1.0)
        if saving is not None:
            self.saving = saving(job, self.state, reporter)
        else:
            self.saving = KeptSaving(self.state, plan) if worker == 0 else None
        start = WorkerStart(folder.start if worker == 0 else None)
        start.ready()
        self.worker = ray_worker._Worker(
            job,
            self.state,
            self.clips,
            self.saving,
            reporter=reporter,
            start=start,
            workers=workers,
            device=tiny.CPU,
        )

    def run(self, restored=None):
        """Train to the end, or until the worker stops."""
        if (stop := self.worker.catch_up(restored)) is not None:
            self.worker.save_and_stop(stop)
            return
        steps = fit(
            self.state,
            self.network,
            self.clips,
            recipe=self.worker.recipe,
            device=tiny.CPU,
            guard=self.worker.guard,
        )
        for summary in steps:
            (self.worker.on_step if isinstance(summary, StepSummary) else self.worker.on_round)(summary)
            if (stop := self.worker.should_stop(summary)) is not None:
                self.worker.save_and_stop(stop)
                return
            if self.worker.report_is_due(summary):
                self.worker.report()
        self.worker.finish()
