"""Whatever a decoder does, it costs one video: real crashes, loops and leaks in a real child process."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morphmlp.data.decoding.isolation import child, isolated
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits, isolated_videos
from morphmlp.data.decoding.sources import AnyVideo
from morphmlp.errors import DecodeError, DecoderCrashError, DecoderStartError, DecodeTimeoutError

HERE = Path(__file__).parents[2]
RIGHT = "right.video"
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def child_finds_the_decoders(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))  # a child imports from where its parent does


@pytest.fixture
def videos():
    """Makes openers and ends them."""
    made = []

    def make(decoder, *, timeout_s=20.0, **options):
        made.append(IsolatedVideos(f"faulty_decoders:{decoder}", Limits(timeout_s=timeout_s, **options)))
        return made[-1]

    yield make
    for opener in made:
        opener.close()


def assert_right(opener, indices=(5, 0, 299, 5)):
    from faulty_decoders import frames

    decoded = opener.open(RIGHT, num_frames=None).read(indices)
    assert (decoded.frames == frames(indices)).all()
    assert decoded.concealed == 3


def open_and_read(opener, path):
    return opener.open(path, num_frames=None).read([0])


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for_end(pid, seconds):
    end = time.monotonic() + seconds
    while running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pid)


def write_folder(folder, count=8, *, height=24, width=40):
    folder.mkdir()
    for number in range(1, count + 1):
        noise = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:05}.jpg")
    return str(folder)


def test_info_frames_and_scan_are_those_of_the_decoder(videos):
    from faulty_decoders import Reader

    reader = videos("crashing").open(RIGHT, num_frames=None)
    assert reader.info == Reader.info
    assert reader.scan() == 7
    assert_right(videos("crashing"))


@pytest.mark.parametrize("path", ["bad.video", "late.video"])
def test_a_crash_is_named_and_the_next_video_is_decoded(path, videos):
    opener = videos("crashing")
    assert_right(opener)
    with pytest.raises(DecoderCrashError, match=r"^the faulty_decoders:crashing decoder died \(SIGSEGV\)$"):
        open_and_read(opener, path)
    assert_right(opener)


def test_the_last_words_of_a_dying_decoder_are_reported(videos):
    with pytest.raises(DecoderCrashError, match=r"\(SIGABRT; it said: terminate called .*bad_alloc'\)"):
        open_and_read(videos("aborting"), "bad.video")


def test_an_exit_is_a_crash_too(videos):
    with pytest.raises(DecoderCrashError, match=r"died \(exit status 3\)"):
        open_and_read(videos("exiting"), "bad.video")


def test_a_child_killed_from_outside_says_so(videos):
    opener = videos("spinning")
    assert_right(opener)
    threading.Timer(0.2, os.kill, (opener.child_pid, signal.SIGKILL)).start()
    with pytest.raises(DecoderCrashError, match="SIGKILL, from outside"):
        open_and_read(opener, "bad.video")


def test_a_child_that_died_between_two_videos_costs_none(videos):
    opener = videos("crashing")
    assert_right(opener)
    os.kill(opener.child_pid, signal.SIGKILL)
    assert wait_for_end(opener.child_pid, 5)
    assert_right(opener)


@on_linux
@pytest.mark.parametrize("path", ["bad.video", "late.video"])
def test_an_endless_loop_that_blocks_signals_is_ended_in_time(path, videos):
    opener = videos("spinning", timeout_s=1.0)
    assert_right(opener)
    spinning, start = opener.child_pid, time.monotonic()
    with pytest.raises(DecodeTimeoutError, match=r"didn't come to an end within 1 s"):
        open_and_read(opener, path)
    assert time.monotonic() - start < 10
    assert not running(spinning)
    assert_right(opener)


def test_the_time_of_a_video_is_that_of_all_its_reads(videos):
    reader = videos("sleeping", timeout_s=1.5).open("late.video", num_frames=None)
    reader.read([0])
    reader.read([0])
    with pytest.raises(DecodeTimeoutError):
        reader.read(range(200))


@pytest.mark.parametrize("path", ["bad.video", "late.video"])
def test_a_decoder_that_makes_progress_is_waited_for_where_the_limit_follows_its_work(path, videos):
    assert len(open_and_read(videos("plodding", timeout_s=1.0, follow_work=True), path).frames)
    with pytest.raises(DecodeTimeoutError, match=r"didn't come to an end within 0.6 s \(ingest.decode_timeout_s\)"):
        open_and_read(videos("plodding", timeout_s=0.6), path)


def test_a_decoder_that_stands_still_is_given_up_where_the_limit_follows_its_work(videos):
    opener, start = (
        videos("stalling", timeout_s=1.0, follow_work=True, timeout_name="--decode-timeout-s"),
        time.monotonic(),
    )
    with pytest.raises(DecodeTimeoutError, match=r"stood still for 1 s \(--decode-timeout-s\)"):
        open_and_read(opener, "late.video")
    assert 1.5 < time.monotonic() - start < 15
    assert_right(opener)


@on_linux
def test_memory_without_end_costs_one_video(videos):
    opener = videos("allocating", memory_mb=64)
    assert_right(opener)
    with pytest.raises(DecodeError, match=r"needs more memory than the 64 MB of ingest\.decoder_memory_mb"):
        open_and_read(opener, "bad.video")
    assert_right(opener)


@on_linux
def test_a_child_that_leaks_is_replaced_before_the_next_video(videos, monkeypatch):
    monkeypatch.setattr(isolated, "MOST_GROWTH_MB", 100)
    opener = videos("leaking")
    said = []
    for _ in range(4):
        with pytest.raises(DecodeError) as raised:
            open_and_read(opener, "bad.video")
        said.append(str(raised.value))
    assert said == ["1 leaked", "2 leaked"] * 2


def test_output_of_native_libraries_disturbs_nothing(videos, capfd):
    opener = videos("chattering")
    with pytest.raises(DecodeError, match=r"^chattered$"):
        open_and_read(opener, "bad.video")
    assert_right(opener)
    assert capfd.readouterr() == ("", "")


def test_an_exception_of_the_decoders_own_becomes_a_decode_error_with_its_name(videos):
    with pytest.raises(DecodeError, match=r"decoder failed: Own: two lines, True$"):
        open_and_read(videos("raising_its_own"), "bad.video")


def test_an_index_that_is_not_there_stays_the_callers_fault(videos):
    with pytest.raises(IndexError, match=r"^frames 9\.\.9 of a video with 3$"):
        open_and_read(videos("asked_wrongly"), "late.video")


def test_a_decoder_that_cannot_start_is_nobodys_broken_video(videos):
    with pytest.raises(
        DecoderStartError, match=r"not_starting decoder didn't start: OSError: libcodec\.so\.7"
    ) as raised:
        open_and_read(videos("not_starting"), RIGHT)
    assert not isinstance(raised.value, DecodeError)


def test_frames_that_someone_holds_are_never_overwritten(videos):
    from faulty_decoders import frames

    opener = videos("crashing")
    held = [opener.open(RIGHT, num_frames=None).read([number, number + 1]).frames for number in range(6)]
    views = [opener.open(RIGHT, num_frames=None).read([number]).frames[0, 2:4] for number in range(6)]
    opener.open(RIGHT, num_frames=None).read(range(200))
    opener.close()
    gc.collect()
    for number in range(6):
        assert (held[number] == frames([number, number + 1])).all()
        assert (views[number] == number).all()


def test_memory_of_a_huge_video_is_not_kept_for_the_next(videos, monkeypatch):
    monkeypatch.setattr(isolated, "MOST_IDLE_BYTES", 10_000)
    opener = videos("crashing")
    sizes = []
    for count in (200, 2, 200, 2):
        assert_right(opener, range(count))
        sizes.append(min(memory.size for memory in opener._memories))
    assert max(sizes) <= 200 * 6 * 8 * 3
    assert opener._memories[0].size < 10_000


def test_frames_may_be_written_to(videos):
    decoded = videos("crashing").open(RIGHT, num_frames=None).read([1])
    decoded.frames[...] = 0
    assert_right(videos("crashing"))


def test_two_open_videos_take_turns(videos, tmp_path):
    opener = videos("crashing")
    folder = write_folder(tmp_path / "video")
    one, two = opener.open(RIGHT, num_frames=None), opener.open(folder, num_frames=5)
    for _ in range(2):
        assert one.read([3]).frames.shape == (1, 6, 8, 3)
        assert two.read([4]).frames.shape == (1, 24, 40, 3)
    assert two.info.num_frames == 5


def test_a_reader_outlives_the_child(videos):
    opener = videos("crashing")
    reader = opener.open(RIGHT, num_frames=None)
    opener.close()
    assert reader.scan() == 7


def test_threads_may_share_an_opener(videos, tmp_path):
    opener = videos("crashing")
    folders = [write_folder(tmp_path / f"video{place}", 4, width=16 + 8 * place) for place in range(4)]
    wrong = []

    def work(folder):
        expected = AnyVideo(None).open(folder, num_frames=None).read(range(4)).frames
        found = [opener.open(folder, num_frames=None).read(range(4)).frames for _ in range(10)]
        wrong.extend(folder for frames in found if not np.array_equal(frames, expected))

    threads = [threading.Thread(target=work, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@on_linux
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_after_a_fork_the_new_process_has_its_own_child_and_the_old_one_keeps_its(videos):
    opener = videos("crashing")
    held = opener.open(RIGHT, num_frames=None).read([9]).frames
    before = opener.child_pid
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:  # pragma: no cover (in the forked process)
        try:
            assert_right(opener)
            os.write(writing, str(opener.child_pid).encode())
            opener.close()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        other = pipe.read()
    os.waitpid(forked, 0)
    assert other
    assert int(other) != before == opener.child_pid
    assert (held == 9).all()
    assert_right(opener)
    assert not running(int(other))


def test_the_processor_time_of_a_child_is_known_whatever_came_of_it(videos):
    from faulty_decoders import WORK_CPU_S

    opener = videos("working")
    assert opener.cpu_s == 0
    assert_right(opener)
    before = opener.cpu_s
    assert before > 0
    for _ in range(2):
        with pytest.raises(DecodeError, match="no picture"):
            open_and_read(opener, "heavy.video")
    assert opener.cpu_s - before >= 2 * WORK_CPU_S


def test_a_process_has_one_opener_for_each_decoder_and_time():
    assert isolated_videos("pyav", Limits(timeout_s=60.0)) is isolated_videos("pyav", Limits(timeout_s=60.0))
    assert isolated_videos("pyav", Limits(timeout_s=60.0)) is not isolated_videos("decord", Limits(timeout_s=60.0))
    assert isolated_videos("pyav", Limits(timeout_s=60.0)) is not isolated_videos("pyav", Limits(timeout_s=30.0))


@on_linux
def test_hundreds_of_videos_leave_no_descriptor_no_process_and_no_memory(videos, tmp_path):
    opener = videos("crashing")
    folder = write_folder(tmp_path / "video", 4, height=128, width=170)

    def some(count):
        for _ in range(count):
            opener.open(folder, num_frames=None).read([0, 1, 2, 3])
        with pytest.raises(DecoderCrashError):
            open_and_read(opener, "bad.video")
        opener.open(folder, num_frames=None).read([0])

    def held():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), child.own_bytes()

    some(20)
    descriptors, memory = held()
    for _ in range(5):
        some(40)
    descriptors_after, memory_after = held()
    assert descriptors_after == descriptors
    assert memory_after < memory + 8 * 2**20
    before = opener.child_pid
    opener.close()
    assert not running(before)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert str(before) not in children


ORPHAN = """
    import os, sys, threading
    from morphmlp.data.decoding.isolation.isolated import IsolatedVideos, Limits
    videos = IsolatedVideos("faulty_decoders:spinning_with_signals", Limits(timeout_s={seconds}))
    videos.open("right.video", num_frames=None)
    print(videos.child_pid, flush=True)
    {last}
"""


def child_of_another_process(last, *, seconds=60.0):
    code = textwrap.dedent(ORPHAN.format(last=last, seconds=seconds))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path])},
    )
    with process, process.stdout as out:
        pid = int(out.readline())
        time.sleep(0.1)
        process.kill()
    return pid


@on_linux
def test_an_idle_child_goes_with_a_process_that_is_killed():
    assert wait_for_end(child_of_another_process("sys.stdin.read() or threading.Event().wait()"), 5)


@on_linux
def test_a_looping_child_does_not_outlive_its_time_when_nobody_is_left_to_end_it():
    pid = child_of_another_process("videos.open('bad.video', num_frames=None)", seconds=0.5)
    assert wait_for_end(pid, 5)


@on_linux
def test_a_process_that_ends_takes_its_child_along():
    pid = child_of_another_process("sys.exit()")
    assert wait_for_end(pid, 5)


@on_linux
def test_the_child_of_a_named_decoder_loads_neither_torch_nor_ray():
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as opener:
        with pytest.raises(DecodeError, match="no such file"):
            opener.open("absent.mp4", num_frames=None)
        libraries = Path(f"/proc/{opener.child_pid}/maps").read_text()
    assert "libtorch" not in libraries
    assert "_raylet" not in libraries


def encoded(path, codec="mpeg4"):
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.pix_fmt, stream.height, stream.width = "yuv420p", 48, 64
        for number in range(40):
            noise = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            picture = np.kron(noise, np.ones((8, 8, 1), dtype=np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


@pytest.mark.parametrize("decoder", ["pyav", pytest.param("decord", marks=pytest.mark.filterwarnings("ignore"))])
def test_frames_are_bit_identical_with_those_of_the_same_process(decoder, tmp_path):
    if decoder == "decord":
        pytest.importorskip("decord")
    path = encoded(tmp_path / "video.mp4", "libx264")
    direct = AnyVideo(child.make_decoder(decoder)).open(path, num_frames=None)
    with IsolatedVideos(decoder, Limits(timeout_s=20)) as opener:
        isolated = opener.open(path, num_frames=None)
        assert isolated.info == direct.info
        assert (isolated.read([0, 39, 7, 7]).frames == direct.read([0, 39, 7, 7]).frames).all()
        assert isolated.scan() == direct.scan()


def test_errors_read_the_same_as_in_the_same_process(tmp_path):
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    direct = AnyVideo(child.make_decoder("pyav"))
    with IsolatedVideos("pyav", Limits(timeout_s=20)) as opener:
        for path in (str(text), str(tmp_path / "absent.mp4")):
            with pytest.raises(DecodeError) as here:
                direct.open(path, num_frames=None)
            with pytest.raises(DecodeError) as there:
                opener.open(path, num_frames=None)
            assert str(there.value) == str(here.value)
