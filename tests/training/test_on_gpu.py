"""On a GPU: training, testing and looking inside give what the CPU gives, to its rounding, and a step waits for none.

With the reference's routing, which runs anywhere, and with what "auto" takes there.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from matcaps.data import load_data
from matcaps.experiments.attacks import AttackSettings, attack_networks
from matcaps.inference.prediction import predict_files
from matcaps.inference.saved import evaluate_saved
from matcaps.inspect import InspectSettings, inspect_saved
from matcaps.training import LossSettings, OptimizerSettings, TrainingDivergedError, load_run, train
from matcaps.training.checkpoint_files import newest_checkpoint, read_checkpoint
from matcaps.training.loop import Callback
from tests.support.runs import (
    AT_EVERY_STEP,
    STEPS,
    TINY,
    TINY_CNN,
    Spoil,
    Stop,
    StoppedError,
    repeatable_metrics,
    tiny_settings,
)

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
    pytest.mark.filterwarnings("ignore:the training seems stuck"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode"),  # a prototype, torch says
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


def test_attacks_find_what_they_find_on_the_cpu(run):
    """Few images and weak networks: a share may differ by an image that lies on the fence."""
    chosen = AttackSettings(
        epsilons=(0.0, 0.1),
        num_images=20,
        bim_steps=2,
        strong_epsilons=(0.1,),
        num_strong_images=10,
        pgd_steps=2,
        pgd_restarts=1,
        square_queries=4,
    )
    network, trained = load_run(run.folder)
    bundle = load_data(trained.data, trained.seed)
    found = []
    for device in ("cuda", "cpu"):
        network.to(device)
        records = attack_networks({"one": network}, "one", bundle.test, bundle.transform, chosen)
        found.append(records["networks"]["one"])
    for box in ("white_box", "black_box"):
        one, other = (part["curves"]["fgsm"]["untargeted"][box] for part in found)
        assert one == pytest.approx(other, abs=0.1)
    one, other = (part["strong"]["accuracy"] for part in found)
    assert one.keys() == other.keys()
    for name, values in one.items():
        assert values == pytest.approx(other[name], abs=0.2), name


def of_kind(network, chosen):
    if network == "normalised":
        chosen = replace(chosen, model=replace(chosen.model, normalisation="batch", activation_rule="relative"))
    if network == "decoder":
        chosen = replace(chosen, loss=LossSettings(name="margin", reconstruction_weight=0.0005))
    if network == "cnn":
        chosen = replace(chosen, model=TINY_CNN)
    return chosen


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
@pytest.mark.parametrize("network", ["capsules", "normalised", "decoder", "cnn"])
def test_no_step_waits_for_the_one_before(tmp_path, implementation, network):
    chosen = of_kind(network, settings(implementation, log_every_steps=1000))
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


class Seen(Callback):
    """The images of each step."""

    def __init__(self):
        self.steps: dict[int, list[int]] = {}

    def on_train_batch_start(self, trainer, module, batch, batch_index):
        self.steps[trainer.global_step] = batch.indices.tolist()


@pytest.mark.parametrize("network", ["capsules", "normalised", "decoder", "cnn"])
def test_a_recorded_step_is_the_plain_one(tmp_path, network):
    """With dropout, the CNN's, on the same random numbers; with running statistics, on the same."""
    rows = []
    for cuda_graph in (False, True):
        chosen = of_kind(network, settings("auto", cuda_graph=cuda_graph))
        folder = train(chosen, tmp_path / str(cuda_graph)).folder
        rows.append(repeatable_metrics(folder))
    for plain, recorded in zip(*rows, strict=True):
        assert plain.keys() == recorded.keys()
        for name in ("train/loss", "train/step_loss", "train/gradient_norm"):
            assert float(recorded[name]) == pytest.approx(float(plain[name]), rel=1e-3), name


@pytest.mark.parametrize("cuda_graph", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("model", [replace(TINY, implementation="reference"), TINY_CNN], ids=["capsules", "cnn"])
def test_a_run_goes_on_within_an_epoch(tmp_path, model, cuda_graph):
    """On the images that an uninterrupted one would see; with dropout, the CNN's, on the same random numbers.

    The weights are not compared: Adam makes steps of full length of gradients that are rounding alone.
    """
    chosen = replace(settings(), model=model, checkpoint_minutes=AT_EVERY_STEP, cuda_graph=cuda_graph)
    seen = Seen(), Seen()
    whole = train(chosen, tmp_path / "whole", callbacks=[seen[0]]).folder
    with pytest.raises(StoppedError):
        train(chosen, tmp_path / "parts", callbacks=[Stop("on_train_batch_start", STEPS + 2)])
    newest = newest_checkpoint(tmp_path / "parts" / "checkpoints")
    assert newest is not None
    assert read_checkpoint(newest)["global_step"] == STEPS + 2
    parts = train(chosen, tmp_path / "parts", resume=True, callbacks=[seen[1]]).folder
    assert seen[1].steps == {step: images for step, images in seen[0].steps.items() if step >= STEPS + 2}
    assert len(seen[1].steps) == STEPS - 2
    one, other = (repeatable_metrics(place)[-1] for place in (whole, parts))
    for name in ("train/loss", "train/step_loss"):
        assert float(other[name]) == pytest.approx(float(one[name]), rel=1e-3), name
