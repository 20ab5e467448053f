"""Visitors of the demo: each asks as the page in a browser does, and leaves after some minutes for the next one."""

import asyncio
import json
import os
import random
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from matcaps import create_model
from tests.support.load.watching import Sample, growth, sample, table
from tests.support.networks import save_digits

LONGEST_ANSWER = 1.0
"""Seconds within which 95 of 100 answers must come on a machine that does nothing else."""
PAUSE = (5.0, 15.0)
"""Seconds in which a visitor looks at an answer before the next action, drawn evenly; most actions ask three times."""
_STAY = 90.0
"""Seconds until a visitor leaves, and another one comes."""
_MOST = 0.05
"""By how much memory may grow: it goes up and down by as much with the number of visitors who ask at the same time."""


@dataclass
class Measured:
    """What the visitors met.

    Attributes:
        seconds: of each answer, by what was asked.
        errors: what went wrong.
        visits: pages that were opened.
    """

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: list[str] = field(default_factory=list)
    visits: int = 0


class Visitor:
    """One page in a browser.

    Args:
        client: asks the server.
        measured: takes what it meets.
        seed: of what it does.
    """

    def __init__(self, client: httpx.AsyncClient, measured: Measured, seed: int):
        self._client, self._measured = client, measured
        self._random = random.Random(seed)
        self._session = f"visitor{seed}"
        self._asked: dict[tuple[str, str], dict[str, Any]] = {}
        self._after: dict[int, int] = {}  # what is asked when something has been answered
        self._pose, self._epsilon = "", 0.0  # as the page begins

    async def stay(self, until: float) -> None:
        """Open the page, and do this and that until a moment."""
        await self._open()
        heart = asyncio.create_task(self._beat())
        try:
            actions: list[Callable[[], Awaitable[None]]] = [
                self._choose, self._draw, self._step, self._turn, self._fool, self._more, self._upload,
            ]  # fmt: skip
            await self._choose()
            while time.monotonic() < until:
                await asyncio.sleep(self._random.uniform(*PAUSE))
                (action,) = self._random.choices(actions, weights=(4, 3, 4, 4, 4, 1, 1))
                await action()
        finally:
            heart.cancel()

    async def _open(self) -> None:
        began = time.monotonic()
        (await self._client.get("/")).raise_for_status()
        config = (await self._client.get("/config")).raise_for_status().json()
        self._measured.seconds["open the page"].append(time.monotonic() - began)
        self._measured.visits += 1
        names = {one["id"]: one["props"].get("elem_id") or one["props"].get("value") for one in config["components"]}
        for one in config["dependencies"]:
            if one.get("trigger_after") is not None:
                self._after[one["trigger_after"]] = one["id"]
            for target, event in one["targets"]:
                self._asked[str(names.get(target)), event] = one

    async def _beat(self) -> None:
        """The connection by which the server knows that the page is still open."""
        address = f"/gradio_api/heartbeat/{self._session}"
        async with self._client.stream("GET", address, timeout=None) as answer:
            async for _ in answer.aiter_raw():
                pass

    async def _ask(self, what: str, target: str, event: str, *values: Any, detail: Any = None) -> list[Any]:
        asked = self._asked[target, event]
        answers = await self._post(what, asked["id"], values, detail)
        if asked["id"] in self._after:
            await self._post("the attack after it", self._after[asked["id"]], (None, self._epsilon), None)
        return answers

    async def _post(self, what: str, function: int, values: tuple[Any, ...], detail: Any) -> list[Any]:
        content = {"data": [*values], "event_data": detail, "fn_index": function, "session_hash": self._session}
        began = time.monotonic()
        answer = await self._client.post("/gradio_api/run/predict", json=content)
        self._measured.seconds[what].append(time.monotonic() - began)
        if answer.status_code != 200:
            self._measured.errors.append(f"{what}: {answer.status_code} {answer.text[:200]}")
            return []
        return answer.json()["data"]

    async def _choose(self) -> None:
        index = self._random.randrange(20)
        answers = await self._ask("choose an image", "examples", "select", 3, detail={"index": index})
        self._pose = answers[4] if answers else self._pose

    async def _draw(self) -> None:
        """A stroke of a second, of which the page sends what is there so far."""
        points = [[self._random.random(), self._random.random()] for _ in range(24)]
        for count in (8, 16, 24):
            answers = await self._ask("draw", "pad", "input", json.dumps([points[:count]]), 3)
            self._pose = answers[3] if answers else self._pose
            await asyncio.sleep(0.12)

    async def _step(self) -> None:
        for number in (1, 2, 3):
            await self._ask("step through routing", "iteration", "input", None, number)

    async def _turn(self) -> None:
        if not self._pose:
            return
        pose = json.loads(self._pose)
        for _ in range(3):
            place = self._random.randrange(16)
            pose["values"][place] = self._random.uniform(pose["low"][place], pose["high"][place])
            await self._ask("change the pose", "pose", "input", None, json.dumps(pose))

    async def _fool(self) -> None:
        for _ in range(3):
            self._epsilon = round(self._random.uniform(0, 0.3), 2)
            await self._ask("change ε", "epsilon", "input", None, self._epsilon)

    async def _more(self) -> None:
        await self._ask("other images", "Other images", "click", None)

    async def _upload(self) -> None:
        content = BytesIO()
        Image.effect_noise((300, 200), 80).save(content, "PNG")
        files = {"files": ("photo.png", content.getvalue(), "image/png")}
        answer = await self._client.post("/gradio_api/upload", files=files)
        if answer.status_code != 200:
            self._measured.errors.append(f"upload: {answer.status_code} {answer.text[:200]}")
            return
        file = {"path": answer.json()[0], "orig_name": "photo.png", "meta": {"_type": "gradio.FileData"}}
        await self._ask("upload", "upload", "upload", file, False, 3)


def visit_for(minutes: float, sessions: int, folder: Path) -> list[str]:
    """Serve a demo, have so many visitors at a time; print what was measured, and return what was wrong."""
    torch.manual_seed(0)
    network = create_model("annealed-tutorial")
    network.calibrate(torch.rand(8, 1, 28, 28))
    digits = save_digits(folder / "digits", network=network)
    command = [sys.executable, "-m", "matcaps.cli", "demo", str(digits), "--no_browser"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "300", "GRADIO_TEMP_DIR": str(folder / "uploads")}
    with (folder / "demo.txt").open("w") as errors:
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, (folder / "demo.txt").read_text()
            measured, samples, busy = asyncio.run(_visit(found[0], server.pid, 60 * minutes, sessions))
        finally:
            server.terminate()
            server.wait(60)
    return _judge(measured, samples, busy, sessions, (folder / "demo.txt").read_text())


async def _visit(
    url: str, server: int, seconds: float, sessions: int
) -> tuple[Measured, list[Sample], tuple[float, float]]:
    measured, began = Measured(), time.monotonic()
    samples: list[Sample] = []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=4 * sessions)

    async def visitors(place: int) -> None:
        await asyncio.sleep(place / sessions * min(10, seconds / 10))  # they come one after the other
        count = 0
        while time.monotonic() < began + seconds:
            until = min(began + seconds, time.monotonic() + _STAY * random.uniform(0.5, 1.5))
            try:
                await Visitor(client, measured, place + sessions * count).stay(until)
            except (httpx.HTTPError, LookupError, ValueError) as error:
                measured.errors.append(repr(error))
                await asyncio.sleep(1)
            count += 1

    async def watch() -> None:
        while time.monotonic() < began + seconds:
            samples.append(sample(server, began))
            await asyncio.sleep(min(2.0, seconds / 50))

    before = _processor_seconds(server)
    async with httpx.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
        await asyncio.gather(watch(), *(visitors(place) for place in range(sessions)))
    own, everything = (now - then for now, then in zip(_processor_seconds(server), before, strict=True))
    return measured, samples, (own / seconds, everything / seconds)


def _processor_seconds(process: int) -> tuple[float, float]:
    """Processor time of a process, and of the whole machine."""
    tick = os.sysconf("SC_CLK_TCK")
    own = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    everything = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    idle = sum(map(int, everything[3:5]))
    return (int(own[11]) + int(own[12])) / tick, (sum(map(int, everything[:8])) - idle) / tick


def _judge(
    measured: Measured, samples: list[Sample], busy: tuple[float, float], sessions: int, complaints: str
) -> list[str]:
    print(*table(samples), sep="\n")
    print(f"  {'asked':22} {'answers':>8} {'median':>8} {'95 %':>8} {'99 %':>8} {'longest':>8}  seconds")
    answers = {name: one for name, one in measured.seconds.items() if name != "open the page"}
    rows = dict(measured.seconds) | {"all answers": [second for one in answers.values() for second in one]}
    for name, seconds in rows.items():
        ranked = sorted(seconds)
        shown = (statistics.median(ranked), _at(ranked, 0.95), _at(ranked, 0.99), ranked[-1])
        print(f"  {name:22} {len(ranked):8,} " + " ".join(f"{one:8.3f}" for one in shown))
    memory = growth([one.memory for one in samples])
    print(f"{sessions} at a time, {measured.visits} visits; memory {memory:+.2%}")
    print(f"the server used {busy[0]:.2f} of a core, all programs together {busy[1]:.2f} of {os.cpu_count()}")
    wrong = [f"{len(measured.errors)} errors: {measured.errors[:3]}"] if measured.errors else []
    if "Traceback" in complaints:
        wrong.append(f"the server complained: {complaints[-2000:]}")
    if memory > _MOST:
        wrong.append(f"memory grew by {memory:.2%}")
    if (late := _at(sorted(rows["all answers"]), 0.95)) > LONGEST_ANSWER:
        wrong.append(f"five of a hundred answers took longer than {late:.2f} s")
    return wrong


def _at(ranked: list[float], share: float) -> float:
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
