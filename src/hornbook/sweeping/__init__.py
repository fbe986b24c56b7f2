"""`hornbook sweep`: many short runs of one model, over any settings of train: which are best?"""

from hornbook.sweeping.trials import folder_of
from hornbook.sweeping.workers import sweep

__all__ = ["folder_of", "sweep"]
