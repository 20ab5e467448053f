"""On a GPU: training, testing and looking inside give what the CPU gives, to its rounding, and a step waits for none.

With the reference's routing, which runs anywhere, and with what "auto" takes there.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image

from matcaps.findings import InspectSettings, inspect_saved
from matcaps.training import OptimizerSettings, TrainingDivergedError, load_run, train
from matcaps.training.checkpoints import newest_checkpoint, read_checkpoint
from matcaps.training.inference import evaluate_saved
from matcaps.training.prediction import predict_files
from tests.training.runs import (
    AT_EVERY_STEP,
    STEPS,
    TINY,
    TINY_CNN,
    Stop,
    StoppedError,
    repeatable_metrics,
    tiny_settings,
)
from tests.training.test_late_check import Spoil

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:the training seems stuck"),
]


def settings(implementation="reference", accelerator="gpu", **changes):
    base = tiny_settings(
        model=replace(TINY, implementation=implementation),
        optimizer=OptimizerSettings(gradient_clip=1.0, ema_decay=0.9),
        epochs=2,
    )
    return replace(base, accelerator=accelerator, **changes)


@pytest.fixture(scope="module", params=["reference", "auto"])
def run(request, tmp_path_factory):
    """Ten steps on the GPU."""
    seen = []

    class Look(Callback):
        def on_train_batch_start(self, trainer, module, batch, batch_index):
            seen.append({module.device.type, batch.images.device.type, batch.labels.device.type})

    place = tmp_path_factory.mktemp("gpu") / "run"
    result = train(settings(request.param, watched_parts=("test",)), place, callbacks=[Look()])
    assert seen == [{"cuda"}] * 2 * STEPS
    return result


def test_ten_steps_are_those_of_the_cpu(run, tmp_path):
    expected = train(settings(accelerator="cpu", watched_parts=("test",)), tmp_path / "cpu")
    for one, other in zip(repeatable_metrics(run.folder), repeatable_metrics(expected.folder), strict=True):
        assert one.keys() == other.keys()
        for name in ("train/loss", "train/step_loss", "validation/loss"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=0.02), name
    assert run.test is not None
    assert expected.test is not None
    assert run.test.log_loss == pytest.approx(expected.test.log_loss, rel=0.02)


def test_testing_and_classifying_give_what_the_cpu_gives(run, tmp_path):
    there, here = (evaluate_saved(str(run.folder), accelerator=name) for name in ("gpu", "cpu"))
    assert there.num_images == here.num_images
    assert there.log_loss == pytest.approx(here.log_loss, rel=1e-2)
    assert there.accuracy == pytest.approx(here.accuracy, abs=0.01)
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    found = [predict_files(str(run.folder), [str(tmp_path / "one.png")], accelerator=name) for name in ("gpu", "cpu")]
    there, here = (next(iter(one.scores.values())) for one in found)
    assert there == pytest.approx(here, rel=1e-2, abs=1e-3)


def test_looking_inside_finds_what_the_cpu_finds(run, tmp_path):
    records = [
        inspect_saved(
            InspectSettings(str(run.folder), num_images=40, output=str(tmp_path / name), accelerator=name)
        ).record
        for name in ("gpu", "cpu")
    ]
    assert records[0]["activations"] == pytest.approx(records[1]["activations"], rel=1e-2, abs=1e-3)
    assert records[0]["figures"] == records[1]["figures"]


class NoWaiting(Callback):
    """Have torch refuse to wait for the GPU in the second epoch's steps, but for the last, which is logged."""

    def __init__(self):
        self.steps = 0

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        if trainer.current_epoch and batch_index == 1:
            torch.cuda.set_sync_debug_mode("error")

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_index):
        if trainer.current_epoch and 1 <= batch_index < STEPS - 1:
            self.steps += 1
        if batch_index == STEPS - 2:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("implementation", ["reference", "auto"])
@pytest.mark.parametrize("network", ["capsules", "normalised", "cnn"])
def test_no_step_waits_for_the_one_before(tmp_path, implementation, network):
    chosen = settings(implementation, log_every_steps=1000)
    if network == "normalised":
        chosen = replace(chosen, model=replace(chosen.model, normalisation="batch", activation_rule="relative"))
    if network == "cnn":
        chosen = replace(chosen, model=TINY_CNN)
    watch = NoWaiting()
    try:
        train(chosen, tmp_path / "run", callbacks=[watch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert watch.steps == STEPS - 2


def test_what_is_broken_stops_the_training_and_never_reaches_the_weights(tmp_path):
    name = "network.conv_capsules1.weight"
    spoil = Spoil(name)
    with pytest.raises(TrainingDivergedError, match=f"the gradient of {name} is not finite at step 7"):
        train(settings(), tmp_path, callbacks=[spoil])
    assert spoil.seen
    assert all(torch.equal(one, spoil.seen[0]) for one in spoil.seen)


def test_a_run_goes_on_within_an_epoch(tmp_path):
    """On the images that an uninterrupted one would see; with dropout, on the same random numbers."""
    for model in (replace(TINY, implementation="reference"), TINY_CNN):
        chosen = replace(settings(), model=model, checkpoint_minutes=AT_EVERY_STEP)
        folder = tmp_path / model.preset
        whole = train(chosen, folder / "whole").folder
        with pytest.raises(StoppedError):
            train(chosen, folder / "parts", callbacks=[Stop("on_train_batch_start", STEPS + 2)])
        newest = newest_checkpoint(folder / "parts" / "checkpoints")
        assert newest is not None
        assert read_checkpoint(newest)["global_step"] == STEPS + 2
        train(chosen, folder / "parts", resume=True)
        one, other = (load_run(place)[0].state_dict() for place in (whole, folder / "parts"))
        for key, value in one.items():
            torch.testing.assert_close(
                other[key], value, rtol=1e-3, atol=1e-5, msg=lambda said, key=key: f"{key}: {said}"
            )
