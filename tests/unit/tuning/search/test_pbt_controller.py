"""A population's decisions reach its members, and survive a kill."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from morphmlp.config import load_config
from morphmlp.config.loading import config_to_yaml
from morphmlp.tuning.run.trial_log import TrialEnd
from morphmlp.tuning.search.pbt_controller import PbtController
from morphmlp.tuning.search.population import Exploit

SMALL = Path(__file__).parents[2] / "small_experiment.yaml"
EXPLOIT = Exploit(member=1, donor=2, donor_epoch=3, donor_top1=80.0, values={"optim.lr": 0.02})


class Decides:
    """Lets member 1 take over at its score of 10."""

    def decide(self, member, epoch, top1):
        return EXPLOIT if (member, top1) == (1, 10.0) else None


@pytest.fixture
def queue(tmp_path):
    config = load_config(SMALL, {"optim.lr": 0.01})
    config = replace(config, cluster=replace(config.cluster, storage=str(tmp_path)))

    def entry(number, scores):
        (tmp_path / f"t{number}").mkdir()
        job = SimpleNamespace(number=number, run_name=f"t{number}", config=config)
        return SimpleNamespace(job=job, view=SimpleNamespace(scores=scores, end=None))

    return SimpleNamespace(entries=[entry(1, [(1, 10.0, 5.0)]), entry(2, [(3, 80.0, 4.0)])])


def laid(tmp_path):
    file = tmp_path / "t1" / "exploit.json"
    return json.loads(file.read_text()) if file.exists() else None


def test_a_decision_is_laid_into_the_members_folder_before_it_is_asked_to_stop(queue, tmp_path):
    controller = PbtController(Decides(), queue)
    assert controller.take(2, 3, 80.0) is None
    assert controller.take(1, 1, 10.0) == "trial 2 has 80.0 at epoch 3"
    asked = laid(tmp_path)
    assert (asked["donor_run"], asked["donor_epoch"], asked["values"]) == ("t2", 3, {"optim.lr": 0.02})


def test_a_decision_that_a_kill_kept_from_being_carried_out_is_laid_again(queue, tmp_path):
    (tmp_path / "t1" / "experiment.yaml").write_text(config_to_yaml(queue.entries[0].job.config))
    PbtController(Decides(), queue).replay()
    assert laid(tmp_path)["values"] == {"optim.lr": 0.02}


def test_one_that_was_carried_out_is_not(queue, tmp_path):
    config = queue.entries[0].job.config
    changed = replace(config, optim=replace(config.optim, lr=0.02))
    (tmp_path / "t1" / "experiment.yaml").write_text(config_to_yaml(changed))
    PbtController(Decides(), queue).replay()
    assert laid(tmp_path) is None


def test_a_member_that_has_ended_takes_nothing_over(queue, tmp_path):
    queue.entries[0].view.end = TrialEnd(state="finished")
    PbtController(Decides(), queue).replay()
    assert laid(tmp_path) is None
