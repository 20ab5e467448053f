"""What the page asks of a network, against the functions that it stands on."""

from dataclasses import replace

import pytest
import torch

from matcaps import create_model
from matcaps.demo.examples import Examples, find_examples
from matcaps.demo.panels import show_votes
from matcaps.demo.session import attack, open_demo, pose_bounds, read, reconstruct
from matcaps.experiments.attacks import fgsm
from matcaps.inspect import vote_distances, vote_histogram
from matcaps.models import PoseDecoder
from matcaps.models.pretrained import save_weights
from matcaps.training import train
from tests.support.networks import make_network, save_digits
from tests.support.runs import TINY_CNN, tiny_settings


@pytest.fixture(scope="module")
def reading(demo):
    assert demo.examples is not None
    dataset = demo.examples.dataset
    return read(demo, dataset.images[3:4], "a drawn three", int(dataset.labels[3]))


def test_a_reading_is_what_the_network_says(demo, reading):
    with torch.no_grad():
        classes = demo.network(reading.image)
    assert torch.equal(reading.activations, classes.activations[0])
    assert torch.equal(reading.pose, classes.poses[0, reading.winner].flatten())
    assert torch.equal(reading.image, demo.transform.evaluate(reading.pixels))
    expected = vote_histogram(vote_distances(demo.network, reading.image), num_bins=24)
    assert torch.equal(reading.votes.counts, expected.counts)
    assert reading.votes.counts.shape[:2] == (demo.iterations, 10)
    assert torch.allclose(reading.votes.activations[-1], reading.activations, atol=1e-5)


def test_the_page_has_as_many_steps_as_the_class_capsules_have_iterations(tmp_path):
    network = make_network(num_classes=10, class_iterations=4)
    demo = open_demo(str(save_digits(tmp_path / "digits", network=network)), root=str(tmp_path))
    assert demo.examples is not None
    found = read(demo, demo.examples.dataset.images[:1], "x")
    assert demo.iterations == found.votes.counts.shape[0] == 4
    assert "After iteration 4 of 4" in show_votes(demo, found, 4)


def test_without_mnist_the_drawn_digits_come(demo):
    assert demo.examples is not None
    assert demo.examples.dataset.name == "drawn digits"
    assert "MNIST is not on this machine: matcaps data fetch mnist" in demo.examples.description
    assert demo.examples.dataset.labels[:12].tolist() == [*range(10), 0, 1]
    assert demo.reads_digits


def test_a_run_shows_its_own_test_images(tmp_path):
    folder = train(tiny_settings(epochs=1), tmp_path / "run").folder
    demo = open_demo(str(folder))
    assert demo.examples is not None
    assert demo.examples.dataset.name == "embedded"
    assert demo.examples.dataset.labels[:12].tolist() == [*range(10), 0, 1]
    assert not demo.reads_digits
    assert demo.decoder is None
    assert f"matcaps inspect {folder} --train_decoder" in demo.decoder_note
    found = read(demo, demo.examples.dataset.images[:1], "x")
    with pytest.raises(ValueError, match="--train_decoder"):
        reconstruct(demo, found, found.pose)


def test_other_networks_without_their_data_have_no_examples(tmp_path, demo):
    description = demo.saved.description | {"data": "smallnorb", "classes": list("abcdefghij")}
    assert find_examples(replace(demo.saved, description=description), str(tmp_path)) is None


def test_pages_of_examples_go_round(demo):
    assert demo.examples is not None
    some = Examples(demo.examples.dataset.subset(torch.arange(50)), "some")
    assert [some.page(number) for number in range(4)] == [range(20), range(20, 40), range(40, 50), range(20)]


def test_the_range_of_a_pose_is_that_of_its_class(demo, reading):
    assert demo.examples is not None
    dataset = demo.examples.dataset
    with torch.no_grad():
        poses = demo.network(demo.transform.evaluate(dataset.images[dataset.labels == 4])).poses[:, 4].flatten(1)
    expected = poses.quantile(torch.tensor([0.02, 0.98]), dim=0).T
    assert torch.allclose(demo.ranges[4], expected, atol=1e-4)
    low, high = pose_bounds(demo, reading)
    assert (low <= reading.pose).all()
    assert (reading.pose <= high).all()
    low, high = pose_bounds(replace(demo, ranges=None), reading)
    assert torch.allclose(high - low, torch.full((16,), 2.0))


def test_the_image_s_own_pose_gives_its_reconstruction(demo, reading):
    with torch.no_grad():
        expected = demo.decoder(reading.poses, torch.tensor([reading.winner]))[0]
    assert torch.equal(reconstruct(demo, reading, reading.pose), expected)
    moved = reading.pose.clone()
    moved[7] += 1
    assert not torch.allclose(reconstruct(demo, reading, moved), expected)
    for bad in (torch.zeros(15), torch.full((16,), float("nan"))):
        with pytest.raises(ValueError, match="pose must be 16 finite numbers"):
            reconstruct(demo, reading, bad)


@pytest.mark.parametrize("epsilon", [0.01, 0.2, 0.5])
def test_the_attack_is_fgsm_at_every_epsilon(reading, epsilon):
    found = attack(reading, epsilon)
    label = torch.tensor([reading.winner])
    expected = fgsm(reading.network, reading.image, label, epsilon, (0.0, 1.0), objective="logits")
    assert torch.equal(found.image, expected)
    assert float(found.change.abs().max()) <= epsilon + 1e-6
    with torch.no_grad():
        assert torch.allclose(found.activations, reading.network(expected).activations[0], atol=1e-6)


def test_no_epsilon_no_change(reading):
    found = attack(reading, 0)
    assert torch.equal(found.image, reading.image)
    assert not found.change.any()
    assert torch.equal(found.activations, reading.activations)
    for bad in (-0.1, 0.6, float("nan")):
        with pytest.raises(ValueError, match=r"epsilon must be from 0 to 0\.5"):
            attack(reading, bad)


def test_a_decoder_where_inspect_puts_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "paper-small-smallnorb"
    assert open_demo(name, root="nowhere").decoder is None
    folder = tmp_path / f"inspect-{name}"
    folder.mkdir()
    save_weights(PoseDecoder(5, (2, 32, 32), hidden_units=(8, 8)), folder / "decoder.safetensors")
    assert open_demo(name, root="nowhere").decoder is not None


def test_bad_networks(tmp_path):
    with pytest.raises(FileNotFoundError, match="no saved model at nowhere"):
        open_demo("nowhere")
    cnn = train(tiny_settings(model=TINY_CNN, epochs=1), tmp_path / "cnn").folder
    with pytest.raises(ValueError, match="has no capsules to show: it is a BaselineCNN"):
        open_demo(str(cnn))
    bare = tmp_path / "bare"
    create_model("quickstart", num_classes=3).save_pretrained(bare)
    with pytest.raises(ValueError, match="does not record how its images were prepared"):
        open_demo(str(bare))
    broken = save_digits(tmp_path / "broken", decoder=False)
    (broken / "decoder.safetensors").write_text("no decoder")
    with pytest.raises(ValueError, match="is not a safetensors file"):
        open_demo(str(broken))
