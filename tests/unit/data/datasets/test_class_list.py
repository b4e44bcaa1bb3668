"""Class lists as data sets publish them: one order of the names, whatever the form, or a refusal."""

import json

import pytest

from morphmlp.data.datasets.class_list import read_class_list
from morphmlp.data.datasets.something import read_templates
from morphmlp.data.manifest import manifest_from_rows, write_manifest
from morphmlp.errors import ManifestError

NAMES = ("riding a bike", "marching", 'dancing, "slow"')
QUOTED = ("riding a bike", "marching", '"dancing, ""slow"""')
IDS = {name: number for number, name in enumerate(NAMES)}
FORMS = {
    "names alone": "\n".join(QUOTED),
    "names in quotes": '"riding a bike"\n"marching"\n"dancing, ""slow"""\n',
    "name, tab, id": "marching\t1\nriding a bike\t0\n" + 'dancing, "slow"' + "\t2\n",
    "id, tab, name": "1\tmarching\n0\triding a bike\n" + '2\tdancing, "slow"',
    "CSV with its header": f"id,name\n1,marching\n0,riding a bike\n2,{QUOTED[2]}\n",
    "CSV with a quoted header": f'"id","name"\r\n1,"marching"\r\n0,"riding a bike"\r\n2,{QUOTED[2]}\r\n',
    "CSV, name first": f"name,id\n{QUOTED[2]},2\nmarching,1\nriding a bike,0\n",
    "CSV without a header": f"1,marching\n0,riding a bike\n2,{QUOTED[2]}\n",
    "id, space, name": f"0 riding a bike\n1 marching\n2 {QUOTED[2]}\n",
    "name, space, id": f"riding a bike 0\nmarching 1\n{QUOTED[2]} 2\n",
    "JSON by names": json.dumps(IDS),
    "JSON by names, ids in quotes": json.dumps({name: str(number) for name, number in IDS.items()}, indent=1),
    "JSON by names in quotes": json.dumps(
        {f'"{name.replace(chr(34), 2 * chr(34))}"': number for name, number in list(IDS.items())[::-1]}
    ),
    "JSON by ids": json.dumps({str(number): name for name, number in list(IDS.items())[::-1]}),
    "JSON list": json.dumps(NAMES),
    "with a mark before UTF-8": "\ufeffid,name\n0,riding a bike\n1,marching\n2," + QUOTED[2],
}


def written(folder, content):
    path = folder / "classes.txt"
    path.write_text(content)
    return path


def faults_of(path):
    with pytest.raises(ManifestError) as caught:
        read_class_list(path)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("form", FORMS)
def test_every_published_form_gives_the_names_in_label_order(tmp_path, form):
    assert read_class_list(written(tmp_path, FORMS[form])) == NAMES


@pytest.mark.parametrize(
    "names",
    [
        ("3 point shot", "abseiling", "yoga"),  # some begin with a number
        ("class 0", "class 1", "class 2"),  # without the number they would be one name
        ("0", "1", "2"),
        ("a, b", "c", "d, e"),
        ("[Something] falling", "[Something] rising"),
    ],
)
def test_numbers_and_marks_that_are_part_of_names_stay(tmp_path, names):
    assert read_class_list(written(tmp_path, "\n".join(names))) == names


UCF = ("ApplyEyeMakeup", "ApplyLipstick", "Archery")


@pytest.mark.parametrize(
    "content",
    [
        "".join(f"{number} {name}\n" for number, name in enumerate(UCF, start=1)),
        "".join(f"{number} {name}\r\n" for number, name in enumerate(UCF, start=1)),
        "".join(f"{name}\t{number}\n" for number, name in enumerate(UCF, start=1)),
        "id,name\n" + "".join(f"{number},{name}\n" for number, name in enumerate(UCF, start=1)),
        json.dumps({name: number for number, name in enumerate(UCF, start=1)}),
    ],
)
def test_ids_that_count_from_one_are_refused_with_what_to_do(tmp_path, content):
    (line,) = faults_of(written(tmp_path, content))
    assert line == (
        f"{tmp_path / 'classes.txt'}: its ids count from 1 ('ApplyEyeMakeup') to 3 ('Archery'), they must count "
        "from 0; write the names alone, one a line in that order, and see that the annotations count from 0 too"
    )
    assert read_class_list(written(tmp_path, "\n".join(UCF))) == UCF


def test_all_faults_of_a_class_list_come_at_once(tmp_path):
    lines = faults_of(written(tmp_path, "a\t0\nb\nc\t0\na\t1\nd\t9\n"))
    expected = ["unreadable line 'b'", "class id 0 belongs to 'a' already", "'a' stands on line 1", "leaves a gap"]
    for line, fault in zip(lines, expected, strict=True):
        assert fault in line


@pytest.mark.parametrize(
    ("content", "faults"),
    [
        ("0 a\n2 b\n3 c\n", [":3: class id 3 leaves a gap; the ids of 3 classes are 0 to 2"]),
        ("1 a\n2 b\n4 c\n", [":3: class id 4 leaves a gap; the ids of 3 classes are 0 to 2"]),
        ("0 a\n0 b\n1 c\n", [":2: class id 0 belongs to 'a' already"]),
        ("0 a\n1 b\n2 a\n", [":3: class 'a' stands on line 1 already"]),
        ("0 a\nb\n1 c\n", [":2: unreadable line 'b'; it must be `id name`, as other lines are"]),
        ("id,name\n0;a\n1,b\n", [":2: unreadable line '0;a'; it must be `id,name`, as other lines are"]),
        ("a\nb\na\n", [":3: class 'a' stands on line 1 already"]),
        ('{"a": 0, "b": 1.5}', [":1: class 'b' has id 1.5; it must be a whole number"]),
        ('["a", "b", "a"]', [":1: class 'a' stands on line 1 already"]),
    ],
)
def test_gaps_duplicates_and_odd_lines_are_refused_by_line(tmp_path, content, faults):
    assert faults_of(written(tmp_path, content)) == [f"{tmp_path / 'classes.txt'}{fault}" for fault in faults]


@pytest.mark.parametrize("content", ["\n", "{}", "[]", "id,name\n"])
def test_an_empty_class_list_is_refused(tmp_path, content):
    (line,) = faults_of(written(tmp_path, content))
    assert "holds no classes" in line


def test_a_manifest_serves_as_a_class_list(tmp_path):
    manifest = manifest_from_rows(
        video_ids=["a"], paths=["a.mp4"], labels=[0], splits=["train"], sizes_bytes=[1], class_names=NAMES
    )
    write_manifest(manifest, tmp_path / "train.parquet")
    assert read_class_list(tmp_path / "train.parquet") == NAMES


def test_templates_without_ids_are_counted_alphabetically_and_those_with_ids_are_not(tmp_path):
    assert read_templates(written(tmp_path, "Pushing [b]\n[Something] a\n")) == ("Pushing b", "Something a")
    assert read_templates(written(tmp_path, '{"Pushing b": "1", "Something a": "0"}')) == ("Something a", "Pushing b")
