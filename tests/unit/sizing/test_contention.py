"""Growth of CPU time between what was measured, and files that don't hold it."""

import json
from dataclasses import asdict

import pytest

from morphmlp.errors import ConfigError
from morphmlp.sizing.contention import COMPUTING, DECODING, Contention, Crowd

MEASURED = Contention(
    cores=4,
    alone_s={COMPUTING: 0.05, DECODING: 0.006},
    optimiser_s=0.01,
    crowds=[
        Crowd(work=work, beside=beside, processes=number, cpu_ratio=ratio)
        for work, beside, number, ratio in (
            (COMPUTING, COMPUTING, 2, 1.1),
            (COMPUTING, COMPUTING, 4, 1.5),
            (COMPUTING, COMPUTING, 8, 1.6),
            (COMPUTING, DECODING, 4, 1.2),
            (DECODING, DECODING, 4, 1.3),
        )
    ],
    clip_fields={"clip.num_frames": 16},
)


@pytest.mark.parametrize(
    ("work", "jobs", "growth"),
    [
        (COMPUTING, {COMPUTING: 1}, 1.0),
        (COMPUTING, {COMPUTING: 2}, 1.1),
        (COMPUTING, {COMPUTING: 3}, 1.3),  # between two on a line
        (COMPUTING, {COMPUTING: 20}, 1.6),  # beyond the last as there
        (COMPUTING, {COMPUTING: 1, DECODING: 1}, 1 + 0.2 / 3),
        (COMPUTING, {COMPUTING: 1, DECODING: 3}, 1.2),
        (COMPUTING, {COMPUTING: 3, DECODING: 1}, (2 * 1.5 + 1.2) / 3),  # of the others two compute and one decodes
        (DECODING, {COMPUTING: 0, DECODING: 4}, 1.3),
        (DECODING, {COMPUTING: 3, DECODING: 1}, 1.0),  # nobody measured that
        ("exchanging", {"exchanging": 4}, 1.0),
    ],
)
def test_work_grows_by_what_is_beside_it(work, jobs, growth):
    assert MEASURED.growth(work, jobs) == pytest.approx(growth)


def test_a_full_node_has_a_process_on_each_core():
    assert MEASURED.full(COMPUTING) == 1.5
    assert MEASURED.full(DECODING) == 1.3


def test_a_file_holds_it_or_another_measurement_or_a_part_of_it(tmp_path):
    path, content = tmp_path / "busy.json", asdict(MEASURED)
    path.write_text(json.dumps(content | {"rounds": 6}))
    assert Contention.find(path) == MEASURED
    for other in ("{", "[]", json.dumps({"run_step_s": 1})):
        path.write_text(other)
        assert Contention.find(path) is None
    path.write_text(json.dumps(content | {"cores": "many"}))
    with pytest.raises(ConfigError, match=r"busy\.json: isn't whole"):
        Contention.find(path)
    assert Contention.find(tmp_path / "none.json") is None
