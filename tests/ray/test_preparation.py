"""Jobs over a data set on a real cluster: what they find and make, and that they continue where they were ended."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest

from morphmlp.data.decoding.backends import decoder_by_name
from morphmlp.data.manifest import manifest_from_rows, read_manifest, write_manifest
from morphmlp.data.synthetic import demo_task
from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.errors import ManifestError
from morphmlp.preparation.copies import CopyFiles
from morphmlp.preparation.copy_tasks import PackTask, TranscodeTask
from morphmlp.preparation.ray_copies import copy_job, make_copies
from morphmlp.preparation.ray_jobs import do_with_every_video
from morphmlp.preparation.ray_verify import VerifyFiles, VerifyTask, verify_manifest
from morphmlp.preparation.transcode_settings import TranscodeSettings
from morphmlp.preparation.work_folder import WorkFolder

ROOT = Path(__file__).parents[2]
VERIFY = VerifyTask(decoder="pyav", timeout_s=60.0)


class Notes:
    """Keeps what a job reports."""

    def __init__(self):
        self.totals = {}

    def phase(self, title, *, total, unit):
        self.totals[title] = total

    def update(self, done, note=""):
        pass

    def line(self, text):
        pass


def write_manifest_of(paths, target, *, ids=None):
    count = len(paths)
    manifest = manifest_from_rows(
        video_ids=ids or [path.stem for path in paths],
        paths=[str(path) for path in paths],
        labels=[number % 2 for number in range(count)],
        splits=["train"] * count,
        sizes_bytes=[path.stat().st_size if path.exists() else None for path in paths],
        class_names=["left", "right"],
    )
    write_manifest(manifest, target)
    return target


def write_videos(folder, count):
    paths = [folder / f"video{number}.mp4" for number in range(count)]
    for number, path in enumerate(paths):
        rng = np.random.default_rng(number)
        write_video(path, demo_task.render(demo_task.draw_scene(rng), number % 8, rng=rng))
    return paths


@pytest.fixture
def manifest(tmp_path):
    """Six good videos, one of them damaged, and three that can't be used: empty, no video, not there."""
    paths = write_videos(tmp_path, 6)
    content = bytearray(paths[5].read_bytes())
    with av.open(str(paths[5])) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][10]
    content[place + 8 : place + 40] = bytes(32)
    paths[5].write_bytes(content)
    broken = [tmp_path / name for name in ("empty.mp4", "text.mp4", "gone.mp4")]
    broken[0].touch()
    broken[1].write_text("not a video")
    return write_manifest_of([*paths, *broken], tmp_path / "train.parquet")


@pytest.mark.usefixtures("placement")
def test_a_verification_fills_the_manifest_and_lists_what_is_broken(manifest):
    before = read_manifest(manifest)
    done, files = verify_manifest(manifest, manifest, VERIFY, progress=Notes()), VerifyFiles(manifest=manifest)
    after = read_manifest(manifest)
    assert after.fingerprint() == before.fingerprint()
    assert after.table["label"].equals(before.table["label"])
    rows = {row["video_id"]: row for row in after.table.to_pylist()}
    info = decoder_by_name("pyav").open(rows["video0"]["path"]).info
    written = {name: rows["video0"][name] for name in ("num_frames", "fps", "width", "height", "codec")}
    assert written == {name: getattr(info, name) for name in written}
    assert rows["video0"]["duration_s"] == pytest.approx(demo_task.NUM_FRAMES / 30)
    assert [name for name, row in rows.items() if not row["available"]] == ["gone"]
    assert rows["empty"]["num_frames"] is None

    quarantine = pq.read_table(files.quarantine).to_pylist()
    assert [row["video_id"] for row in quarantine] == ["empty", "gone", "text"]
    assert {row["stage"] for row in quarantine} == {"verify"}
    assert quarantine[0]["message"] == "the file is empty (0 bytes)"
    assert quarantine[1]["size_bytes"] is None

    found = {row["video_id"]: row["damaged_frames"] for row in pq.read_table(files.found).to_pylist()}
    assert found["video0"] == 0
    assert found["video5"] > 0
    assert (done.videos, done.broken) == (9, 3)
    assert "the file is empty (0 bytes)" in done.text
    assert f"of {rows['video5']['path']}" in done.text
    assert files.picture.read_bytes().startswith(b"\x89PNG")
    assert not files.work.exists()


@pytest.mark.usefixtures("placement")
def test_a_second_verification_decodes_what_has_changed_or_was_broken_and_remembers_since_when(manifest):
    quarantine = VerifyFiles(manifest=manifest).quarantine
    verify_manifest(manifest, manifest, VERIFY, progress=Notes())
    runs = {row["video_id"]: row["first_run"] for row in pq.read_table(quarantine).to_pylist()}
    folder = manifest.parent
    write_video(folder / "video0.mp4", [np.zeros((64, 64, 3), dtype=np.uint8)] * 5)
    (folder / "text.mp4").write_text("another text")
    time.sleep(1)  # names of runs count seconds
    verify_manifest(manifest, manifest, VERIFY, progress=(notes := Notes()))
    assert notes.totals["verify"] == 4
    rows = {row["video_id"]: row for row in read_manifest(manifest).table.to_pylist()}
    assert rows["video0"]["num_frames"] == 5
    again = {row["video_id"]: row["first_run"] for row in pq.read_table(quarantine).to_pylist()}
    assert again["empty"] == runs["empty"]
    assert again["text"] > runs["text"]


@pytest.mark.usefixtures("placement")
def test_a_manifest_whose_disk_is_away_stays_as_it_was(manifest):
    for path in manifest.parent.glob("*.mp4"):
        path.unlink()
    before = manifest.read_bytes()
    with pytest.raises(ManifestError, match="is the disk mounted"):
        verify_manifest(manifest, manifest, VERIFY, progress=Notes())
    assert manifest.read_bytes() == before


@pytest.mark.usefixtures("placement")
def test_copies_get_a_manifest_of_the_same_videos(manifest, tmp_path):
    files = CopyFiles(folder=tmp_path / "small", name="train")
    task = TranscodeTask(files=files, transcoding=TranscodeSettings(short_edge=34), timeout_s=60.0)
    done = make_copies(copy_job(manifest, task), progress=Notes())
    copies, originals = read_manifest(files.manifest), read_manifest(manifest)
    assert copies.fingerprint() == originals.fingerprint()
    assert copies.class_names == originals.class_names
    rows = {row["video_id"]: row for row in copies.table.to_pylist()}
    assert [name for name, row in rows.items() if not row["available"]] == ["empty", "gone", "text"]
    assert (rows["video0"]["width"], rows["video0"]["height"]) == (38, 34)
    info = decoder_by_name("pyav").open(rows["video0"]["path"]).info
    assert info.num_frames == demo_task.NUM_FRAMES
    assert done.broken == 3
    assert pq.read_table(files.quarantine)["stage"].to_pylist() == ["transcode"] * 3
    assert '"how": "transcode"' in str(copies.prepared)

    with pytest.raises(ManifestError, match="copies already"):
        make_copies(copy_job(files.manifest, task_into(tmp_path / "twice", short_edge=32)), progress=Notes())
    with pytest.raises(ManifestError, match="short_edge 34, asked for 32"):
        make_copies(copy_job(manifest, task_into(files.folder, short_edge=32)), progress=Notes())
    make_copies(copy_job(manifest, task), progress=(notes := Notes()))
    assert notes.totals["transcode"] == 3  # those that failed
    make_copies(copy_job(files.manifest, task_into(tmp_path / "twice", short_edge=32), again=True), progress=Notes())
    assert read_manifest(tmp_path / "twice" / "train.parquet").table["height"].to_pylist()[-1] == 32


def task_into(folder, *, short_edge):
    files = CopyFiles(folder=folder, name="train")
    return TranscodeTask(files=files, transcoding=TranscodeSettings(short_edge=short_edge), timeout_s=60.0)


@pytest.mark.usefixtures("placement")
def test_a_place_that_cannot_be_written_ends_a_job_with_its_name(manifest, tmp_path):
    task = task_into(tmp_path / "small", short_edge=32)
    work = WorkFolder(task.files.work, table=task.files.found, schema=task.schema, settings={})
    task.files.folder.mkdir()
    task.files.videos.write_text("in the way of the copies' folder")
    videos = read_manifest(manifest).table.select(["video_id", "path", "num_frames"])
    with work.opened(), pytest.raises(ManifestError, match=r"small/train/.*: can't be written: Not a directory"):
        do_with_every_video(videos, task, work, title="transcode", progress=Notes())


@pytest.mark.usefixtures("placement")
def test_where_nothing_can_be_copied_the_reason_is_reported(tmp_path):
    paths = [tmp_path / "one.mp4", tmp_path / "other.mp4"]
    for path in paths:
        path.write_text("not a video")
    source = write_manifest_of(paths, tmp_path / "train.parquet")
    with pytest.raises(ManifestError, match="not one of its 2 videos could be copied: 2  DecodeError: not a readable"):
        make_copies(copy_job(source, task_into(tmp_path / "small", short_edge=32)), progress=Notes())
    assert pq.read_table(tmp_path / "small/train.quarantine.parquet").num_rows == 2


@pytest.mark.usefixtures("placement")
def test_folders_of_frames_are_packed_and_verified(tmp_path):
    folders = [tmp_path / "frames" / str(number) for number in range(3)]
    for folder in folders:
        folder.mkdir(parents=True)
        for number in range(1, 5):
            pixels = np.full((24, 32, 3), 40 * number, dtype=np.uint8)
            av.VideoFrame.from_ndarray(pixels, format="rgb24").save(str(folder / f"{number:05d}.jpg"))
    (folders[2] / "00002.jpg").unlink()
    (folders[1] / "00003.jpg").write_bytes((folders[1] / "00003.jpg").read_bytes()[:-9])
    manifest = write_manifest_of(folders, tmp_path / "train.parquet")
    files = CopyFiles(folder=tmp_path / "packed", name="train")
    assert make_copies(copy_job(manifest, PackTask(files=files)), progress=Notes()).broken == 1
    assert pq.read_table(files.found)["damaged_frames"].to_pylist() == [0, 1, None]
    for path in (manifest, files.manifest):
        verify_manifest(path, path, VERIFY, progress=Notes())
        rows = read_manifest(path).table.to_pylist()
        found = pq.read_table(path.with_suffix(".verify.parquet")).to_pylist()
        assert [row["damaged_frames"] for row in found] == [0, 1, None]
        assert [row["num_frames"] for row in rows[:2]] == [4, 4]
        assert (rows[0]["width"], rows[0]["height"]) == (32, 24)
        assert rows[0]["size_bytes"] > 4 * 300


def prepare(folder, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "pipelines" / "prepare.py"), *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a terminal's Ctrl-C goes to the whole group, Ray's processes among it
        env={**os.environ, "MORPHMLP_TEST_MARK": str(folder)},
    )


def marked_processes(folder):
    """Everything on this machine that the command started, directly or through Ray."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if f"MORPHMLP_TEST_MARK={folder}".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def wait_until_none_is_left(folder):
    deadline = time.monotonic() + 20
    while marked_processes(folder) and time.monotonic() < deadline:
        time.sleep(0.2)
    return marked_processes(folder)


@pytest.fixture
def long_job(tmp_path, monkeypatch):
    """A transcoding of many videos (some of them broken), and the work folder in which its results appear."""
    paths = write_videos(tmp_path, 4)
    (tmp_path / "empty.mp4").touch()
    many = [*(paths * 40), tmp_path / "empty.mp4"]
    write_manifest_of(many, tmp_path / "train.parquet", ids=[f"id{number:03d}" for number in range(len(many))])
    # Short, for the names of Ray's sockets; a killed driver can't remove what it made there.
    temporary = tempfile.mkdtemp(prefix="")
    monkeypatch.setenv("TMPDIR", temporary)
    yield ("transcode", "train.parquet", "--output", "small", "--preset", "veryslow"), tmp_path / "small/.train.work"
    for pid in marked_processes(tmp_path):
        os.kill(pid, signal.SIGKILL)
    shutil.rmtree(temporary, ignore_errors=True)


def finished_copies(folder, work):
    """Time of change of each copy that a kept result names."""
    rows = [row for part in work.glob("part-*.parquet") for row in pq.read_table(part).to_pylist()]
    return {row["output"]: Path(row["output"]).stat().st_mtime_ns for row in rows if row["output"]}


def run_until_some_are_finished(folder, arguments, work, *, count):
    process = prepare(folder, *arguments)
    while len(finished_copies(folder, work)) < count:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


@pytest.mark.slow
def test_a_killed_job_continues_and_does_no_finished_video_again(tmp_path, long_job):
    arguments, work = long_job
    process = run_until_some_are_finished(tmp_path, arguments, work, count=20)
    process.kill()
    process.communicate()
    wait_until_none_is_left(tmp_path)
    kept = finished_copies(tmp_path, work)
    assert 20 <= len(kept) < 160

    process = prepare(tmp_path, *arguments)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert f"{len(kept)} are finished" in errors or f"{len(kept) + 1} are finished" in errors
    assert {path: Path(path).stat().st_mtime_ns for path in kept} == kept
    table = read_manifest(tmp_path / "small" / "train.parquet").table
    assert table["available"].to_pylist() == [True] * 160 + [False]
    assert "1  DecodeError: the file is empty (0 bytes)" in output
    assert not list((tmp_path / "small").rglob(".*"))


@pytest.mark.parametrize(
    ("signum", "code"),
    [
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.long),  # as a terminal: to the whole group
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),  # as a batch system: to the command alone
    ],
)
def test_a_signal_ends_a_job_cleanly_and_says_how_to_continue(signum, code, tmp_path, long_job):
    arguments, work = long_job
    process = run_until_some_are_finished(tmp_path, arguments, work, count=20)
    if signum == signal.SIGINT:
        os.killpg(process.pid, signum)
    else:
        process.send_signal(signum)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.splitlines()[-1] == "stopped; the same command continues, finished videos are kept"
    assert "Traceback" not in errors
    assert wait_until_none_is_left(tmp_path) == []
    assert len(finished_copies(tmp_path, work)) >= 20
