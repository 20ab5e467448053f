"""The routings other than EM: against plain loops, by their laws, and in networks."""

import copy
import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import matcaps
from matcaps.capsules import Capsules
from matcaps.layers import ClassCapsules, ConvCapsules
from matcaps.layers.routings import ROUTINGS, VoteRouting, base, make_routing
from matcaps.models.config import ROUTING_NAMES, TABLE_ROUTINGS
from matcaps.routing import Children, RoutingSpec, gather_children

NAMES = tuple(ROUTINGS)
ITERATING = ("dynamic", "vb", "heinsen")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def a_routing(name: str, kinds: int = 6, parents: int = 3, iterations: int = 3) -> VoteRouting:
    torch.manual_seed(1)
    routing = make_routing(name, kinds, parents, iterations=iterations, spec=RoutingSpec(competition="window")).double()
    for number, parameter in enumerate(routing.parameters()):  # those that start at 0, too, should count
        parameter.data = drawn(*parameter.shape, seed=100 + number)
    return routing


def some_children(images: int = 4, children: int = 6, parents: int = 3) -> Children:
    votes = drawn(images, children, parents, 16, seed=2)
    return Children(
        votes,
        drawn(images, children, seed=3).sigmoid(),
        drawn(images, children, 16, seed=4),
        torch.full_like(votes[..., 0], 1 / parents),
        lambda logit: logit.softmax(dim=-1),
    )


def test_configurations_know_each():
    assert ("em", *NAMES) == ROUTING_NAMES


# --- against plain loops: one image, one child, one parent, one component at a time ---


def softmax(values: list[float]) -> list[float]:
    largest = max(values)
    total = sum(math.exp(value - largest) for value in values)
    return [math.exp(value - largest) / total for value in values]


def digamma(x: float) -> float:
    return float(torch.tensor(x, dtype=torch.float64).digamma())


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Plain:
    """One image's routing by loops over numbers; ``run`` returns the last iteration's shares, poses, activations."""

    def __init__(self, routing: VoteRouting, children: Children, image: int):
        self.routing = routing
        self.v = children.votes[image].tolist()
        self.a = children.activations[image].tolist()
        self.u = children.poses[image].tolist()
        self.children, self.parents = range(len(self.v)), range(len(self.v[0]))

    def parameter(self, name: str):
        return dict(self.routing.state_dict())[name].tolist()

    def mean(self, share) -> list[list[float]]:
        means = []
        for j in self.parents:
            mass = sum(share[i][j] * self.a[i] for i in self.children)
            means.append(
                [sum(share[i][j] * self.a[i] * self.v[i][j][h] for i in self.children) / mass for h in range(16)]
            )
        return means

    def equal(self) -> list[list[float]]:
        return [[1 / len(self.parents) for _ in self.parents] for _ in self.children]

    def run(self):
        return getattr(self, self.routing.kind)()

    def average(self, share=None):
        share = share or self.equal()
        poses, weight, bias = self.mean(share), self.parameter("activation.weight"), self.parameter("activation.bias")
        logits = [sum(w * x for w, x in zip(weight[j], poses[j], strict=True)) + bias[j] for j in self.parents]
        return share, poses, [logistic(logit) for logit in logits]

    def random(self):
        return self.average(self.parameter("drawn"))

    def dynamic(self):
        b = [[0.0 for _ in self.parents] for _ in self.children]
        for _ in range(3):
            c = [softmax(row) for row in b]
            v = []
            for j in self.parents:
                s = [sum(c[i][j] * self.a[i] * self.v[i][j][h] for i in self.children) for h in range(16)]
                square = sum(x * x for x in s)
                v.append([square / (1 + square) * x / math.sqrt(square) for x in s])
            for i in self.children:
                for j in self.parents:
                    b[i][j] += sum(self.a[i] * self.v[i][j][h] * v[j][h] for h in range(16))
        return c, v, [math.sqrt(sum(x * x for x in pose)) for pose in v]

    def self(self):
        weight, bias = self.parameter("weight"), self.parameter("bias")
        share = [
            softmax(
                [sum(w * x for w, x in zip(weight[i][j], self.u[i], strict=True)) + bias[i][j] for j in self.parents]
            )
            for i in self.children
        ]
        activation = [sum(share[i][j] * self.a[i] for i in self.children) / sum(self.a) for j in self.parents]
        return share, self.mean(share), activation

    def attention(self):
        prior = self.parameter("prior")
        u = [[[self.a[i] * x for x in self.v[i][j]] for j in self.parents] for i in self.children]
        logit = [[0.0 for _ in self.parents] for _ in self.children]
        for i in self.children:
            for other in self.children:  # every pair
                for j in self.parents:
                    logit[i][j] += sum(x * y for x, y in zip(u[i][j], u[other][j], strict=True)) / 4
        share = [softmax(row) for row in logit]
        poses, activations = [], []
        for j in self.parents:
            s = [sum((share[i][j] + prior[i][j]) * u[i][j][h] for i in self.children) for h in range(16)]
            length = math.sqrt(sum(x * x for x in s))
            poses.append([(1 - math.exp(-length)) * x / length for x in s])
            activations.append(1 - math.exp(-length))
        return share, poses, activations

    def heinsen(self):
        use, ignore, share = self.parameter("beta_use"), self.parameter("beta_ignore"), self.equal()
        for iteration in range(3):
            logits = [0.0 for _ in self.parents]
            for j in self.parents:
                for i in self.children:
                    used = self.a[i] * share[i][j]
                    logits[j] += use[i][j] * used - ignore[i][j] * (self.a[i] - used)
            mean = self.mean(share)
            if iteration == 2:
                break
            rows = []
            for i in self.children:
                row = []
                for j in self.parents:
                    density = 0.0
                    for h in range(16):
                        mass = sum(share[k][j] * self.a[k] for k in self.children)
                        square = sum(
                            share[k][j] * self.a[k] * (self.v[k][j][h] - mean[j][h]) ** 2 for k in self.children
                        )
                        variance = square / mass + 5e-4
                        density -= ((self.v[i][j][h] - mean[j][h]) ** 2 / variance + math.log(variance)) / 2
                    row.append(math.log(logistic(logits[j])) + density)
                rows.append(softmax(row))
            share = rows
        return share, mean, [logistic(logit) for logit in logits]

    def vb(self):
        share = self.equal()
        for iteration in range(3):
            r = [[share[i][j] * self.a[i] for j in self.parents] for i in self.children]
            mass = [sum(r[i][j] for i in self.children) for j in self.parents]
            alpha, kappa, nu = ([prior + m for m in mass] for prior in (1.0, 1.0, 17.0))
            data_mean = self.mean(share)
            m = [[mass[j] * x / kappa[j] for x in data_mean[j]] for j in self.parents]
            inverse = [
                [
                    1
                    + sum(r[i][j] * (self.v[i][j][h] - data_mean[j][h]) ** 2 for i in self.children)
                    + mass[j] / kappa[j] * data_mean[j][h] ** 2
                    for h in range(16)
                ]
                for j in self.parents
            ]
            log_pi = [digamma(alpha[j]) - digamma(sum(alpha)) for j in self.parents]
            log_det = [
                sum(digamma((nu[j] - h) / 2) + math.log(2) - math.log(inverse[j][h]) for h in range(16))
                for j in self.parents
            ]
            if iteration == 2:
                break
            share = [
                softmax(
                    [
                        log_pi[j]
                        + log_det[j] / 2
                        - 16 / kappa[j] / 2
                        - nu[j] * sum((self.v[i][j][h] - m[j][h]) ** 2 / inverse[j][h] for h in range(16)) / 2
                        for j in self.parents
                    ]
                )
                for i in self.children
            ]
        use, reward = self.parameter("beta_use"), self.parameter("beta_activation")
        entropy = [8 * math.log(2 * math.pi * math.e) - log_det[j] / 2 for j in self.parents]
        logit = [reward[j] - (math.exp(log_pi[j]) * entropy[j] + use[j]) for j in self.parents]
        deviation = math.sqrt(
            1 + 1e-5
        )  # batch normalisation in evaluation, its statistics untouched: mean 0, variance 1
        return share, [[x / deviation for x in pose] for pose in m], [logistic(x / deviation) for x in logit]


@pytest.mark.parametrize("name", NAMES)
def test_the_procedure_is_that_of_plain_loops(name):
    routing, children = a_routing(name).eval(), some_children()
    *_, last = routing.iterate(children)
    last = routing.finish(last)
    for image in range(2):
        for found, expected in zip(last, Plain(routing, children, image).run(), strict=True):
            torch.testing.assert_close(found[image], torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-11)


# --- laws ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("competition", ["child", "window"])
def test_a_child_gives_itself_away_once(name, competition):
    """Over all parents that compete for it, a child's shares sum to 1."""
    torch.manual_seed(0)
    layer = ConvCapsules(2, 3, kernel_size=3, stride=1, routing=name, competition=competition)
    state = layer.trace(Capsules(torch.randn(2, 5, 4, 2, 4, 4), torch.rand(2, 5, 4, 2)))[-1]
    if competition == "window":
        torch.testing.assert_close(state.assignment.sum(dim=-1), torch.ones(2, 3, 2, 18))
        return
    given = torch.zeros(2, 5, 4, 2)
    shares = state.assignment.sum(dim=-1).reshape(2, 3, 2, 3, 3, 2)
    for row in range(3):
        for column in range(2):
            given[:, row : row + 3, column : column + 3] += shares[:, row, column]
    torch.testing.assert_close(given, torch.ones_like(given))


@pytest.mark.parametrize("name", NAMES)
def test_children_that_are_off_say_nothing(name):
    """A child with activation 0 changes no parent, whatever its votes are; but where they belong is still asked."""
    routing, children = a_routing(name).eval(), some_children()
    off = torch.cat([children.activations[:, :-1], torch.zeros_like(children.activations[:, -1:])], dim=1)
    other = children.votes.clone()
    other[:, -1] = 7.0
    *_, first = routing.iterate(children._replace(activations=off))
    *_, second = routing.iterate(children._replace(activations=off, votes=other))
    torch.testing.assert_close(first.pose, second.pose)
    torch.testing.assert_close(first.activation, second.activation)


@pytest.mark.parametrize("name", NAMES)
def test_no_data_pass_no_nan(name):
    routing, children = a_routing(name), some_children()
    votes = children.votes.clone().requires_grad_()
    activations = torch.zeros_like(children.activations).requires_grad_()
    *_, last = routing.iterate(children._replace(votes=votes, activations=activations))
    (last.pose.sum() + last.activation.sum()).backward()
    for tensor in (last.pose, last.activation, votes.grad, activations.grad):
        assert tensor is not None
        assert tensor.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_images_are_routed_each_for_itself(name):
    routing, children = a_routing(name).eval(), some_children()
    *_, last = routing.iterate(children)
    turned = {name: getattr(children, name).flip(0) for name in ("votes", "activations", "poses")}
    *_, other = routing.iterate(children._replace(**turned))
    torch.testing.assert_close(other.activation.flip(0), last.activation)
    torch.testing.assert_close(other.pose.flip(0), last.pose)


@pytest.mark.parametrize("name", ITERATING)
def test_iterating_brings_children_to_a_parent_on_which_they_agree(name):
    """All votes for one parent are alike, those for the other are not: its share of the data grows."""
    votes = drawn(1, 20, 2, 16, seed=5)
    votes[:, :, 0] = drawn(16, seed=6) + 0.1 * votes[:, :, 0]
    children = some_children()._replace(
        votes=votes,
        activations=torch.full((1, 20), 0.9, dtype=torch.float64),
        poses=drawn(1, 20, 16, seed=7),
        uniform=torch.full((1, 20, 2), 0.5, dtype=torch.float64),
    )
    routing = make_routing(name, 20, 2, iterations=3, spec=RoutingSpec()).double().eval()
    shares = [step.assignment[..., 0].mean().item() for step in routing.iterate(children)]
    assert shares[0] == pytest.approx(0.5)
    assert shares[0] < shares[1]
    assert shares[2] > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_differences(name):
    routing, children = a_routing(name, iterations=2).eval(), some_children(images=1)

    def route(votes: Tensor, activations: Tensor, poses: Tensor) -> tuple[Tensor, Tensor]:
        *_, last = routing.iterate(children._replace(votes=votes, activations=activations, poses=poses))
        return last.pose, last.activation

    inputs = [x.clone().requires_grad_() for x in (children.votes, children.activations, children.poses)]
    assert torch.autograd.gradcheck(route, inputs)


@pytest.mark.parametrize("name", TABLE_ROUTINGS)
def test_a_rank_gives_the_routing_whose_tables_are_those_products(name):
    torch.manual_seed(2)
    low = make_routing(name, 6, 3, iterations=3, spec=RoutingSpec(competition="window"), rank=2).double()
    for number, parameter in enumerate(low.parameters()):
        parameter.data = drawn(*parameter.shape, seed=200 + number)
    full, children = a_routing(name), some_children()
    for table in dict(full.named_parameters()):
        values = torch.einsum("kr,r...->k...", getattr(low, f"{table}_mixture"), getattr(low, f"{table}_shared"))
        setattr(full, table, torch.nn.Parameter(values.detach()))
    for found, expected in zip(list(low.iterate(children))[-1], list(full.iterate(children))[-1], strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["average", "random"])
@pytest.mark.parametrize("competition", ["child", "window", "class"])
def test_without_votes_a_mean_is_that_of_the_votes(name, competition):
    torch.manual_seed(5)
    layer = ClassCapsules(3, 4, routing=name) if competition == "class" else ConvCapsules(3, 4, 3, 2, routing=name)
    layer = layer.double()
    if isinstance(layer, ConvCapsules):
        layer.competition = competition
    poses = drawn(2, 5, 7, 3, 4, 4, seed=6).requires_grad_()
    activations = drawn(2, 5, 7, 3, seed=7).sigmoid()
    activations[0] = 0  # a parent without data
    capsules = Capsules(poses, activations.requires_grad_())
    coordinates = layer.vote_offset(capsules, None) if isinstance(layer, ClassCapsules) else None
    votes = layer.routing.iterate(gather_children(capsules, layer.weight, layer.routing.spec, coordinates))
    results = [list(votes)[-1], layer.routing.last_step(capsules, layer.weight, coordinates)]
    wanted = [poses, activations, layer.weight, *layer.routing.parameters()]
    gradients = [torch.autograd.grad(step.pose.sin().sum() + step.activation.sum(), wanted) for step in results]
    for found, expected in zip((*results[1][1:], *gradients[1]), (*results[0][1:], *gradients[0]), strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", NAMES)
def test_images_a_few_at_a_time_are_those_of_the_whole_batch(name, monkeypatch):
    """Values and gradients; the batch normalisation of variational Bayes is over the batch all the same."""
    found = []
    for votes in (1, 2**40):
        monkeypatch.setitem(base.VOTES_AT_ONCE, "cpu", votes)
        torch.manual_seed(3)
        layer = ConvCapsules(2, 3, kernel_size=3, stride=1, routing=name).double()
        poses = drawn(3, 5, 4, 2, 4, 4, seed=4).requires_grad_()
        capsules = Capsules(poses, drawn(3, 5, 4, 2, seed=5).sigmoid())
        parents = layer(capsules)
        gradients = torch.autograd.grad(parents.poses.sin().sum() + parents.activations.sum(), [poses, layer.weight])
        buffers = [buffer.clone() for buffer in layer.buffers()]
        with torch.no_grad():
            without = layer(capsules)
        found.append([*parents, *gradients, *buffers, *without])
    for few, whole in zip(*found, strict=True):
        torch.testing.assert_close(few, whole)


@pytest.mark.parametrize("name", NAMES)
def test_votes_of_a_whole_batch_are_never_in_memory_together(name, monkeypatch):
    monkeypatch.setitem(base.VOTES_AT_ONCE, "cpu", 1)
    most = 0

    class Largest(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal most
            result = function(*args, **(kwargs or {}))
            tensors = result if isinstance(result, tuple | list) else (result,)
            most = max([most, *(one.numel() for one in tensors if isinstance(one, Tensor))])
            return result

    layer = ConvCapsules(2, 3, kernel_size=3, stride=1, routing=name)
    capsules = Capsules(torch.randn(8, 6, 6, 2, 4, 4, requires_grad=True), torch.rand(8, 6, 6, 2))
    with Largest():
        parents = layer(capsules)
        (parents.poses.sum() + parents.activations.sum()).backward()
    copies_of_an_image, children = 4 * 4 * 9 * 2 * 16, 8 * 6 * 6 * 2 * 16
    votes_of_an_image = 3 * copies_of_an_image
    assert most <= (max(votes_of_an_image, children) if layer.routing.holds_votes else 8 * copies_of_an_image)


@pytest.mark.filterwarnings("ignore:::torch")
def test_compiled_it_computes_the_same(monkeypatch):
    """With the graphs that Inductor gets; it takes minutes itself."""
    compile_by, compiled = torch.compile, []

    def compile_quickly(function, **options):
        compiled.append(function)
        return compile_by(function, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    monkeypatch.setitem(base.VOTES_AT_ONCE, "cpu", 1)
    layer = ConvCapsules(2, 3, kernel_size=3, stride=1, routing="dynamic").double()
    capsules = Capsules(drawn(3, 5, 4, 2, 4, 4, seed=4), drawn(3, 5, 4, 2, seed=5).sigmoid())
    found = []
    for implementation in ("auto", "compiled"):
        layer.routing.implementation = implementation
        parents = layer(capsules)
        found.append([*parents, *torch.autograd.grad(parents.poses.sin().sum(), layer.weight)])
        with torch.no_grad():
            found[-1] += layer(capsules)
    for plain, other in zip(*found, strict=True):
        torch.testing.assert_close(other, plain)
    assert len(compiled) == 1  # once a layer, whatever the number of blocks
    copied = copy.deepcopy(layer)  # what is compiled is no part of it
    assert torch.equal(pickle.loads(pickle.dumps(copied)).weight, layer.weight)


# --- layers and networks ---


def a_network(name: str, **changes):
    torch.manual_seed(0)
    small = {"stem_channels": 8, "primary_capsules": 2, "conv_capsules1": 3, "conv_capsules2": 3}
    return matcaps.create_model("paper-small", routing=name, **(small | changes))


def bars(count: int) -> tuple[Tensor, Tensor]:
    """Images of a bar, lying (class 0) or standing (class 1)."""
    generator = torch.Generator().manual_seed(1)
    images = 0.1 * torch.randn(count, 1, 32, 32, generator=generator)
    places = torch.randint(4, 22, (count,), generator=generator).tolist()
    for number, (image, place) in enumerate(zip(images, places, strict=True)):
        bar = image.mT if number % 2 else image
        bar[:, place : place + 6] += 1
    return images, torch.arange(count) % 2


@pytest.mark.parametrize("name", NAMES)
def test_class_capsules_share_their_parameters_over_positions(name):
    layer = ClassCapsules(3, 4, routing=name, weight_deviation=1.0).eval()
    output = layer(Capsules(torch.randn(2, 4, 5, 3, 4, 4), torch.rand(2, 4, 5, 3)))
    assert output.poses.shape == (2, 4, 4, 4)
    assert output.activations.shape == (2, 4)
    assert ((output.activations >= 0) & (output.activations <= 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_network_is_calibrated_and_learns(name):
    """Bars in one of two directions, somewhere in the image: forty steps make the loss smaller."""
    network = a_network(name, in_channels=1, num_classes=2)
    images, labels = bars(32)
    assert network.calibrate(images) == ("conv_capsules1", "conv_capsules2", "class_capsules")
    assert network.new_layers() == ()
    optimizer = torch.optim.Adam(matcaps.training.parameter_groups(network, 3e-3, matrix_learning_rate=1e-2))
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = matcaps.losses.spread_loss(network(images).activations, labels, 0.5)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.85 * losses[0]


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_network_computes_the_same(name, tmp_path: Path):
    network = a_network(name).eval()
    network.calibrate(torch.rand(4, 2, 32, 32))
    network.save_pretrained(tmp_path / "network")
    loaded = matcaps.from_pretrained(tmp_path / "network")
    assert loaded.config.routing == name
    images = torch.rand(2, 2, 32, 32)
    for found, expected in zip(loaded(images), network(images), strict=True):
        assert torch.equal(found, expected)
    assert [len(states) for states in loaded.trace(images).values()] == [3 if name in ITERATING else 1] * 3


def test_a_rank_is_saved(tmp_path: Path):
    network = a_network("self", routing_rank=2)
    network.save_pretrained(tmp_path)
    assert matcaps.from_pretrained(tmp_path).config.routing_rank == 2
    assert matcaps.create_model("paper-small", routing="self", routing_rank=3).config.routing_rank == 3


def test_other_iterations():
    assert len(a_network("dynamic", iterations=2).trace(torch.rand(1, 2, 32, 32))["class_capsules"]) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"routing": "agreement"}, "routing must be one of"),
        ({"routing": "vb", "implementation": "native"}, "computes EM alone; got routing 'vb'"),
        ({"implementation": "compiled"}, "implementation 'compiled' is of routings other than EM"),
        ({"routing": "vb", "routing_rank": 2}, "routing_rank must be left out with routing 'vb'; got 2: only self,"),
        ({"routing": "self", "routing_rank": 0}, "routing_rank must be a whole number of at least 1; got 0"),
        ({"routing": "vb", "normalisation": "batch", "activation_rule": "relative"}, "normalisation 'batch' is of EM"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        matcaps.create_model("paper-small", **changes)


def test_a_layer_says_which_routings_there_are():
    with pytest.raises(ValueError, match="routing must be 'em' or one of"):
        ConvCapsules(2, 3, routing="none")


def test_iterations_of_others_are_not_exported(tmp_path: Path):
    with pytest.raises(ValueError, match="trace is of EM routing; got a network with routing 'dynamic'"):
        a_network("dynamic").export("torch", tmp_path / "x.pt2", trace=True)


@pytest.mark.parametrize("name", ["vb", "attention"])
def test_a_network_is_exported(name, tmp_path: Path):
    network = a_network(name).eval()
    network.calibrate(torch.rand(4, 2, 32, 32))
    network.export("torch", tmp_path / "network.pt2")
    images = torch.rand(3, 2, 32, 32)
    found = torch.export.load(tmp_path / "network.pt2").module()(images)
    torch.testing.assert_close(found["activations"], network(images).activations, rtol=1e-4, atol=1e-5)
