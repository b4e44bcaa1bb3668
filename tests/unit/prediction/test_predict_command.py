"""`pipelines/predict.py` as a user runs it: what it prints, and one line for whatever can't be used."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from morphmlp.data.synthetic.kinetics_layout import write_video
from morphmlp.errors import DecodeError
from morphmlp.prediction.inputs import without_path

SCRIPT = Path(__file__).parents[3] / "pipelines" / "predict.py"
PRINTED = ("asleep", "boiling", "cutting", "dancing")


def test_names_and_probabilities_stand_on_the_terminal(predict, place, files):
    code, lines, errors = predict(files / "whole.mp4", *place.arguments(), "--top", 2)
    assert (code, errors, lines[0], len(lines)) == (0, [], str(files / "whole.mp4"), 3)
    assert all(line.split(" %  ")[1] in PRINTED for line in lines[1:])
    shares = [float(line.split("%")[0]) for line in lines[1:]]
    assert shares == sorted(shares, reverse=True)


def test_over_time_each_window_has_a_line_and_the_whole_the_last_ones(predict, place, files):
    code, lines, _ = predict(files / "whole.mp4", *place.arguments(), "--hop", "0.5s", "--top", 1)
    assert code == 0
    times = [line[2:17] for line in lines[1:5]]
    assert times == ["0:00.0 - 0:00.3", "0:00.5 - 0:00.8", "0:01.0 - 0:01.3", "0:01.3 - 0:01.6"]
    assert lines[5] == "  whole, 48 frames at 30 frames per second, mean of 4 windows of 4x2 every 0.5 s:"


def test_json_has_one_object_a_line_and_standard_output_nothing_else(predict, place, files):
    arguments = (files / "whole.mp4", files / "text.mp4", files / "short.mp4", *place.arguments(), "--json")
    code, lines, _ = predict(*arguments, "-")
    found = [json.loads(line) for line in lines]
    assert code == 2
    assert [Path(each["path"]).name for each in found] == ["whole.mp4", "text.mp4", "short.mp4"]
    assert [sorted(each) for each in found] == [["logits", "path", "top"], ["error", "path"], ["logits", "path", "top"]]
    assert sum(guess["probability"] for guess in found[0]["top"]) == pytest.approx(1)
    predict(*arguments, place.root / "found.jsonl")
    assert [json.loads(line) for line in (place.root / "found.jsonl").read_text().splitlines()] == found


def test_windows_stand_in_json_with_their_times(predict, place, files):
    _, lines, _ = predict(files / "whole.mp4", *place.arguments(), "--hop", "24", "--json", "-", "--top", 1)
    found = json.loads(lines[0])
    assert (found["fps"], found["num_frames"]) == (30, 48)
    assert [(window["start_s"], window["end_s"]) for window in found["windows"]] == [
        (0, 0.267),
        (0.8, 1.067),
        (1.333, 1.6),
    ]
    assert all(len(window["top"]) == 1 for window in found["windows"])


def test_a_folder_gives_all_its_videos_and_folders_of_frames_and_names_the_broken_ones(predict, place, files):
    code, lines, errors = predict(files, *place.arguments(), "--top", 1)
    assert code == 2
    named = ["h\\xf4tel.mp4", "one_frame.mp4", "short.mp4", "whole.mp4", "as_frames"]
    assert [Path(line).name for line in lines[::2]] == named
    assert [error.split(": ")[1].rpartition("/")[2] for error in errors[:-1]] == [
        "cut.mp4",
        "nothing.mp4",
        "sound.mp4",
        "text.mp4",
    ]
    assert errors[-1] == "error: 4 of 9 files can't be used; they are named above"


def test_paths_come_from_standard_input_in_any_encoding(predict, place, files):
    paths = [os.fsencode(files) + name for name in (b"/whole.mp4", b"/h\xf4tel.mp4", b"/gone.mp4")]
    code, lines, errors = predict("-", *place.arguments(), "--top", 1, stdin=b"\n".join(paths) + b"\r\n\n")
    assert code == 2
    assert [Path(line).name for line in lines[::2]] == ["whole.mp4", "h\\xf4tel.mp4"]
    assert lines[1] == lines[3]
    assert errors[0] == f"error: {files}/gone.mp4: no such file or directory"


def test_overrides_stand_behind_the_files(predict, place, files):
    _, lines, _ = predict(files / "whole.mp4", *place.arguments(), "--json", "-", "--test.num-clips", 1)
    _, others, _ = predict(files / "whole.mp4", *place.arguments(), "--json", "-")
    assert json.loads(lines[0])["logits"] != json.loads(others[0])["logits"]


def test_images_and_label_maps_come_by_the_same_command(predict, place, files, tmp_path):
    code, lines, _ = predict(files, *place.arguments("image"), "--top", 1, "--json", "-")
    assert code == 2
    assert "picture.png" in [Path(json.loads(line)["path"]).name for line in lines]
    overlay = tmp_path / "overlay.png"
    code, lines, _ = predict(files / "picture.png", *place.arguments("scenes"), "--annotate", overlay)
    assert code == 0
    assert all("% of the pixels  " in line for line in lines[1:])
    with Image.open(overlay) as shown, Image.open(files / "picture.png") as image:
        assert shown.size == (480, 480 * image.height // image.width)


def test_an_annotated_video_has_every_frame_at_its_time_and_a_timeline_below(predict, place, files, tmp_path):
    code, _, errors = predict(
        files / "whole.mp4", *place.arguments(), "--hop", "0.2s", "--annotate", tmp_path / "out" / "a.mp4"
    )
    assert (code, errors) == (0, [])
    with av.open(str(tmp_path / "out" / "a.mp4")) as container:
        frames = list(container.decode(video=0))
    assert [frame.time for frame in frames] == pytest.approx([number / 30 for number in range(48)], abs=1e-4)
    assert frames[0].width == 480
    assert frames[0].height > 320  # of 96x64
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.mp4"]


def test_a_name_that_is_not_text_is_written_in_text(predict, place, files, tmp_path):
    path = os.fsdecode(os.fsencode(files) + b"/h\xf4tel.mp4")
    code, _, errors = predict(path, *place.arguments(), "--annotate", tmp_path / "o")
    assert (code, errors) == (0, [])
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["h\\xf4tel.mp4"]


def test_closed_streams_are_no_defect(place, files):
    command = [sys.executable, SCRIPT, "-", *place.arguments()]
    done = subprocess.run(["sh", "-c", '"$@" <&- >&-', "sh", *command], stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: standard output is closed; send it to /dev/null where nobody reads it\n"


def test_a_long_video_says_how_much_of_it_is_written(predict, place, tmp_path):
    frames = np.zeros((420, 32, 32, 3), np.uint8)
    write_video(tmp_path / "long.mp4", frames)
    _, _, lines = predict(
        *(tmp_path / "long.mp4", *place.arguments(), "--hop", "10s"),
        *("--annotate", tmp_path / "a.mp4", "--explain", tmp_path / "b.mp4"),
        progress=True,
    )
    for name in ("a.mp4", "b.mp4"):
        assert any(f" writing {name}: 200/420 frames, " in line for line in lines), lines


def test_several_annotated_files_go_into_a_folder(predict, place, files, tmp_path):
    code, _, _ = predict(
        files / "short.mp4",
        files / "picture.png",
        files / "short.mp4",
        *place.arguments(),
        "--annotate",
        tmp_path / "o",
    )
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["picture.png", "short-2.mp4", "short.mp4"]
    again = (files / "picture.png", *place.arguments(), "--annotate", tmp_path / "o")
    assert predict(*again)[0] == 2
    assert predict(*again, "--force")[0] == 0


REFUSED = [
    pytest.param(("text.mp4", "text.mp4: not a readable video: "), id="text"),
    pytest.param(("nothing.mp4", "nothing.mp4: the file is empty (0 bytes)"), id="nothing in it"),
    pytest.param(("sound.mp4", "sound.mp4: has no video stream"), id="sound alone"),
    pytest.param(("cut.mp4", "cut.mp4: not a readable video: "), id="cut short"),
    pytest.param(("gone.mp4", "gone.mp4: no such file or directory"), id="missing"),
    pytest.param(("empty", "empty: holds no videos (files named .mp4, "), id="empty folder"),
    pytest.param(("-", "standard input: names no file"), id="empty list"),
]


@pytest.mark.parametrize("refused", REFUSED)
@pytest.mark.parametrize("over_time", [(), ("--hop", "1s")], ids=["whole", "over time"])
def test_a_file_that_cannot_be_used_has_one_line(predict, place, files, refused, over_time):
    named, message = refused
    code, lines, errors = predict(named if named == "-" else files / named, *place.arguments(), *over_time)
    assert (code, lines) == (2, [])
    (line,) = errors
    assert message in line
    assert line.count(named) <= 1


@pytest.mark.parametrize("name", ["bomb.png", "frames.zip", "deflated.zip"])
def test_a_reason_does_not_say_the_path_again(predict, place, bad, name):
    code, _, errors = predict(bad / name, *place.arguments())
    (line,) = errors
    assert (code, line.count(name)) == (2, 1)
    assert line.startswith(f"error: {bad / name}: ")


@pytest.mark.parametrize(
    ("path", "said", "left"),
    [
        ("/up/a.png", "pyav: /up: a.png is cut; torchcodec: /up: a.png is cut", "pyav: is cut; torchcodec: is cut"),
        ("/up/a.zip", "/up/a.zip: 1.png is cut", "1.png is cut"),
        ("a", "not a readable video: a fault", "not a readable video: a fault"),
        ("a.png", ".: a.png is cut", "is cut"),
    ],
)
def test_a_path_is_taken_out_of_a_reason(path, said, left):
    assert without_path(DecodeError(said), path) == left


ARGUMENTS = [
    pytest.param((), "VIDEO: is missing", id="no video"),
    pytest.param(
        ("whole.mp4", "--checkpoint", "{root}/gone.pth"), "gone.pth: no such file, folder or run", id="no weights"
    ),
    pytest.param(("whole.mp4", "--checkpoint", "{files}/text.mp4"), "text.mp4: ", id="no weights in it"),
    pytest.param(
        ("whole.mp4", "--checkpoint", "{root}/scenes.pth"),
        "semantic_fpn of 16 channels against a classifier",
        id="another task",
    ),
    pytest.param(
        ("whole.mp4", "--checkpoint", "{root}/scenes.pth", "--classes", "{files}/text.mp4"),
        "semantic_fpn of 16 channels against a classifier",
        id="another task before its names",
    ),
    pytest.param(("whole.mp4", "--checkpoint", "{root}/image.pth"), "(image)", id="another network"),
    pytest.param(("whole.mp4", "--window", "16x4"), "--window: 16 frames; this network takes 4", id="window"),
    pytest.param(("whole.mp4", "--hop", "fast"), "--hop: 'fast' must be a number of seconds", id="hop"),
    pytest.param(("whole.mp4", "--top", "0"), "--top", id="top"),
    pytest.param(("whole.mp4", "--json", "{files}"), "--json: ", id="json is a folder"),
    pytest.param(("whole.mp4", "--json", "/proc/x/y"), "--json: /proc/x/y: ", id="json cannot be made"),
    pytest.param(("whole.mp4", "--json", "/dev/full"), "--json: /dev/full: can't be written: No space left", id="full"),
    pytest.param(("whole.mp4", "--annotate", "/dev/full"), "--annotate: /dev/full: ", id="a device"),
    pytest.param(("whole.mp4", "--annotate", "/proc/x/a.mp4"), "--annotate: /proc/x/a.mp4: ", id="no place"),
    pytest.param(("whole.mp4", "--annotate", "{files}/whole.mp4"), "is the file that is looked at", id="itself"),
    pytest.param(
        ("whole.mp4", "--annotate", "{files}/short.mp4"), "exists already; --force writes over it", id="another file"
    ),
    pytest.param(("whole.mp4", "--annotate", "{root}/a.png"), "a video is written as .mp4", id="another kind"),
    pytest.param(("picture.png", "--annotate", "{root}/a.mp4"), "an image is written as .png", id="an image"),
    pytest.param(
        ("whole.mp4", "short.mp4", "--annotate", "{root}/a.mp4"), "one file for several inputs", id="one file"
    ),
    pytest.param(("whole.mp4", "--model.num-classes", "5"), "classes 4 against 5", id="override"),
    pytest.param(("whole.mp4", "--tops", "3"), "--tops: unknown option; did you mean --top?", id="misspelt"),
    pytest.param(("whole.mp4", "--classes", "{root}/video.pth"), "video.pth", id="no class list"),
]


@pytest.mark.parametrize(("asked", "message"), ARGUMENTS)
def test_a_fault_of_the_command_is_one_line(predict, place, files, asked, message):
    words = [word.format(root=place.root, files=files) for word in asked]
    words = [str(files / word) if word.endswith((".mp4", ".png")) and "/" not in word else word for word in words]
    given = place.arguments()
    named = {word for word in words if word.startswith("--")}
    given = [word for pair in zip(given[::2], given[1::2], strict=True) if pair[0] not in named for word in pair]
    code, _, errors = predict(*words, *given)
    assert code == 2
    assert len(errors) == 1
    assert message in errors[0]


def test_label_maps_have_no_time(predict, place, files):
    code, _, errors = predict(files / "picture.png", *place.arguments("scenes"), "--hop", "1s")
    assert (code, errors) == (
        2,
        ["error: --window, --hop: this network segments images, which have no time; leave them out"],
    )


def test_a_video_is_no_image(predict, place, files):
    _, _, errors = predict(files / "whole.mp4", *place.arguments("scenes"))
    assert errors[0] == f"error: {files}/whole.mp4: is no image; this network segments images"


def test_a_disk_that_fills_up_under_an_annotated_video_leaves_nothing(predict, place, files, tmp_path, small_disk):
    with small_disk():
        code, _, errors = predict(files / "whole.mp4", *place.arguments(), "--annotate", tmp_path / "a.mp4")
    assert (code, errors) == (2, [f"error: --annotate: {tmp_path}/a.mp4: can't be written: File too large"])
    assert list(tmp_path.iterdir()) == []


def test_it_starts_without_ray_and_mlflow_and_survives_a_full_standard_output(place, files):
    code = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "finally:\n    print(sorted({'ray', 'mlflow'} & set(sys.modules)), file=sys.stderr)\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                f"import sys; sys.argv[0] = {str(SCRIPT)!r}\n{code}",
                files / "short.mp4",
                *place.arguments(),
            ],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    said = sorted(line for line in done.stderr.splitlines() if line.startswith(("error", "[")))
    assert said == ["[]", "error: standard output: can't be written: No space left on device"]
