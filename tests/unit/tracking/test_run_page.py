"""What MLflow's own pages and searches find of a run: source, user, data sets, description, pictures."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from empty_store import empty_store
from matplotlib.figure import Figure
from mlflow import MlflowClient
from record_servers import KINDS, LOGIN, record_store

from morphmlp.config import load_config
from morphmlp.data.manifest import read_manifest
from morphmlp.data.synthetic.kinetics_layout import write_demo_dataset
from morphmlp.evaluation.video_model import VideoModel, save_model
from morphmlp.record import RecordedDataset, Tags
from morphmlp.tasks.factory import task_of
from morphmlp.tracking import RunWriter, open_run
from morphmlp.tracking.models import ModelToLog

SPLITS = [
    RecordedDataset(
        name=f"demo-{split}",
        digest=digest,
        context=split,
        source=f"/data/demo/{split}.parquet",
        columns={"video_id": "string", "label": "integer", "fps": "double"},
        profile={"num_videos": 240, "num_classes": 8},
    )
    # As with k400, the test's videos are those of validation.
    for split, digest in (("train", "960:0123456789ab"), ("val", "240:ba9876543210"), ("test", "240:ba9876543210"))
]
SOURCE = {
    Tags.SOURCE_NAME: "pipelines/train.py",
    Tags.SOURCE_TYPE: "LOCAL",
    Tags.SOURCE_COMMIT: "0123456789abcdef0123456789abcdef01234567",
    Tags.USER: "ann",
}


@pytest.fixture(scope="module", params=KINDS)
def store(request):
    with pytest.MonkeyPatch.context() as environment, record_store(request.param) as uri:
        for name, value in LOGIN.items():
            environment.setenv(name, value)
        empty_store(uri)
        yield uri


@pytest.fixture
def writer(store, request):
    return opened(store, request.node.originalname)


def opened(store, name):
    tags = {**SOURCE, Tags.FINGERPRINT: "0123456789ab"}
    return RunWriter(store, open_run(store, experiment="demo", run_name=name, tags=tags, params={}))


def test_a_run_has_source_user_and_commit_under_mlflows_names(store, writer):
    client = MlflowClient(store)
    run = client.get_run(writer.run_id)
    assert run.info.user_id == "ann"
    assert SOURCE.items() <= run.data.tags.items()
    assert client.get_experiment(run.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    query = f"tags.`mlflow.source.git.commit` = '{SOURCE[Tags.SOURCE_COMMIT]}' and attributes.user_id = 'ann'"
    assert writer.run_id in [found.info.run_id for found in client.search_runs([run.info.experiment_id], query)]


def test_every_split_is_a_dataset_that_runs_are_found_by_also_after_a_resume(store, writer):
    writer.datasets(SPLITS)
    resumed = opened(store, "test_every_split_is_a_dataset_that_runs_are_found_by_also_after_a_resume")
    assert resumed.run_id == writer.run_id
    resumed.datasets(SPLITS)
    run = MlflowClient(store).get_run(writer.run_id)
    found = {each.tags[0].value: each.dataset for each in run.inputs.dataset_inputs}
    assert len(run.inputs.dataset_inputs) == 3
    assert {split: (each.name, each.digest) for split, each in found.items()} == {
        each.context: (each.name, each.digest) for each in SPLITS
    }
    assert mlflow.data.get_source(found["train"]).load.__self__.uri == "/data/demo/train.parquet"
    assert json.loads(found["val"].profile) == {"num_videos": 240, "num_classes": 8}
    columns = mlflow.types.Schema.from_json(json.dumps(json.loads(found["test"].schema)["mlflow_colspec"]))
    assert columns.input_names() == ["video_id", "label", "fps"]
    query = "dataset.name = 'demo-test' and dataset.digest = '240:ba9876543210'"
    ids = [found.info.run_id for found in MlflowClient(store).search_runs([run.info.experiment_id], query)]
    assert ids == [writer.run_id]


def test_runs_on_other_videos_have_another_dataset(store, writer):
    other = opened(store, "other videos")
    writer.datasets(SPLITS)
    other.datasets([replace(SPLITS[0], digest="959:aaaaaaaaaaaa")])
    client = MlflowClient(store)
    digests = [
        {each.dataset.digest for each in client.get_run(run.run_id).inputs.dataset_inputs} for run in (writer, other)
    ]
    assert digests == [{"960:0123456789ab", "240:ba9876543210"}, {"959:aaaaaaaaaaaa"}]


def test_a_description_is_written_over_and_keeps_what_a_user_wrote_above_it(store, writer):
    def note():
        return MlflowClient(store).get_run(writer.run_id).data.tags[Tags.NOTE]

    writer.describe("| top-1 |\n|---|\n| 50 |")
    MlflowClient(store).set_tag(writer.run_id, Tags.NOTE, "Ann: the learning rate is too high\n\n" + note())
    writer.describe("| top-1 |\n|---|\n| 71 |")
    shown = [line for line in note().splitlines() if line and not line.startswith("[//]:")]
    assert shown == ["Ann: the learning rate is too high", "| top-1 |", "|---|", "| 71 |"]


def test_a_thumbnail_is_one_of_the_runs_images(store, writer, tmp_path):
    figure = Figure(figsize=(2, 1), dpi=100)
    figure.subplots().imshow(np.zeros((2, 2)))
    writer.thumbnail(figure, "confusion")
    client = MlflowClient(store)
    [image] = [each.path for each in client.list_artifacts(writer.run_id, "images") if each.path.endswith(".png")]
    assert image.startswith("images/confusion")
    assert client.get_run(writer.run_id).data.tags["mlflow.loggedImages"] == "True"


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Videos and a folder with an untrained network that names their classes."""
    videos = tmp_path_factory.mktemp("videos")
    write_demo_dataset(videos, train=8, val=8, test=8)
    config = load_config(Path(__file__).parents[1] / "small_experiment.yaml", {"model.num_classes": 8})
    test = read_manifest(videos / "test.parquet")
    folder = tmp_path_factory.mktemp("network")
    save_model(folder, config, task_of(config).network().state_dict(), test.class_names)
    return folder, test.table["path"].to_pylist(), test.class_names


def test_a_model_is_an_output_of_its_run_that_mlflow_loads_by_its_registered_name(store, writer, network, monkeypatch):
    folder, paths, class_names = network
    made = ModelToLog(
        name="small",
        predictor=VideoModel,
        folder=folder,
        example=paths[:2],
        params={"test/top1": "71.25"},
        step=875,
        register_as="small-of-the-lab",
    )
    first, second = writer.model(made), writer.model(made)
    client = MlflowClient(store)
    outputs = client.get_run(writer.run_id).outputs.model_outputs
    assert {(each.model_id, each.step) for each in outputs} == {(first, 875), (second, 875)}
    assert client.get_logged_model(first).params == {"test/top1": "71.25"}
    versions = client.search_model_versions("name = 'small-of-the-lab'")
    assert {(int(each.version), each.run_id) for each in versions} == {(1, writer.run_id), (2, writer.run_id)}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    mlflow.set_tracking_uri(store)
    try:
        model = mlflow.pyfunc.load_model("models:/small-of-the-lab/2")
    finally:
        mlflow.set_tracking_uri(None)
    assert model.metadata.signature.inputs.is_tensor_spec() is False
    assert model.metadata.signature.outputs.input_names() == ["path", "names", "probabilities", "error"]
    answers = model.predict(model.input_example)
    assert answers["path"].tolist() == paths[:2]
    assert all(set(names) <= set(class_names) and len(names) == 5 for names in answers["names"])
    as_table = model.predict(pd.DataFrame({"video": paths[:2]}))
    assert as_table["probabilities"].tolist() == answers["probabilities"].tolist()
