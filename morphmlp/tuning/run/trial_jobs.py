"""A sweep's trials on their way out, as jobs, and on their way back, as records."""

import dataclasses
from pathlib import Path

from pydantic import TypeAdapter

from morphmlp.config import ExperimentConfig
from morphmlp.config.sweep import SweepConfig
from morphmlp.experiment.ray_experiment import ExperimentResult
from morphmlp.progress import Progress
from morphmlp.tracking import RetryPolicy, RunWriter, find_run
from morphmlp.tuning.run.sweep_folder import SweepFolder
from morphmlp.tuning.run.sweep_record import write_trial
from morphmlp.tuning.run.trial_queue import Entry, TrialJob, seeded
from morphmlp.tuning.run.trials import Trial
from morphmlp.tuning.space.space import Point

_RESULT = TypeAdapter(ExperimentResult)


class TrialJobs:
    """Makes the jobs of a sweep's trials."""

    def __init__(self, sweep: SweepConfig, folder: SweepFolder, parent_run_id: str, uri: str) -> None:
        self._sweep, self._folder, self._parent_run_id, self._uri = sweep, folder, parent_run_id, uri

    def make(self, number: int, point: Point, seed: int) -> TrialJob:
        """The job of a trial."""
        replica = f"-seed{seed}" if len(self._sweep.seeds) > 1 else ""
        return TrialJob(
            number=number,
            config=self._placed(seeded(point.config, seed)),
            run_name=f"{self._folder.root.name}-{number:03d}-{point.label}{replica}",
            parent_run_id=self._parent_run_id,
            point=dict(point.values),
            uri=self._uri,
            working_folder=str(Path.cwd()),
            max_minutes=self._sweep.max_trial_minutes,
            is_member=self._sweep.search.kind == "population",
        )

    def _placed(self, config: ExperimentConfig) -> ExperimentConfig:
        """The experiment with its files inside the sweep's folder; nothing that it computes changes."""
        ingest = config.ingest
        if self._sweep.share_clips and ingest.clip_cache is None:
            ingest = dataclasses.replace(
                ingest, clip_cache=str(self._folder.clips.absolute()), clip_cache_gb=self._sweep.clip_cache_gb
            )
        cluster = dataclasses.replace(config.cluster, storage=str(self._folder.root))
        return dataclasses.replace(config, cluster=cluster, ingest=ingest)


class TrialRecorder:
    """Writes trials that have ended to their runs."""

    def __init__(self, uri: str, experiment: str, folder: SweepFolder, progress: Progress) -> None:
        self._uri, self._experiment = uri, experiment
        self._retry = RetryPolicy(log=progress.line, kept_in=folder.root)

    def write(self, entry: Entry) -> None:
        """Complete a trial's run."""
        trial = self.trial(entry)
        if trial.run_id is None:
            return
        writer = RunWriter(self._uri, trial.run_id, retry=self._retry)
        write_trial(writer, trial, task=entry.job.config.task)
        if trial.state != "finished":
            writer.finish("KILLED" if trial.state in ("stopped", "timed_out") else "FAILED")

    def trial(self, entry: Entry) -> Trial:
        """What became of a trial."""
        end, job, point, epochs = entry.view.end, entry.job, entry.point, entry.view.epochs
        result = None if end is None or end.result is None else _RESULT.validate_python(dict(end.result))
        if result is None:
            known = find_run(self._uri, run_name=job.run_name, experiment=self._experiment)
            run_id = None if known is None else known.run_id
        else:
            run_id = result.run_id
        return Trial(
            number=job.number,
            point=point.values,
            title=point.title,
            seed=entry.seed,
            state="failed" if end is None else end.state,
            run_id=run_id,
            run_name=job.run_name,
            score=None if result is None else result.score,
            scores={} if result is None else dict(result.scores),
            num_videos=None if result is None else result.num_videos,
            val_score=epochs[max(epochs)] if epochs else None,
            epochs=len(epochs),
            gmacs=point.cost.gmacs,
            params=point.cost.params,
            clips_per_s=None if result is None else result.clips_per_s,
            wall_s=None if end is None else end.wall_s,
            cpu_s=None if end is None else end.cpu_s,
            error=None if end is None else end.reason,
            replaces=point.replaces,
        )
