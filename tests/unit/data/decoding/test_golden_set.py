"""Every decoder on the golden set: what the documentation's table says of it is what happens, file by file."""

from pathlib import Path

import pytest
from golden_files import CELLS
from golden_set import documented, opener, outcome, singles

from morphmlp.data.decoding.backends import DECODER_NAMES, decoder_by_name, decoder_fault
from morphmlp.data.decoding.isolation.isolated import IsolatedVideos

PAGE = Path(__file__).parents[4] / "docs" / "decoders.md"
DOCUMENTED = documented(PAGE.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def videos():
    """The decoders' openers by name."""
    openers = {name: opener(name) for name in DECODER_NAMES if decoder_fault(name) is None}
    yield openers
    for made in openers.values():
        if isinstance(made, IsolatedVideos):
            made.close()


# The default decoder at every test run, the others in CI.
@pytest.mark.parametrize(
    "decoder", [name if name == "pyav" else pytest.param(name, marks=pytest.mark.slow) for name in DECODER_NAMES]
)
@pytest.mark.parametrize("name", CELLS)
def test_a_decoder_gives_ffmpegs_frames_refuses_or_is_known_to_be_wrong(decoder, name, golden, videos):
    if decoder not in videos:
        pytest.skip(str(decoder_fault(decoder)))
    cell = CELLS[name]
    found = outcome(videos[decoder], golden.path(cell), golden.truth(cell), singles=singles(decoder))
    assert found.partition(":")[0] == DOCUMENTED[name, decoder], found


def test_the_default_decoder_is_never_known_to_be_wrong():
    assert {DOCUMENTED[name, "pyav"] for name in CELLS} <= {"exact", "refused"}


def test_the_table_has_every_file_of_the_set_and_no_other():
    assert DOCUMENTED.keys() == {(name, decoder) for name in CELLS for decoder in DECODER_NAMES}


@pytest.mark.parametrize("name", [name for name, cell in CELLS.items() if cell.group != "cut short"])
def test_a_healthy_file_has_no_damage_and_its_own_rate(name, golden):
    reader = decoder_by_name("pyav").open(str(golden.path(CELLS[name])))
    assert reader.scan() == 0
    assert reader.info.fps == pytest.approx(30, rel=0.05)  # program streams have the times of some frames only
    assert list(reader.info.pts_s) == sorted(set(reader.info.pts_s))
