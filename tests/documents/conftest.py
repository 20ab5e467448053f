"""What a reader's folder holds when they try what the documents say: data, runs, a picture; all of it made here."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcaps.data import DataSettings, SplitSettings
from matcaps.training import ModelSettings, TrainSettings, recipe_settings, train
from tests.support.documents import CNN_RUN, RUN, STOPPED_RUN
from tests.support.norb import write_noise_norb
from tests.support.runs import TINY_CNN, Stop, StoppedError


@pytest.fixture(scope="session")
def data_root(tmp_path_factory) -> Path:
    """A smallNORB of noise: every object at every elevation."""
    return write_noise_norb(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def runs(tmp_path_factory, data_root) -> Path:
    """A run that is finished, one of the CNN, and one that was stopped."""
    folder = tmp_path_factory.mktemp("runs")
    data = DataSettings(
        "smallnorb",
        root=str(data_root),
        max_train_images=40,
        max_test_images=20,
        batch_size=8,
        split=SplitSettings(),
    )
    small = ModelSettings("paper-small", stem_channels=4, primary_capsules=2, conv_capsules1=2, conv_capsules2=2)
    settings = TrainSettings(
        recipe="smallnorb", model=small, data=data, epochs=1, accelerator="cpu", calibration_images=8
    )
    train(settings, folder / RUN)
    cnn = replace(settings, recipe="smallnorb-cnn", model=TINY_CNN, loss=recipe_settings("smallnorb-cnn").loss)
    train(cnn, folder / CNN_RUN)
    with pytest.raises(StoppedError):
        train(settings, folder / STOPPED_RUN, callbacks=[Stop("on_train_batch_start", 1)])
    return folder


@pytest.fixture
def work(tmp_path, monkeypatch, data_root) -> Path:
    """The folder in which a command or an example is tried: it holds a picture, and the data are known."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MATCAPS_DATA", str(data_root))
    pixels = np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "photo.png")
    return folder


@pytest.fixture
def with_runs(work, runs) -> Path:
    """The same, with runs."""
    shutil.copytree(runs, work / "runs")
    return work
