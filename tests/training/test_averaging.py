"""The statistics that averaged weights find before they are looked at or saved."""

from dataclasses import replace

import pytest
import torch

from matcaps.data import TransformSettings, load_data
from matcaps.models.statistics import statistics_of
from matcaps.training import OptimizerSettings, load_run, train
from matcaps.training.loop import Callback
from tests.support.runs import TINY, tiny_settings

# networks of two capsules often are stuck, and that is not what these tests are about
pytestmark = pytest.mark.filterwarnings("ignore:the training seems stuck")


def settings(**changes):
    base = tiny_settings(
        model=replace(TINY, normalisation="batch", activation_rule="relative"),
        optimizer=OptimizerSettings(ema_decay=0.9),
        epochs=2,
    )
    return replace(
        base, data=replace(base.data, transform=TransformSettings(max_shift=3, max_rotation=30.0)), **changes
    )


@torch.no_grad()
def means(network, images):
    """What batch normalisation of the stem sees, by feature map."""
    seen = []
    norm = network.stem.normalisation
    norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean(dim=(0, 2, 3))))
    network(images)
    return seen[0]


def test_they_are_those_of_training_images_as_evaluation_shows_them(tmp_path):
    network, done = load_run(train(settings(), tmp_path / "run").folder)
    bundle = load_data(done.data, done.seed)
    plain = bundle.transform.evaluate(bundle.train.images)
    found = network.stem.normalisation.running_mean
    scale = network.stem.normalisation.running_var.sqrt()
    torch.testing.assert_close(found / scale, means(network, plain) / scale, rtol=0, atol=0.03)


def test_looking_for_them_leaves_the_weights_in_training_as_they_are(tmp_path):
    seen = []

    class Watch(Callback):
        def on_train_epoch_start(self, trainer, module):
            seen.append([one.clone() for one in (*module.network.parameters(), *statistics_of(module.network))])

    kept = settings()
    train(kept, tmp_path / "averaged", callbacks=[Watch()])
    train(replace(kept, optimizer=OptimizerSettings(ema_decay=None)), tmp_path / "plain", callbacks=[Watch()])
    for one, other in ((seen[0], seen[2]), (seen[1], seen[3])):
        assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
