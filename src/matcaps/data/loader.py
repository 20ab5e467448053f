"""Batches whose order and augmentation depend only on seed and epoch."""

import signal
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from matcaps.data.balance import Balance
from matcaps.data.dataset import ImageDataset
from matcaps.data.devices import fits, send
from matcaps.data.random import permutation
from matcaps.data.transforms import Transform

_REPEAT_BITS = 40  # indices are far below


class Batch(NamedTuple):
    """A batch of images.

    Attributes:
        images: ``[B, C, h, w]``, float32; in evaluation with several crops ``[B, crops, C, h, w]``.
        labels: ``[B]``, int64.
        indices: ``[B]``, int64; each image's position in its official part (:attr:`ImageDataset.indices`).

    All are on the loader's device.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


class BatchKey(NamedTuple):
    """A sampler's request to a dataset, for a whole batch.

    Attributes:
        epoch: the epoch, from 0.
        positions: ``[B]``, int64 positions in the dataset.
        repeats: ``[B]``, int64, how often each has come before where images may come several times; varied anew then.
    """

    epoch: int
    positions: np.ndarray
    repeats: np.ndarray | None = None


class EpochSampler(Sampler[BatchKey]):
    """The batches of an epoch, for one of several processes.

    In training the order is drawn anew in every epoch from the seed and the epoch. Step k of all processes together
    holds exactly the images that step k of a single process with a batch ``world_size`` times as large would hold;
    every process has the same number of steps, and no image comes twice in an epoch. In evaluation the order is the
    dataset's, and each image comes exactly once over all processes, whose numbers of images may differ by one.

    The epoch is set from outside, as with torch's DistributedSampler.

    Args:
        num_images: images in the dataset.
        batch_size: images in a batch of one process.
        train: whether to shuffle.
        seed: the run's seed; the same in every process.
        rank: this process, from 0.
        world_size: number of processes.
        drop_last: in training, leave out a last step that is not full. Otherwise the last step is divided evenly,
            and its images are left out only if they are fewer than the processes.
        balance: in training, draws equally many images of every class, some of them several times in an epoch; None:
            each image once.

    Raises:
        ValueError: a number is out of range, or a process would have nothing to do.
    """

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        *,
        train: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
        balance: Balance | None = None,
    ) -> None:
        if balance is not None and train:
            num_images = balance.num_images
        if batch_size < 1:
            raise ValueError(f"batch_size must be 1 or more; got {batch_size}")
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be from 0 to below world_size; got rank {rank} of {world_size}")
        if num_images < world_size or (train and drop_last and num_images < batch_size * world_size):
            needed = batch_size * world_size if train and drop_last else world_size
            raise ValueError(
                f"{needed} images are needed for a step of every process; got {num_images}: "
                "use a smaller batch, fewer processes, or drop_last=False"
            )
        self.num_images = num_images
        self.batch_size = batch_size
        self.is_train = train
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.drop_last = drop_last
        self.balance = balance
        self.epoch = 0
        self._resume: tuple[int, int] | None = None

    @property
    def sampler(self) -> "EpochSampler":
        """This sampler itself, because Lightning calls ``set_epoch`` on a batch sampler's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration, from 0."""
        self.epoch = epoch

    def resume_at(self, epoch: int, batch: int) -> None:
        """Start epoch ``epoch``, once, with its batch number ``batch`` (from 0), as if the ones before had been given.

        Call it before training goes on; ``len`` stays the number of batches of a whole epoch.
        """
        self.set_epoch(epoch)
        self._resume = (epoch, batch)

    def __len__(self) -> int:
        """Batches in a whole epoch of this process."""
        if not self.is_train:
            own = len(range(self.rank, self.num_images, self.world_size))
            return -(-own // self.batch_size)
        full, left = divmod(self.num_images, self.batch_size * self.world_size)
        return full + (not self.drop_last and left >= self.world_size)

    def step_size(self, batch: int) -> int:
        """Images of all processes together in the training step number ``batch`` of an epoch, from 0."""
        step = self.batch_size * self.world_size
        return min(step, self.num_images - batch * step)

    def __iter__(self) -> Iterator[BatchKey]:
        # Not a generator itself: the epoch is fixed now, not when a worker asks for the first batch.
        start = self._resume[1] if self._resume is not None and self._resume[0] == self.epoch else 0
        return self._batches(self.epoch, start)

    def _batches(self, epoch: int, start: int) -> Iterator[BatchKey]:
        # Only now: torch's loader with workers makes two iterators, and asks the second alone for batches.
        if self._resume is not None and self._resume[0] == epoch:
            self._resume = None
        if self.is_train:
            order, repeats = permutation(self.seed, epoch, self.num_images), None
            if self.balance is not None:
                drawn, repeats = self.balance.draw(self.seed, epoch)
                order, repeats = drawn[order], repeats[order]
            step = self.batch_size * self.world_size
            for batch in range(start, len(self)):
                own = slice(batch * step + self.rank, (batch + 1) * step, self.world_size)
                yield BatchKey(epoch, order[own], None if repeats is None else repeats[own])
        else:
            own = np.arange(self.rank, self.num_images, self.world_size)
            for batch in range(start, len(self)):
                yield BatchKey(epoch, own[batch * self.batch_size : (batch + 1) * self.batch_size])


class PreparedImages(Dataset[Batch]):
    """A dataset that prepares a whole batch in one go, on the host or on a GPU.

    For a GPU the stored images are copied at the first batch and stay there, if they fit
    (:data:`matcaps.data.devices.RESIDENT_SHARE` of its free memory); otherwise each batch's stored images are copied to
    it through pinned memory. Either way a batch is cut, varied and normalised there, with the random numbers that the
    CPU would draw, and the CPU does not wait.

    Args:
        dataset: the images, on the CPU.
        transform: how to prepare them.
        train: whether to augment.
        seed: the run's seed.
        device: where batches are prepared; None: on the CPU.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        transform: Transform,
        *,
        train: bool,
        seed: int,
        device: torch.device | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.is_train = train
        self.seed = seed
        self.device = torch.device("cpu") if device is None else device
        self._resident: tuple[Tensor, Tensor, Tensor] | None = None
        self._is_placed = False

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: BatchKey) -> Batch:
        return self.__getitems__(key)

    def __getitems__(self, key: BatchKey) -> Batch:
        """The batch that a sampler asks for; torch's DataLoader calls this."""
        images, labels, indices = self._stored(torch.from_numpy(key.positions))
        if self.is_train:
            varied = self.dataset.indices[torch.from_numpy(key.positions)].numpy()
            if key.repeats is not None:  # a repeated image in an epoch is varied differently
                varied = varied + (key.repeats << _REPEAT_BITS)
            prepared = self.transform.train(images, varied, seed=self.seed, epoch=key.epoch)
        elif self.transform.num_test_crops > 1:
            prepared = self.transform.evaluate_crops(images)
        else:
            prepared = self.transform.evaluate(images)
        return Batch(prepared, labels, indices)

    def unvaried(self, positions: Tensor) -> Tensor:
        """Images without augmentation, cropped at the centre: ``[B, C, h, w]``, float32, on the device.

        Args:
            positions: ``[B]``, int64, in the dataset, on the CPU.
        """
        return self.transform.evaluate(self._stored(positions)[0])

    def _stored(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Stored images, labels and indices at some positions, on the device."""
        dataset, device = self.dataset, self.device
        stored = dataset.images, dataset.labels, dataset.indices
        if device.type == "cpu":
            return stored[0][positions], stored[1][positions], stored[2][positions]
        if not self._is_placed:
            self._is_placed = True
            if fits(sum(values.nbytes for values in stored), device):
                self._resident = stored[0].to(device), stored[1].to(device), stored[2].to(device)
        if self._resident is not None:
            places = send(positions, device)
            images, labels, indices = self._resident
            return images[places], labels[places], indices[places]
        images, labels, indices = (send(values[positions], device) for values in stored)
        return images, labels, indices


def _unchanged(batch: Batch) -> Batch:
    return batch


def make_loader(
    dataset: ImageDataset,
    transform: Transform,
    *,
    train: bool,
    batch_size: int,
    seed: int = 0,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
    balanced: bool = False,
    device: torch.device | None = None,
) -> DataLoader[Batch]:
    """A loader of :class:`Batch` that draws nothing from torch's global random numbers.

    Its ``batch_sampler`` is an :class:`EpochSampler`. With Lightning's Trainer use
    ``use_distributed_sampler=False``, and give ``rank`` and ``world_size`` here.

    Args:
        dataset: the images.
        transform: made for images of this size.
        train: whether to shuffle and augment.
        batch_size: images in a batch of one process.
        seed: the run's seed.
        num_workers: further processes that prepare batches; they change no number. A GPU prepares its batches itself,
            and there are none.
        rank: this process, from 0.
        world_size: number of processes.
        drop_last: in training, leave out a last step that is not full.
        balanced: in training, whether every class comes equally often; see :class:`matcaps.data.balance.Balance`.
        device: where batches are prepared, and stay; None: on the CPU. See :class:`PreparedImages`.

    Raises:
        ValueError: the transform is for another size, or as :class:`EpochSampler`.
    """
    if dataset.image_size != transform.image_size:
        raise ValueError(
            f"transform must be made for images of {dataset.image_size} pixels, the dataset's; "
            f"got one for {transform.image_size}"
        )
    sampler = EpochSampler(
        len(dataset),
        batch_size,
        train=train,
        seed=seed,
        rank=rank,
        world_size=world_size,
        drop_last=drop_last,
        balance=Balance(dataset.labels) if balanced and train else None,
    )
    prepared = PreparedImages(dataset, transform, train=train, seed=seed, device=device)
    is_on_host = prepared.device.type == "cpu"
    if not is_on_host:
        num_workers = 0  # another process could not share the images on the device
    options: dict[str, Any] = {"persistent_workers": True} if num_workers else {}
    return DataLoader(
        prepared,
        # torch's annotations know only of lists of indices; a key for a whole batch serves as well.
        batch_sampler=cast(Any, sampler),
        collate_fn=cast(Any, _unchanged),
        num_workers=num_workers,
        pin_memory=is_on_host and torch.cuda.is_available(),
        # A loader seeds its workers at each epoch; from a generator of its own, so that a run with more or fewer
        # loaders keeps its numbers.
        generator=torch.Generator().manual_seed(seed & 0x7FFF_FFFF_FFFF_FFFF),
        worker_init_fn=_ignore_signals,
        **options,
    )


def _ignore_signals(worker: int) -> None:
    """Ignore signals that Slurm or Ctrl+C send to all processes: a training needs its workers to finish its step.

    A worker ends when its parent has no more work for it, or has ended.
    """
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
