"""What CPU time grows by on busy cores: which crowds are measured, what each process answers, and the whole."""

import io
import json
import sys
from pathlib import Path

import pytest

from morphmlp.benchmarks.busy_cores import (
    SEVERAL,
    busy_cores_table,
    measure_busy_cores,
    optimiser_s,
    planned_crowds,
    serve,
)
from morphmlp.config import load_config
from morphmlp.config.loading import config_to_mapping
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.errors import ManifestError
from morphmlp.sizing.contention import COMPUTING, DECODING

SMALL = {
    "model.depths": [1, 1, 1, 1],
    "model.embed_dims": [16, 16, 16, 16],
    "clip.num_frames": 2,
    "train.global_batch_size": 2,
    "train.micro_batch_size": 2,
}
EXPERIMENT = Path(__file__).parents[1] / "small_experiment.yaml"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A small experiment with four training videos."""
    folder = tmp_path_factory.mktemp("videos")
    write_demo_dataset(folder, train=4, val=0, test=0)
    return load_config(EXPERIMENT, {**SMALL, "data.train": str(folder / "train.parquet")})


@pytest.mark.parametrize(
    ("work", "cores", "numbers"),
    [
        ([DECODING], 1, []),
        ([DECODING], 2, [2]),
        ([DECODING], 12, [2, 4, 8, 12]),
        ([DECODING], 64, [2, 4, 8, 16, 32, 64]),
        ([COMPUTING, DECODING], 1, [2]),
        ([COMPUTING, DECODING], 2, [2, 4]),
        ([COMPUTING, DECODING], 6, [2, 4, 6, 12]),
    ],
)
def test_crowds_go_up_to_one_process_a_core_and_to_two_where_steps_share_them(work, cores, numbers):
    crowds = planned_crowds(work, cores)
    assert [number for kind, beside, number in crowds if kind == beside == DECODING] == numbers
    assert len(crowds) == len(numbers) * len(work) ** 2


@pytest.mark.parametrize(("one", "several", "found"), [([3.0, 5.0, 4.0], [9.0, 17.0, 13.0], 1.0), ([1.0], [5.0], 0.0)])
def test_the_optimisers_share_is_what_micro_batches_do_not_add_up_to(one, several, found):
    assert optimiser_s(one, several) == pytest.approx(found)


@pytest.mark.parametrize("kind", [COMPUTING, SEVERAL, DECODING])
def test_a_process_answers_each_round_with_what_it_did_and_its_cpu_seconds(monkeypatch, capsys, config, kind):
    order = {"config": config_to_mapping(config), "kind": kind, "videos": 4}
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{json.dumps(order)}\n0.01\n0.01\n"))
    serve()
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(answers) == 2
    assert all(done >= 1 and 0 < cpu_s / done < 60 for done, cpu_s in answers)


def test_without_videos_it_is_refused_before_anything_starts(config):
    nowhere = load_config(EXPERIMENT, {**SMALL, "data.train": "nowhere.parquet"})
    with pytest.raises(ManifestError, match=r"nowhere\.parquet"):
        measure_busy_cores(nowhere, work=[DECODING], videos=4, rounds=1, round_s=0.1)


@pytest.mark.slow
def test_all_crowds_are_measured(config):
    work = [COMPUTING, DECODING]
    found = measure_busy_cores(config, work=work, videos=4, rounds=1, round_s=0.05, cores=1)
    assert (found.cores, set(found.alone_s), found.videos, len(found.crowds)) == (1, set(work), 4, 4)
    assert all(crowd.cpu_ratio > 0 for crowd in found.crowds)
    assert found.growth(DECODING, {COMPUTING: 1, DECODING: 1}) == next(
        crowd.cpu_ratio for crowd in found.crowds if (crowd.work, crowd.beside) == (DECODING, COMPUTING)
    )
    assert "whatever its micro-batches; a clip" in found.in_words()
    assert len(busy_cores_table(found).splitlines()) == 2 + 4
