"""The book's pictures, each made by the package: python docs/book/pictures.py [NAME ...]"""

from __future__ import annotations

import sys

import matplotlib.pyplot as plt
from drawing import counting, networks, work
from drawing.common import FOLDER

PICTURES = counting.PICTURES | networks.PICTURES | work.PICTURES


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        figure = PICTURES[name]()
        figure.savefig(FOLDER / f"{name}.svg", bbox_inches="tight", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
