import copy
import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from matcaps import Capsules, create_model
from matcaps.data import Transform, TransformSettings, load_embedded
from matcaps.experiments.attacks import (
    AttackSettings,
    attack_networks,
    bim,
    fgsm,
    input_bounds,
    pgd,
    random_noise,
    square_attack,
)
from matcaps.experiments.attacks.objectives import attack_margins, class_logits, margins_and_gradients, prepared

NUM_CLASSES = 4
SHAPE = (2, 8, 8)


class Cnn(nn.Module):
    """A small network of smooth parts, in float64, so that signs of gradients do not hang on rounding."""

    def __init__(self, seed=0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Conv2d(2, 6, 3), nn.Tanh(), nn.Flatten(), nn.Linear(216, NUM_CLASSES))
        self.double()

    def forward(self, images):
        return 3 * self.layers(images)


class Activations(nn.Module):
    """The class scores of another network as activations of capsules."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        logits = self.network(images)
        return Capsules(logits.new_zeros(*logits.shape, 4, 4), logits.sigmoid())


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(12, *SHAPE, generator=generator, dtype=torch.float64)
    labels = Cnn()(images).argmax(dim=1)  # all are right unchanged
    targets = (labels + torch.randint(1, NUM_CLASSES, (12,), generator=generator)) % NUM_CLASSES
    return images, labels, targets


BOUNDS = (0.0, 1.0)
ATTACKS = {
    "fgsm": fgsm,
    "bim": bim,
    "pgd": lambda *a, **k: pgd(*a, num_steps=5, **k),
    "square": lambda *a, **k: square_attack(*a, num_queries=30, **k),
    "noise": lambda network, images, labels, epsilon, bounds, targets=None, **k: random_noise(
        images, epsilon, bounds, **k
    ),
}
SEEDED = ("pgd", "square", "noise")


def accuracy(network, images, labels):
    with torch.no_grad():
        output = network(images)
    scores = output.activations if isinstance(output, Capsules) else output
    return (scores.argmax(dim=1) == labels).double().mean().item()


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_stay_in_the_ball_and_in_the_bounds(name, targeted, batch):
    images, labels, targets = batch
    before = images.clone()
    low = torch.linspace(-0.1, 0, 12, dtype=torch.float64).reshape(-1, 1, 1, 1)  # of its own for each image
    for epsilon in (0.03, 0.2, 5.0):
        got = ATTACKS[name](Cnn(), images, labels, epsilon, (low, 1.0), targets=targets if targeted else None)
        assert got.shape == images.shape
        assert got.dtype == images.dtype
        assert (got - images).abs().max() <= epsilon + 1e-12
        assert (got >= low).all()
        assert (got <= 1).all()
        assert not torch.equal(got, images)
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", ATTACKS)
def test_epsilon_0_gives_the_images_back(name, batch):
    images, labels, _ = batch
    assert torch.equal(ATTACKS[name](Cnn(), images, labels, 0.0, BOUNDS), images)


@pytest.mark.parametrize("name", ATTACKS)
def test_attacks_leave_network_and_random_state_alone(name, batch):
    images, labels, _ = batch
    network = nn.Sequential(nn.Dropout(0.5), Cnn()).train()
    network[1].layers[1].eval()  # a part with a mode of its own
    modes = [module.training for module in network.modules()]
    state, weights = torch.get_rng_state(), copy.deepcopy(network.state_dict())
    ATTACKS[name](network, images, labels, 0.1, BOUNDS)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in network.modules()] == modes
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(weights[key], value) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ATTACKS)
def test_an_image_fares_the_same_alone_and_in_a_batch(name, batch):
    images, labels, targets = batch
    order = torch.arange(40, 52)
    seeded = {"seed": 3} if name in SEEDED else {}

    def attack(rows):
        indices = {"indices": order[rows]} if name in SEEDED else {}
        return ATTACKS[name](
            Cnn(), images[rows], labels[rows], 0.04, BOUNDS, targets=targets[rows], **seeded, **indices
        )

    whole = attack(torch.arange(12))
    assert torch.equal(whole, attack(torch.arange(12)))
    parts = torch.cat([attack(rows) for rows in torch.arange(12).split(5)])
    torch.testing.assert_close(parts, whole, rtol=0, atol=1e-12)
    if name in SEEDED:
        seeded = {"seed": 4}
        assert not torch.equal(whole, attack(torch.arange(12)))


def test_fgsm_on_a_linear_network_is_the_closed_form():
    """Untargeted, of two classes, every value goes against the difference of the two rows of weights."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(128, 2, bias=False)).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, *SHAPE, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1])
    weight = network[1].weight.detach()
    away = weight[1 - labels] - weight[labels]
    expected = (images + 0.1 * away.sign().reshape(-1, *SHAPE)).clamp(0, 1)
    for objective in ("loss", "logits"):
        torch.testing.assert_close(fgsm(network, images, labels, 0.1, BOUNDS, objective=objective), expected)
        targeted = fgsm(network, images, labels, 0.1, BOUNDS, targets=1 - labels, objective=objective)
        torch.testing.assert_close(targeted, expected)  # of two classes there is one wrong one
    capsules = Activations(network)  # whose logits are the network's
    torch.testing.assert_close(fgsm(capsules, images, labels, 0.1, BOUNDS, objective="logits"), expected)
    # Nothing in the ball is better for a linear network, so PGD that does not succeed ends there too.
    still_right = (network(expected).argmax(dim=1) == labels).nonzero().flatten()
    got = pgd(network, images, labels, 0.1, BOUNDS)
    torch.testing.assert_close(got[still_right], expected[still_right])


@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd", "square"])
def test_attacks_do_what_they_are_for(name, batch):
    images, labels, targets = batch
    network = Cnn()
    noisy = random_noise(images, 0.1, BOUNDS)
    got = ATTACKS[name](network, images, labels, 0.1, BOUNDS)
    assert accuracy(network, got, labels) < accuracy(network, noisy, labels)
    aimed = ATTACKS[name](network, images, labels, 0.1, BOUNDS, targets=targets)
    before, after = (attack_margins(network(x).detach(), labels, targets) for x in (images, aimed))
    assert (after > before).all()


def test_pgd_is_at_least_as_strong_as_bim_and_more_restarts_never_weaker(batch):
    images, labels, _ = batch
    network = Cnn()
    left = [accuracy(network, bim(network, images, labels, 0.03, BOUNDS), labels)]
    for restarts in (1, 4):
        got = pgd(network, images, labels, 0.03, BOUNDS, num_restarts=restarts)
        left.append(accuracy(network, got, labels))
    assert 1 > left[0] >= left[1] >= left[2]


def test_saturated_activations_have_logits_with_a_gradient():
    """In float32 the activations are 0 and 1 to the last bit, and the loss is flat; in float64 they are not."""
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(0))
    network = Activations(nn.Sequential(nn.Flatten(), nn.Linear(128, NUM_CLASSES)))
    with torch.no_grad():
        network.network[1].weight.mul_(0.01)
        network.network[1].bias.copy_(torch.tensor([25.0, -25.0, -30.0, -25.0]))
    labels = torch.zeros(3, dtype=torch.int64)
    assert (network(images).activations[:, 0] == 1).all()
    _, flat = margins_and_gradients(network, images, labels, None, "loss")
    assert (flat == 0).all()
    with prepared(network, images, "logits") as net:
        assert net is not network
        margins, gradient = margins_and_gradients(net, images, labels, None, "logits")
    assert gradient.dtype == torch.float64
    assert (gradient != 0).all()
    torch.testing.assert_close(margins, torch.full((3,), -50.0, dtype=torch.float64), rtol=0, atol=0.5)
    assert network.network[1].weight.dtype == torch.float32
    ends = Capsules(torch.zeros(1, 2, 4, 4), torch.tensor([[0.0, 1.0]], requires_grad=True))
    class_logits(ends).sum().backward()
    assert torch.isfinite(class_logits(ends)).all()
    assert torch.isfinite(ends.activations.grad).all()


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("a gradient was asked for")


class Counting(nn.Module):
    """Raises where a gradient is asked for, and counts the images that it is asked about."""

    def __init__(self, network):
        super().__init__()
        self.network, self.count = network, 0

    def forward(self, images):
        self.count += len(images)
        return NoBackward.apply(self.network(images))


def test_square_attack_asks_for_scores_alone_and_keeps_its_budget(batch):
    images, labels, _ = batch
    network = Counting(Cnn())
    adversarial = square_attack(network, images, labels, 0.001, BOUNDS, num_queries=20)
    assert network.count == 12 * 20 + 1  # none falls, so every query is made; and one to see whether it gives capsules
    assert accuracy(network, adversarial, labels) == 1
    with pytest.raises(AssertionError, match="a gradient was asked for"):
        fgsm(network, images, labels, 0.001, BOUNDS)


def test_foolbox_makes_the_same_images(batch):
    reason = "foolbox cannot be imported: pip install 'matcaps[dev]', and git, which it asks for"
    foolbox = pytest.importorskip("foolbox", reason=reason, exc_type=ImportError)
    images, labels, targets = (tensor.float() if tensor.is_floating_point() else tensor for tensor in batch)
    network = Cnn().float().eval()
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    epsilon, steps = 0.05, 7
    many = {"random_start": False, "steps": steps, "abs_stepsize": epsilon / 5}
    options = {"num_steps": steps, "step_size": epsilon / 5}
    attacks, wrong = foolbox.attacks, foolbox.criteria.Misclassification(labels)
    for theirs, ours, given in (
        (attacks.LinfFastGradientAttack(random_start=False), fgsm, {}),
        (attacks.LinfBasicIterativeAttack(**many), bim, options),
        (attacks.LinfProjectedGradientDescentAttack(**many), bim, options),
    ):
        expected, _, fooled = theirs(model, images, wrong, epsilons=epsilon)
        got = ours(network, images, labels, epsilon, BOUNDS, **given)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
        assert torch.equal(network(got).argmax(dim=1) != labels, fooled)
    assert 0 < fooled.sum() < len(labels)

    # Our PGD stops at an image's first success; theirs goes on, and here it does not lose it again.
    plain = {"objective": "loss", "random_start": False, "num_restarts": 1}
    got = pgd(network, images, labels, epsilon, BOUNDS, **plain, **options)
    assert torch.equal(network(got).argmax(dim=1) != labels, fooled)

    # Their FGSM has no targeted form, but one step of their BIM is the same.
    one = {"random_start": False, "steps": 1, "rel_stepsize": 1.0}
    aimed = foolbox.criteria.TargetedMisclassification(targets)
    for theirs, ours, given in (
        (attacks.LinfBasicIterativeAttack(**one), fgsm, {}),
        (attacks.LinfBasicIterativeAttack(**many), bim, options),
        (attacks.LinfProjectedGradientDescentAttack(**many), bim, options),
    ):
        expected, _, hit = theirs(model, images, aimed, epsilons=epsilon)
        got = ours(network, images, labels, epsilon, BOUNDS, targets=targets, **given)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)
        assert torch.equal(network(got).argmax(dim=1) == targets, hit)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(2, *SHAPE, dtype=torch.uint8)}, TypeError, "images must be floating point"),
        ({"images": torch.zeros(2, 8, 8)}, ValueError, r"images must have shape \[B, C, H, W\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, r"labels must have shape \[2\]"),
        ({"labels": torch.zeros(2)}, TypeError, "labels must be int64"),
        ({"targets": torch.zeros(1, dtype=torch.int64)}, ValueError, r"targets must have shape \[2\]"),
        ({"epsilon": -1.0}, ValueError, "epsilon must be finite and at least 0; got -1.0"),
        ({"bounds": (0.5, 1.0)}, ValueError, "images must lie within bounds; got values from 0 to 0"),
        ({"objective": "hinge"}, ValueError, 'objective must be "loss" or "logits"; got \'hinge\''),
        ({"num_steps": 0}, ValueError, "num_steps must be a whole number of at least 1; got 0"),
    ],
)
def test_bad_input_of_an_attack(change, error, message):
    arguments = {
        "images": torch.zeros(2, *SHAPE, dtype=torch.float64),
        "labels": torch.zeros(2, dtype=torch.int64),
        "epsilon": 0.1,
        "bounds": BOUNDS,
        **change,
    }
    with pytest.raises(error, match=message):
        bim(Cnn(), **arguments)


def test_a_gradient_that_is_not_finite_is_refused():
    class Broken(Cnn):
        def forward(self, images):
            return super().forward((images - images).sqrt())

    images, labels = torch.zeros(1, *SHAPE, dtype=torch.float64), torch.zeros(1, dtype=torch.int64)
    with pytest.raises(RuntimeError, match="not finite"):
        fgsm(Broken(), images, labels, 0.1, BOUNDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilons": ()}, "epsilons must be one or more finite numbers"),
        ({"epsilons": (0.2, 0.1)}, "epsilons must ascend"),
        ({"epsilons": (float("nan"),)}, "epsilons must be one or more finite numbers"),
        ({"strong_epsilons": (0, 0.1)}, "strong_epsilons must be above 0"),
        ({"large_epsilon": 0}, "large_epsilon must be a finite number above 0; got 0"),
        ({"objective": "x"}, "objective must be loss or logits; got 'x'"),
        ({"num_images": 0}, "num_images must be a whole number of at least 1; got 0"),
        ({"square_queries": 1}, "square_queries must be a whole number of at least 2; got 1"),
        ({"seed": 0.5}, "seed must be a whole number; got 0.5"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(ValueError, match=message):
        AttackSettings(**change)


TINY = AttackSettings(
    epsilons=(0, 0.05, 0.2),
    num_images=10,
    bim_steps=2,
    strong_epsilons=(0.05,),
    num_strong_images=5,
    pgd_steps=2,
    pgd_restarts=1,
    square_queries=5,
    batch_size=4,
)
SCALED = Transform(TransformSettings().resolve("embedded"), 28)


def without_seconds(record):
    record = copy.deepcopy(record)
    for network in record["networks"].values():
        network.pop("seconds")
    return record


def test_record_on_real_networks_is_plain_and_repeatable():
    dataset = load_embedded("test")
    networks = {
        "capsules": create_model("paper-small", in_channels=1, num_classes=10),
        "cnn": create_model("baseline-cnn", in_channels=1, num_classes=10, image_size=(28, 28), hidden_units=16),
    }
    networks["capsules"].calibrate(SCALED.evaluate(dataset.images[:8]))
    record = attack_networks(networks, "cnn", dataset, SCALED, TINY)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    again = attack_networks(networks, "cnn", dataset, SCALED, TINY)
    assert without_seconds(again) == without_seconds(record)
    assert all(network.training for network in networks.values())
    assert record["epsilon"]["unit"] == "the full range of grey levels"
    assert record["epsilon"]["grey_levels"] == pytest.approx([0, 0.05 * 255, 0.2 * 255])
    for name, entry in record["networks"].items():
        for curve in entry["curves"].values():
            assert curve["untargeted"]["white_box"][0] == entry["clean_accuracy"]
            same = curve["untargeted"]["white_box"] == curve["untargeted"]["black_box"]
            assert same or name == "capsules"
        assert entry["strong"]["num_images"] == 5
        assert all(len(values) == 1 for values in entry["strong"]["accuracy"].values())
        assert all(isinstance(check["sign_of_masking"], bool) for check in entry["masking"].values())
    assert record["networks"]["cnn"]["masking"]["transfer_beats_white_box"]["value"] is None
    assert record["networks"]["capsules"]["masking"]["transfer_beats_white_box"]["value"] is not None


class Template(nn.Module):
    """Logits that measure how like each class's mean an image is: a linear network, right on most of the images."""

    def __init__(self, dataset):
        super().__init__()
        images = SCALED.evaluate(dataset.images).flatten(1)
        means = torch.stack([images[dataset.labels == label].mean(0) for label in range(10)])
        self.weight = nn.Parameter(0.5 * means)
        self.bias = nn.Parameter(-0.25 * (means**2).sum(1))

    def forward(self, images):
        return F.linear(images.flatten(1), self.weight, self.bias)


class Margined(Activations):
    """Activations so sharp that the margin of the spread loss is met nearly everywhere: its gradient is exactly 0."""

    def forward(self, images):
        logits = self.network(images)
        lead = logits - logits.topk(2, dim=1).values.mean(1, keepdim=True)
        return Capsules(logits.new_zeros(*logits.shape, 4, 4), (1000 * lead).sigmoid())


def test_a_masked_network_is_caught_and_a_plain_one_is_not():
    dataset = load_embedded("test")
    plain = Template(dataset)
    masked = Margined(plain)
    settings = AttackSettings(
        epsilons=(0.0, 0.1, 0.3),
        num_images=30,
        bim_steps=5,
        strong_epsilons=(0.1,),
        num_strong_images=30,
        pgd_steps=10,
        pgd_restarts=1,
        square_queries=100,
        large_epsilon=1.0,
    )
    record = attack_networks({"plain": plain, "masked": masked}, "plain", dataset, SCALED, settings)
    signs = {
        name: {check for check, found in entry["masking"].items() if found["sign_of_masking"]}
        for name, entry in record["networks"].items()
    }
    assert {"zero_gradient", "square_beats_bim", "transfer_beats_white_box"} <= signs["masked"]
    assert signs["plain"] == set()
    assert record["networks"]["masked"]["gradients"]["loss"]["zero_images"] > 0.5


def test_bad_input_of_the_experiment():
    dataset = load_embedded("test")
    with pytest.raises(ValueError, match="source must be the name of one of the networks, cnn; got 'other'"):
        attack_networks({"cnn": Cnn()}, "other", dataset, SCALED, TINY)
    with pytest.raises(ValueError, match="dataset must have at least one image"):
        attack_networks({"cnn": Cnn()}, "cnn", dataset.subset(torch.tensor([], dtype=torch.int64)), SCALED, TINY)
    few = create_model("baseline-cnn", in_channels=1, num_classes=3, image_size=(28, 28), hidden_units=4)
    with pytest.raises(ValueError, match="networks must have the 10 classes of the data set; got 3 in 'few'"):
        attack_networks({"few": few}, "few", dataset, SCALED, TINY)


@pytest.mark.parametrize("normalise", ["scale", "image", "crop"])
def test_input_bounds_hold_every_image(normalise):
    transform = Transform(TransformSettings(normalise=normalise, crop=20).resolve("embedded"), 28)
    images = load_embedded("test").images[:20]
    low, high = input_bounds(transform, images)
    inputs = transform.evaluate(images)
    assert low.shape == high.shape == (20, 1, 1, 1)
    assert ((low <= inputs) & (inputs <= high)).all()
