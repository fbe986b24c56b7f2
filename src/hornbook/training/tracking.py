"""Trackers: callbacks that hand what a run measures to TensorBoard, Weights & Biases or Trackio.

Their packages are loaded only when asked for. A tracker that fails while the run is on (a full disk, no network) says
so in one line and is silent from then on: no run ends because of one.
"""

from __future__ import annotations

import contextlib
import html
import importlib.util
import io
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from hornbook.errors import UserError, missing_extra, unknown
from hornbook.progress import say
from hornbook.training.callbacks import Callback, Moment

Figures = dict[str, float]
Texts = dict[str, str]

PROJECT = __name__.partition(".")[0]
FLUSH = 5.0
"""Seconds that a figure may wait before it is on the disk."""


class Sink(Protocol):
    """Where figures go. Made with the run's folder, its settings and the first step that it will be told of."""

    where: str
    """What to tell the user: where it lies, and how to see it."""

    def send(self, step: int, figures: Figures, texts: Texts) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in RUN/tensorboard, written by this thread: an error comes up here, and none is left behind."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], first: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter
        from torch.utils.tensorboard import summary

        self.event, self.summary, self.flushed = Event, summary, time.monotonic()
        place = folder / "tensorboard"
        place.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names, so a later one needs a later name.
        name = f"events.out.tfevents.{time.time_ns() // 1000:016d}.{socket.gethostname()}.{os.getpid()}"
        self.file = open(place / name, "xb")  # noqa: SIM115 (closed by `close`)
        self.records = RecordWriter(self.file)
        self.write(file_version="brain.Event:2")
        started = SessionLog(status=SessionLog.START)  # TensorBoard drops what it has of `first` and of later steps
        self.write(step=first, session_log=started)
        if first <= 1:
            self.send(0, {}, {"settings": "\n".join(f"{name}: {value}" for name, value in settings.items())})
        self.flush()
        self.where = f"{place}; to look: tensorboard --logdir {place}"

    def write(self, **fields: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **fields).SerializeToString())

    def send(self, step: int, figures: Figures, texts: Texts) -> None:
        for name, value in figures.items():
            self.write(step=step, summary=self.summary.scalar(name, value))
        for name, text in texts.items():
            self.write(step=step, summary=self.summary.text(name, verbatim(text)))
        if time.monotonic() - self.flushed > FLUSH:
            self.flush()

    def flush(self) -> None:
        self.file.flush()
        self.flushed = time.monotonic()

    def close(self) -> None:
        self.file.close()


class WeightsAndBiases:
    """wandb: offline in RUN/wandb, unless WANDB_API_KEY or WANDB_MODE says otherwise.

    It cannot take figures back: those of steps that a resumed run does again stay as they were first."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], first: int) -> None:
        mode: Any = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        if mode == "offline":  # or every run would report to the makers of wandb
            os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        self.html = wandb.Html
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=identity(folder / "wandb" / "id"),
            dir=folder,
            resume="allow",
            reinit="finish_previous",
            config=dict(settings),
            settings=wandb.Settings(mode=mode, console="off", silent=True, disable_code=True, disable_git=True),
        )
        upload = f"{folder / 'wandb'}; to upload it: wandb sync {folder / 'wandb' / 'offline-run-*'}"
        self.where = upload if mode == "offline" else (self.run.url or mode)

    def send(self, step: int, figures: Figures, texts: Texts) -> None:
        shown = {name: self.html(f"<pre>{html.escape(text)}</pre>") for name, text in texts.items()}
        self.run.log(figures | shown, step=step)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """Trackio's own folder, where `trackio show` finds all runs; nothing leaves the machine unless its own variables
    (TRACKIO_SPACE_ID, TRACKIO_SERVER_URL) say so. It cannot take figures back either."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], first: int) -> None:
        with quiet():
            import trackio

            self.markdown, self.finish = trackio.Markdown, trackio.finish
            self.run = trackio.init(
                project=PROJECT,
                name=folder.name,
                config=dict(settings),
                resume="allow" if first > 1 else "never",
                embed=False,
                auto_log_cpu=False,
            )
        self.where = f"run {self.run.name} in {trackio.TRACKIO_DIR}; to look: trackio show --project {PROJECT}"

    def send(self, step: int, figures: Figures, texts: Texts) -> None:
        self.run.log(figures | {name: self.markdown(verbatim(text)) for name, text in texts.items()}, step=step)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        with quiet():
            self.finish()


SINKS: dict[str, Callable[[Path, Mapping[str, Any], int], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}
"""By the name of the package that each needs."""


def tracker(name: str, folder: str | Path, settings: Mapping[str, Any]) -> Callback:
    """The callback of one of SINKS for the run in `folder`; nothing is written before its first moment.

    UserError as `require_tracker`.
    """
    require_tracker(name)
    return Tracker(name, Path(folder), settings)


def require_tracker(name: str) -> None:
    """UserError for a name that is none, or whose package is missing."""
    if name not in SINKS:
        raise unknown("tracker", name, SINKS)
    if importlib.util.find_spec(name) is None:
        purpose = f"--track {name}"
        if name == "tensorboard":
            raise missing_extra(name, "track", purpose)
        raise UserError(f"{purpose} needs the package '{name}': {sys.executable} -m pip install {name}")


class Tracker:
    """Follows a run into one sink, until its end or until the sink fails."""

    def __init__(self, name: str, folder: Path, settings: Mapping[str, Any]) -> None:
        self.name, self.folder, self.settings = name, folder, settings
        self.sink: Sink | None = None
        self.over = False
        self.place: tuple[float, int] | None = None
        """Seconds and tokens at the step before; None where there was something else in between."""

    def __call__(self, moment: Moment) -> None:
        if self.over:
            return
        try:
            self.follow(moment)
        except Exception as error:
            self.over = True
            said = (str(error) or type(error).__name__).splitlines()[0]
            say(f"--track {self.name} failed at step {moment.step} ({said}): the run goes on without it")

    def follow(self, moment: Moment) -> None:
        if self.sink is None:
            first = moment.step if moment.event == "step" else moment.step + 1
            self.sink = SINKS[self.name](self.folder, self.settings, first)
            say(f"{self.name}: {self.sink.where}")
        figures, texts = sorted_out(moment)
        figures |= self.speed(moment)
        if figures or texts:
            self.sink.send(moment.step, figures, texts)
        if moment.event == "end":
            self.sink.close()
            self.over = True
        elif moment.event != "step":
            self.sink.flush()

    def speed(self, moment: Moment) -> Figures:
        """Tokens a second since the step before, where nothing but that step was done."""
        before, now = self.place, moment.values
        known = moment.event == "step" and "seconds" in now and "tokens" in now
        self.place = (now["seconds"], now["tokens"]) if known else None
        if not known or before is None or now["seconds"] <= before[0]:
            return {}
        return {"train/tokens_per_second": (now["tokens"] - before[1]) / (now["seconds"] - before[0])}


def sorted_out(moment: Moment) -> tuple[Figures, Texts]:
    """A moment's figures and texts under the names that trackers group by: train/, validation/, final/."""
    values = moment.values
    if moment.event == "step":
        if "skipped" in values:
            return {}, {"skipped": f"batch {values.get('batch')}: {values['skipped']}"}
        return {f"train/{k}": v for k, v in numbers(values).items() if k not in ("step", "seconds", "tokens")}, {}
    if moment.event == "evaluation":
        figures = {f"validation/{k.removeprefix('validation_')}": v for k, v in numbers(values).items()}
        return {k: v for k, v in figures.items() if k not in ("validation/step", "validation/seconds")}, sample(values)
    if moment.event == "end":
        figures = numbers(values) | numbers(values.get("validation") or {})
        return {f"final/{k}": v for k, v in figures.items()}, {}
    return {}, {}


def numbers(values: Mapping[str, Any]) -> Figures:
    return {k: v for k, v in values.items() if isinstance(v, int | float) and not isinstance(v, bool)}


def sample(values: Mapping[str, Any]) -> Texts:
    return {"sample": values["sample"]} if values.get("sample") else {}


def verbatim(text: str) -> str:
    """`text` as a block of code in Markdown, where nothing in it means anything."""
    return "\n".join(f"    {line}" for line in text.splitlines())


def identity(path: Path) -> str:
    """What wandb knows this run by, kept in its folder so that a resumed run is the same one."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(secrets.token_hex(4))
    return path.read_text().strip()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What is printed inside is not: Trackio greets, and standard output is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
