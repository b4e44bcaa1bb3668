from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from morphmlp.config.loading import flat_fields, load_config
from morphmlp.errors import ConfigError
from morphmlp.record import Metrics, Tags
from morphmlp.reporting.tables.claims import claims_table
from morphmlp.reporting.tables.measured import measured_runs
from morphmlp.reporting.tables.published import load_published
from morphmlp.tasks.scores import TOP1
from morphmlp.tracking.writer import param_text

ROOT = Path(__file__).parents[4]
FILE = ROOT / "experiments" / "published.yaml"
PUBLISHED = load_published(FILE)


def rows(published=PUBLISHED, runs=()):
    return claims_table(published, runs).cells.to_dict("records")


def changed(place, **values):
    """The file's content with another claim."""
    claims = [replace(claim, **values) if place == here else claim for here, claim in enumerate(PUBLISHED.claims)]
    return replace(PUBLISHED, claims=tuple(claims))


def test_the_claims_of_the_abstract_follow_from_the_numbers_in_print():
    """By hand: 532 / (88 x 12) = 0.504 and 79.7 - 78.8 = 0.9; 591 / 1365 = 0.433 and 70.1 - 67.7 = 2.4."""
    kinetics, something, *_ = rows()
    assert kinetics["numbers"] == "MorphMLP-S, 32 frames, 4 clips x 1 crop: 79.7 at 532 G; VideoSwin-T: 78.8 at 1056 G"
    assert (kinetics["computed"], kinetics["holds"]) == ("50.4 % of the GFLOPs, +0.9", "yes")
    assert (something["computed"], something["holds"]) == ("43.3 % of the GFLOPs, +2.4", "yes")
    assert {row["measured here"] for row in rows()} == {""}


def test_a_claim_of_being_better_goes_by_the_best_of_the_family_that_was_read():
    paper, every = [row for row in rows() if "MLP-Like" in row["claim"]]
    assert (paper["computed"], paper["holds"]) == ("+0.7", "yes")
    assert "ViP-M: 82.7 (best of MLP in arXiv 2111.12527v1, Table 2)" in paper["numbers"]
    assert (every["computed"], every["holds"]) == ("82.2 % of the GFLOPs, +0.0", "no")


@pytest.mark.parametrize("change", [{"points": 1.0}, {"gflops_percent": 51}, {"against": "VideoSwin-S"}])
def test_a_claim_that_the_numbers_do_not_give_does_not_hold(change):
    assert rows(changed(0, **change))[0]["holds"] == "no"


def test_a_run_that_stands_next_to_the_row_takes_its_place():
    config = load_config(ROOT / "experiments" / "k400" / "morphmlp_s_32x4.yaml")
    run = {
        **{"run_id": "abcdef0123", "run_name": "mine", "dataset": "k400", "start_time": pd.Timestamp("2026-01-01")},
        **{f"params.{name}": param_text(value) for name, value in flat_fields(config).items()},
        **{f"tags.{Tags.FINGERPRINT}": "0123", f"metrics.{TOP1.test_metric}": 79.0},
        f"metrics.{Metrics.TEST_NUM_VIDEOS}": 10000.0,
    }
    kinetics, *others = rows(runs=measured_runs(pd.DataFrame([run])))
    assert kinetics["measured here"] == "+0.2 (-0.6 to +1.0), 79.0 on 10000 items, mine (abcdef01)"
    assert {row["measured here"] for row in others} == {""}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("against: VideoSwin-T", "against: VideoSwin-X", "no row of `others` is what the claim on k400 names"),
        (
            "preset: morphmlp_s_32x4\n    against",
            "preset: morphmlp_x\n    against",
            "morphmlp_x has not one row on k400",
        ),
        ("    family: attention\n", "", "name one of `against` and `family`"),
    ],
)
def test_a_claim_without_its_rows_is_named(tmp_path, old, new, fault):
    text = FILE.read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "published.yaml").write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(ConfigError, match=fault):
        load_published(tmp_path / "published.yaml")
