"""A simulation of a whole training: nodes that go away, checkpoints, and the work that is done again."""

from dataclasses import dataclass

import numpy as np

from morphmlp.sizing.events import Events


@dataclass(frozen=True, kw_only=True)
class Interruptions:
    """What interrupts a training; seconds."""

    loss_every_s: float
    """Mean time between two losses of any of its training nodes; infinite: none."""
    save_every_s: float
    """From one checkpoint, or a restart, to the next checkpoint."""
    restart_s: float
    """From a loss to the first step after it, with as many workers as before."""
    stall_s: float = 0.0
    """What a checkpoint delays training by."""


@dataclass(frozen=True, kw_only=True)
class SimulatedRun:
    """A training from its first step to its last."""

    wall_s: float
    repeated_s: float
    """Work that was done again."""
    restart_s: float
    """Time between a loss and the first step after it."""
    losses: int


class _Training:
    def __init__(self, work_s: float, interruptions: Interruptions, rng: np.random.Generator) -> None:
        self._work_s, self._with, self._rng = work_s, interruptions, rng
        self.events = Events()
        self.saved_s = self._since = 0.0
        self.repeated_s = self.restart_s = 0.0
        self.losses = 0
        self._life = 0
        self._down_since: float | None = None
        self._go()
        self._plan_loss()

    @property
    def done(self) -> bool:
        return self.saved_s >= self._work_s

    def _go(self) -> None:
        """Train up to the next checkpoint, of which the last step's is one."""
        self._since, life = self.events.now, self._life
        piece_s = min(self._with.save_every_s, self._work_s - self.saved_s)

        def saved() -> None:
            if life == self._life:
                self.saved_s += piece_s
                if not self.done:
                    self._go()

        self.events.after(piece_s + self._with.stall_s, saved)

    def _plan_loss(self) -> None:
        if np.isfinite(self._with.loss_every_s):
            self.events.after(float(self._rng.exponential(self._with.loss_every_s)), self._lose)

    def _lose(self) -> None:
        """All since the last checkpoint is lost; during a restart, which begins anew, nothing more."""
        self.losses += 1
        self._life += 1
        life, now = self._life, self.events.now
        if self._down_since is None:
            self._down_since = now
            self.repeated_s += now - self._since

        def back() -> None:
            if life == self._life and self._down_since is not None:
                self.restart_s += self.events.now - self._down_since
                self._down_since = None
                self._go()

        self.events.after(self._with.restart_s, back)
        self._plan_loss()


def simulate_run(work_s: float, interruptions: Interruptions, rng: np.random.Generator) -> SimulatedRun:
    """A training that takes `work_s` undisturbed."""
    training = _Training(work_s, interruptions, rng)
    training.events.run(lambda: training.done)
    return SimulatedRun(
        wall_s=training.events.now,
        repeated_s=training.repeated_s,
        restart_s=training.restart_s,
        losses=training.losses,
    )


def expected_wall_s(work_s: float, interruptions: Interruptions) -> float:
    """The mean in closed form (Daly 2006): M e^(R/M) (e^(t/M) - 1) for each piece between two checkpoints.

    t is the piece's length with its checkpoint, M the mean time between losses, R the restart; losses interrupt it too.
    """
    mean_s, every_s = interruptions.loss_every_s, interruptions.save_every_s
    whole, rest = divmod(work_s, every_s)
    pieces = [(whole, every_s), (1.0 if rest else 0.0, rest)]
    if not np.isfinite(mean_s):
        return work_s + sum(number for number, _ in pieces) * interruptions.stall_s
    return float(
        sum(
            number
            * mean_s
            * np.exp(interruptions.restart_s / mean_s)
            * np.expm1((length + interruptions.stall_s) / mean_s)
            for number, length in pieces
            if number
        )
    )
