"""A progress bar as a callback: it lives between compiled blocks and never changes what is compiled."""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from bbvi.optimise import Progress

DELAY = 1.0  # seconds before a bar appears: short fits show none


class ProgressBar:
    """Method, steps, ELBO with its standard error, speed and time left, in a terminal or a notebook."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, progress: Progress) -> None:
        if self._bar is None:
            if progress.seconds < DELAY:
                return
            from tqdm.auto import tqdm

            self._bar = tqdm(total=progress.num_steps, unit="step", dynamic_ncols=True)
        is_new = progress.step < self._bar.n or progress.num_steps != self._bar.total  # after the start, or a stage
        if is_new:
            self._bar.reset(progress.num_steps)
        self._bar.set_description(f"bbvi {progress.method}", refresh=False)
        error = f" ± {progress.standard_error:.2f}" if progress.standard_error >= 0 else ""
        self._bar.set_postfix_str(f"ELBO {progress.elbo:.2f}{error}", refresh=False)
        self._bar.update(progress.step - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.total = self._bar.n  # a fit that has converged takes no more
            self._bar.close()


@contextmanager
def showing(progress: bool | None) -> Generator[list[ProgressBar]]:
    """A bar in a list, or an empty list; by default a bar in a terminal or a notebook, and nowhere else."""
    if progress is None:
        progress = sys.stderr.isatty() or "ipykernel" in sys.modules
    bars = [ProgressBar()] if progress else []
    try:
        yield bars
    finally:
        for bar in bars:
            bar.close()
