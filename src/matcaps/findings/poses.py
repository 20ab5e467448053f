"""What the components of the pose stand for, with a decoder that is there or is trained first."""

from dataclasses import replace

import torch

from matcaps.data.splits import limit_images
from matcaps.findings.journal import Journal
from matcaps.findings.subject import Subject
from matcaps.inspection import pose_traversal
from matcaps.models import PoseDecoder
from matcaps.models.modes import device_of
from matcaps.models.pretrained import save_weights
from matcaps.training.decoding import class_poses, explained_variance, train_decoder
from matcaps.viz.inspection import draw_poses


def look_at_poses(subject: Subject, journal: Journal) -> None:
    """The traversal of the pose, with a decoder that is there or is trained first."""
    decoder = _train_decoder(subject, journal) if subject.settings.train_decoder else subject.decoder
    if decoder is None:
        journal.say("poses", f"left out, for want of a decoder ({subject.decoder_path}): add --train_decoder")
        return
    if subject.measured is None:
        journal.say("poses", "left out, for want of images that show the range of the pose: set --num_images")
        return
    labels, transform = subject.measured.labels, subject.saved.transform
    every_class = class_poses(subject.network, subject.measured, transform, subject.settings.batch_size)
    share = explained_variance(decoder, every_class, subject.measured, transform)
    journal.say("decoder", f"explains {100 * share:.0f} % of the variance of {len(labels)} images about their mean")
    poses = every_class.flatten(2)[torch.arange(len(labels)), labels]
    label = subject.predicted
    if not bool((labels == label).any()):
        journal.say("poses", f"left out: none of the images shows {subject.classes[label]}; raise --num_images")
        return
    decoder.to(device_of(subject.network))
    found = pose_traversal(subject.network, decoder, subject.image, label, poses[labels == label])
    name = subject.classes[label]
    title = (
        f"{subject.title}\nreconstruction as each component of {name}'s pose goes through its range on images of "
        f"{name} (▾: its value here; Δ: root mean square change of a pixel)"
    )
    journal.write("poses", draw_poses(found, title), found)


def _train_decoder(subject: Subject, journal: Journal) -> PoseDecoder:
    assert subject.bundle is not None
    trained = train_decoder(
        subject.network,
        replace(subject.bundle, test=limit_images(subject.bundle.test, 1000, 0)),
        epochs=subject.settings.decoder_epochs,
        report=journal.report,
    )
    save_weights(trained.decoder, subject.decoder_path)
    journal.say("decoder trained", f"in {trained.seconds:.0f} s, saved as {subject.decoder_path}")
    return trained.decoder
