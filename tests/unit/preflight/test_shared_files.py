"""What one machine can't see is told by its name, the field and the path."""

from pathlib import Path

import pytest

from morphmlp.errors import ClusterError
from morphmlp.preflight import shared_files
from morphmlp.preflight.shared_files import Answer, Question, answer, faults_of, marked, readable


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_files, "PATIENCE_S", 0.0)


def test_machines_that_share_the_folders_are_not_named_and_nothing_stays(tmp_path: Path):
    folders = {"cluster.storage": str(tmp_path / "runs"), "checkpoint.storage": str(tmp_path / "kept")}
    with marked(folders) as marks:
        answers = [(node, answer(Question(marks=marks))) for node in ("a", "b")]
        assert faults_of(answers, {}) == []
        assert len(list((tmp_path / "runs").iterdir())) == 3  # the mark, and one of each machine
    assert list((tmp_path / "runs").iterdir()) == list((tmp_path / "kept").iterdir()) == []


def test_a_machine_with_another_disk_at_the_path_is_named(tmp_path: Path):
    with marked({"cluster.storage": str(tmp_path)}) as marks:
        elsewhere = {"cluster.storage": str(tmp_path / "empty" / Path(marks["cluster.storage"]).name)}
        (tmp_path / "empty").mkdir()
        answers = [("a", answer(Question(marks=marks))), ("b", answer(Question(marks=elsewhere)))]
        (fault,) = faults_of(answers, {})
    assert fault.startswith("cluster.storage: node b doesn't see what the command has just written to")
    assert fault.endswith("name a folder that all nodes which train have mounted at the same path")
    assert list((tmp_path / "empty").iterdir()) == []  # a folder of that machine's own isn't written to


def test_a_machine_that_may_only_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with marked({"cluster.storage": str(tmp_path)}) as marks:

        def read_only(*_: object, **__: object) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(Path, "write_text", read_only)
        given = answer(Question(marks=marks))
    assert given.faults == {"cluster.storage": f"can't write to {tmp_path} (Read-only file system)"}


def test_a_machine_that_cannot_write_to_a_folder_of_its_own_is_named(tmp_path: Path):
    (tmp_path / "file").touch()
    good, bad = (answer(Question(own={"ingest.clip_cache": f"{tmp_path}/{name}"})) for name in ("clips", "file/clips"))
    assert faults_of([("a", good), ("b", bad)], {}) == [
        f"ingest.clip_cache: node b: {tmp_path}/file is a file; name a folder that all nodes which decode can write to"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_machine_whose_files_stay_with_it_is_named(tmp_path: Path):
    (fault,) = faults_of([("a", Answer(written={"cluster.storage": f"{tmp_path}/its-own"}))], {})
    assert fault.startswith(f"cluster.storage: node a writes to a {tmp_path} of its own")


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ClusterError, match=f"^cluster.storage: {tmp_path}/file can't be written to: "),
        marked({"cluster.storage": f"{tmp_path}/file"}),
    ):
        pass


VIDEO, FOLDER, LOST = "video.mp4", "frames", "lost.mp4"


@pytest.fixture
def videos(tmp_path: Path) -> dict[str, tuple[str, ...]]:
    (tmp_path / VIDEO).write_bytes(b"1")
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "000001.jpg").write_bytes(b"1")
    return {"data.train": tuple(str(tmp_path / name) for name in (VIDEO, FOLDER, LOST))}


def test_files_and_folders_of_frames_are_read(videos: dict[str, tuple[str, ...]], tmp_path: Path):
    assert readable(videos) == {"data.train": [str(tmp_path / VIDEO), str(tmp_path / FOLDER)]}
    given = answer(Question(videos=videos))
    assert given.unseen == {"data.train": {str(tmp_path / LOST): "No such file or directory"}}


def test_a_video_that_nobody_sees_is_no_fault_of_a_machine(videos: dict[str, tuple[str, ...]]):
    given = answer(Question(videos=videos))
    assert faults_of([("a", given), ("b", given)], readable(videos)) == []


@pytest.mark.parametrize(
    ("others", "who"), [([("a", Answer(unseen={"data.val": {}}))], "node a"), ([], "this machine")]
)
def test_a_video_that_another_machine_sees_is_named_with_both(others: list[tuple[str, Answer]], who: str):
    here = {"data.val": ["/v/1.mp4"]} if not others else {}
    blind = Answer(unseen={"data.val": {"/v/1.mp4": "No such file or directory", "/v/2.mp4": "Permission denied"}})
    (fault,) = faults_of([*others, ("b", blind)], here)
    assert fault.startswith(
        f"data.val: node b can't read /v/1.mp4 (No such file or directory), which {who} can; mount the videos at"
    )


def test_a_machine_that_is_not_asked_for_videos_sees_none_of_them():
    blind = Answer(unseen={"data.val": {"/v/1.mp4": "No such file or directory"}})
    assert faults_of([("head", Answer()), ("b", blind)], {}) == []
