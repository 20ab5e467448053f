"""Networks are trained by other people's loops: Lightning, Hugging Face, accelerate, skorch."""

import pickle
from typing import Any

import lightning
import numpy as np
import pytest
import torch
import torchmetrics
from torch.utils.data import DataLoader, TensorDataset

from matcaps.capsules import Capsules
from matcaps.losses import spread_loss
from matcaps.models import ClassScores
from tests.support.integrations import needs
from tests.support.networks import make_network

pytestmark = pytest.mark.usefixtures("elsewhere")
RANDOM = torch.Generator().manual_seed(4)
IMAGES, LABELS = torch.rand(24, 1, 20, 20, generator=RANDOM), torch.arange(24) % 3


class Classifier(lightning.LightningModule):
    example_input_array = IMAGES[:2]

    def __init__(self):
        super().__init__()
        self.network = make_network().train()
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro")

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, index):
        return spread_loss(self(batch[0]).activations, batch[1], margin=0.2)

    def validation_step(self, batch, index):
        self.accuracy(self(batch[0]).activations, batch[1])
        self.log("accuracy", self.accuracy)

    def predict_step(self, batch, index):
        return self(batch[0])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=3e-3)


@pytest.mark.filterwarnings("ignore:.*does not have many workers", "ignore:The dirpath has changed")
def test_lightning_trains_measures_predicts_and_resumes(tmp_path):
    loader = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=8)
    options: Any = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "default_root_dir": tmp_path,
        "log_every_n_steps": 1,
    }
    model = Classifier()
    before = model.network.class_capsules.weight.detach().clone()
    trainer = lightning.Trainer(max_epochs=2, **options)
    trainer.fit(model, loader, loader)  # with a summary of layers, for which it runs the example through hooks
    accuracy = float(trainer.callback_metrics["accuracy"])
    assert not torch.equal(model.network.class_capsules.weight, before)
    predictions = trainer.predict(model, loader)
    assert predictions is not None
    assert all(isinstance(batch, Capsules) for batch in predictions)
    found = torch.cat([batch.activations for batch in predictions])  # type: ignore[union-attr]
    assert accuracy == pytest.approx((found.argmax(1) == LABELS).float().mean().item())
    (checkpoint,) = tmp_path.rglob("*.ckpt")
    other = Classifier.load_from_checkpoint(checkpoint, weights_only=True).eval()
    torch.testing.assert_close(other.network(IMAGES).activations, found)
    trainer = lightning.Trainer(max_epochs=3, **{**options, "default_root_dir": tmp_path / "resumed"})
    trainer.fit(Classifier(), loader, loader, ckpt_path=checkpoint, weights_only=True)
    assert trainer.global_step == 9


class ForTrainer(ClassScores):
    def forward(self, images, labels=None):
        scores = super().forward(images)
        loss = {} if labels is None else {"loss": spread_loss(scores, labels, margin=0.2)}
        return {**loss, "logits": scores}


def test_hugging_faces_trainer_trains_evaluates_saves_and_resumes(tmp_path):
    needs("transformers", "accelerate")
    import transformers

    examples: Any = [{"images": image, "labels": label} for image, label in zip(IMAGES, LABELS, strict=True)]
    options: Any = {"per_device_train_batch_size": 8, "report_to": "none", "use_cpu": True, "save_strategy": "epoch"}

    def trainer(epochs: int) -> Any:
        arguments = transformers.TrainingArguments(str(tmp_path), num_train_epochs=epochs, **options)
        model = ForTrainer(make_network())
        return transformers.Trainer(model, arguments, train_dataset=examples, eval_dataset=examples)

    first = trainer(2)
    first.train()
    network = first.model.network.eval()
    expected = network(IMAGES).activations.detach()
    prediction = first.predict(examples)
    np.testing.assert_allclose(prediction.predictions, expected, atol=1e-6)
    assert prediction.metrics["test_loss"] == pytest.approx(spread_loss(expected, LABELS, margin=0.2).item(), rel=1e-4)
    unlabelled = first.predict([{"images": example["images"]} for example in examples])
    np.testing.assert_allclose(unlabelled.predictions, expected, atol=1e-6)
    second = trainer(3)
    second.train(resume_from_checkpoint=True)
    assert second.state.global_step == 9


def test_accelerate_leaves_capsules_capsules():
    needs("accelerate")
    import accelerate
    from accelerate import utils

    accelerator = accelerate.Accelerator(cpu=True)
    network = make_network()
    network, optimizer = accelerator.prepare(network, torch.optim.Adam(network.parameters()))
    classes = network(IMAGES)
    accelerator.backward(spread_loss(classes.activations, LABELS, margin=0.2))
    optimizer.step()
    for made in (
        accelerator.gather_for_metrics(classes),
        utils.send_to_device(classes, "cpu"),
        utils.convert_to_fp32(classes),
        utils.pad_across_processes(classes),
    ):
        assert isinstance(made, Capsules)
        assert torch.equal(made.activations, classes.activations)
    assert isinstance(utils.concatenate([classes, classes]), Capsules)


class Spread(torch.nn.Module):
    def forward(self, scores, targets):
        return spread_loss(scores, targets, margin=0.2)


def scores_of(iterations: int) -> ClassScores:
    return ClassScores(make_network(iterations=iterations))


def test_skorch_searches_a_grid_and_keeps_its_network():
    needs("skorch", "sklearn")
    from sklearn.model_selection import GridSearchCV
    from skorch import NeuralNetClassifier

    net = NeuralNetClassifier(
        scores_of, criterion=Spread, lr=1e-3, max_epochs=1, train_split=None, verbose=0, module__iterations=1
    )
    grid = {"module__iterations": [1, 2]}
    search = GridSearchCV(net, grid, cv=2, scoring="accuracy", error_score="raise")
    search.fit(IMAGES.numpy(), LABELS.numpy())
    assert len(search.cv_results_["params"]) == 2
    best = search.best_estimator_
    network = best.module_.network
    assert network.config.iterations == search.best_params_["module__iterations"]
    expected = network.eval()(IMAGES).activations.detach().numpy()
    np.testing.assert_allclose(search.predict_proba(IMAGES.numpy()), expected, atol=1e-6)
    other = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(other.predict(IMAGES.numpy()), expected.argmax(1))
