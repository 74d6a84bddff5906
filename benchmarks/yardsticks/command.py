"""The command line that the suite and the check of the ports share."""

import argparse
import os

from benchmarks.yardsticks.database import MODELS


def read_arguments(doc: str, option: str, default: int, words: str) -> tuple[str, list[str], int]:
    """Folder, names of posteriors, and one number."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("BBVI_YARDSTICKS"), metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument(option, dest="number", metavar="N", type=int, default=default, help=words)
    given = parser.parse_args()
    if given.folder is None:
        parser.error("give the folder that holds bugs/ and gym/, or set BBVI_YARDSTICKS to it")
    if unknown := set(given.names) - set(MODELS):
        parser.error(f"there is no {', '.join(sorted(unknown))}. There are {', '.join(MODELS)}")
    return given.folder, given.names or list(MODELS), given.number
