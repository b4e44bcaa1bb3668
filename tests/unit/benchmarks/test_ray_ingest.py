"""The parts of the ingest measurement that need no Ray: whose CPU time counts, what is reported, what is refused."""

import pytest

from morphmlp.benchmarks.clip_costs import ClipCosts
from morphmlp.benchmarks.ray_ingest import IngestComparison, cpu_by_part, is_idle_daemon
from morphmlp.benchmarks.ray_ingest_figures import IngestFigures, figures_table, measure_ingest
from morphmlp.benchmarks.ray_plan_size import PlanSize, synthetic_manifest
from morphmlp.data.manifest import read_manifest, write_manifest
from morphmlp.errors import ClusterError

RAYLET = "/lib/ray/core/src/ray/raylet/raylet --agent_command=python /lib/ray/dashboard/agent.py --store_socket=x"
COMMANDS = {
    1: "ray::_Reader.read",
    2: "ray::MapBatches(DecodeTask)",
    3: "python -m morphmlp.data.decoding.isolation.child",
    4: RAYLET,
    5: "/lib/ray/core/src/ray/gcs/gcs_server --log_dir=x",
}


def test_the_raylet_counts_though_it_names_its_agents():
    assert not any(is_idle_daemon(command) for command in COMMANDS.values())
    assert is_idle_daemon("python -u /lib/ray/dashboard/agent.py --node-ip=x")
    assert is_idle_daemon("python -u /lib/ray/_private/log_monitor.py")
    assert is_idle_daemon("python -u /lib/ray/_private/runtime_env/agent/main.py")


def test_all_cpu_time_belongs_to_some_part():
    parts = cpu_by_part({pid: float(pid) for pid in COMMANDS}, COMMANDS)
    assert parts == {"reader": 1, "decode": 5, "raylet and store": 4, "other": 5}


def test_a_manifest_of_many_videos_is_one(tmp_path):
    manifest = synthetic_manifest(5000)
    write_manifest(manifest, tmp_path / "m.parquet")
    again = read_manifest(tmp_path / "m.parquet", only=["path"])
    assert again.table.equals(manifest.table.select(again.table.column_names).cast(again.table.schema))
    assert {len(name) for name in again.table["video_id"].to_pylist()} == {11}
    assert {len(path) for path in again.table["path"].to_pylist()} == {60}


def test_a_cluster_elsewhere_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    with pytest.raises(ClusterError, match="RAY_ADDRESS is set"):
        measure_ingest(tmp_path, quick=True, progress=None)


@pytest.mark.parametrize(("ratio", "words"), [(1.5, "1.50 times decord's"), (None, "decord can't be used here")])
def test_every_figure_is_reported(ratio, words):
    costs = ClipCosts(
        ratio_to_decord=ratio,
        in_process_ratio_to_decord=ratio,
        views4_ratio=1.8,
        repeats2_ratio=1.1,
        prepared_ratio=2.2,
        clips_per_s={"mp4": 30.0},
        cpu_ms={},
        rounds=5,
        videos=8,
    )
    ingest = IngestComparison(
        ray_cpu_ratio=1.01,
        ray_wall_ratio=0.99,
        ray_cpu_ms=40,
        loader_cpu_ms=39,
        ray_clips_per_s=47,
        loader_clips_per_s=48,
        ray_parts_cpu_ms={},
        first_batch_s=1,
        cold_first_batch_s=5,
        rounds=5,
        clips_per_round=480,
    )
    plan = PlanSize(videos=10_000_000, read_s=1, fingerprint_s=1, share_s=0.5, worker_s=0.5, worker_mb=41, step_us=7)
    assert plan.plan_s == 2
    text = figures_table(
        IngestFigures(
            ratio_to_decord=ratio,
            ray_cpu_ratio=1.01,
            ray_wall_ratio=0.99,
            first_batch_s=1,
            views4_ratio=1.8,
            repeats2_ratio=1.1,
            prepared_ratio=2.2,
            prepared_psnr_db=36.2,
            prepared_size_ratio=1.05,
            plan_10m_s=plan.plan_s,
            plan_10m_mb=41,
            clips_per_s={"mp4": 30.0},
            quick=False,
            wall_s=180,
            clip_costs=costs,
            ingest=ingest,
            plan=plan,
        )
    )
    for part in (words, "mp4 30.0", "2.20", "1.80", "1.10", "1.010", "0.990", "2.0 CPU s"):
        assert part in text
