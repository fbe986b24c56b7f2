"""A run's model as it was at many steps, kept beside the checkpoints, which are only the last and the best."""

from __future__ import annotations

from safetensors import SafetensorError

from hornbook.atomic import folder_written_aside, remove_leftovers
from hornbook.checkpoint import save_model
from hornbook.errors import PassingError, UserError
from hornbook.run import SNAPSHOTS
from hornbook.training.callbacks import Callback, Moment


def snapshots(every: int = 50, dtype: str = "float16") -> Callback:
    """A callback that saves the model after its first step and every so many, as a model folder: RUN/snapshots/000050.

    For pictures of what changes: two bytes a number, nothing to resume from. UserError for a step below 1.
    """
    if every < 1:
        raise UserError(f"snapshots are taken every 1 step or more, not every {every}")

    def keep(moment: Moment) -> None:
        if moment.event != "step" or (moment.step != 1 and moment.step % every):
            return
        folder = moment.folder / SNAPSHOTS / f"{moment.step:06d}"
        if folder.exists():  # the run was resumed from before it
            return
        remove_leftovers(folder.parent)
        try:
            with folder_written_aside(folder) as aside:
                save_model(aside, moment.model, getattr(moment.model, "tokenizer", None), dtype)
        except (OSError, SafetensorError) as error:
            raise PassingError(f"could not write the snapshot {folder} ({error})") from error

    return keep
