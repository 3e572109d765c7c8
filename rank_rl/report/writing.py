"""A report read once and written in every form that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rank_rl.data.files import write_lines
from rank_rl.report import figures, latex, listing
from rank_rl.report.compare import Comparison, compared
from rank_rl.report.page import Content, page
from rank_rl.report.reading import Source, sources
from rank_rl.report.training import Stage, stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Results with the training of their checkpoints and the comparisons asked for."""

    sources: tuple[Source, ...]
    stages: tuple[Stage, ...]
    comparisons: tuple[Comparison, ...] = ()

    @classmethod
    def of(
        cls,
        results: Sequence[Path],
        *,
        training: Sequence[Path] = (),
        compare: tuple[str, str] | None = None,
        metric: str | None = None,
    ) -> Report:
        """Read results, training logs and, for ``compare``, the two sides.

        Args:
            results: result files or output folders of ``rank-rl bench``.
            training: output folders of training stages, beside those found by themselves.
            compare: two systems, checkpoints or results (``compare.compared``).
            metric: the main metric; None is each result's first.

        Raises:
            DataError: a file is missing or is no result.
            RecipeError: an unknown metric or system.
        """
        read = sources(results, metric)
        return cls(
            sources=tuple(read),
            stages=tuple(stages(read, training)),
            comparisons=tuple(compared(read, *compare)) if compare else (),
        )

    def html(self, out: Path) -> Path:
        """Write the page.

        Raises:
            StorageError: it cannot be written.
        """
        content = Content(
            sources=self.sources, stages=self.stages, comparisons=self.comparisons
        )  # fmt: skip
        write_lines(out, [page(content)])
        return out

    def markdown(self, out: Path) -> Path:
        """Write the tables in Markdown.

        Raises:
            StorageError: they cannot be written.
        """
        write_lines(out, [listing.markdown(self.sources, self.comparisons)])
        return out

    def latex(self, out: Path) -> Path:
        """Write the leaderboards in LaTeX.

        Raises:
            StorageError: they cannot be written.
        """
        write_lines(out, [latex.latex(self.sources)])
        return out

    def figures(self, folder: Path) -> list[Path]:
        """Draw the figures as PNG and SVG; the files written.

        Raises:
            RecipeError: matplotlib is not installed.
            StorageError: they cannot be written.
        """
        return figures.write(self.sources, self.stages, folder)


def write(
    results: Sequence[Path],
    out: Path,
    *,
    training: Sequence[Path] = (),
    compare: tuple[str, str] | None = None,
    metric: str | None = None,
) -> Path:
    """Write the page of results; see ``Report.of`` for what is read and raised.

    Returns:
        ``out``.
    """
    return Report.of(results, training=training, compare=compare, metric=metric).html(out)
