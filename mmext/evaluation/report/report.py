# Licensed under the Apache License, Version 2.0. See LICENSE.
"""The report of a comparison: sentences, tables, files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmext.evaluation.report import tables
from mmext.evaluation.report.document import Document
from mmext.evaluation.report.published import published_table
from mmext.evaluation.report.results import Results
from mmext.evaluation.report.table import Table
from mmext.evaluation.statistics.verdict import verdict

if TYPE_CHECKING:
    from mmext.evaluation.report.pictures import ImageFolder


class Report(Results, Document):
    """The result of :func:`mmext.compare`: numbers, sentences and tables.

    Example:
        >>> report.comparisons[0].differences['AP'].interval
        (0.0042, 0.0198)
    """

    @property
    def title(self) -> str:
        """Names of the sides."""
        return ' / '.join(self.names)

    def verdicts(self) -> list[tuple[str, list[str]]]:
        """Returns (heading, sentences) of each candidate."""
        return [
            (
                f'{side.name} against {self.names[0]}',
                verdict(comparison, self.margin),
            )
            for side, comparison in self.candidates()
        ]

    def tables(self) -> list[Table]:
        """Returns the tables, the most important one first."""
        found = [
            tables.summary_table(self),
            tables.tested_table(self.sides),
            tables.claims_table(self),
        ]
        writers = [tables.metric_table]
        if len(self.truth.names) > 1:
            writers.append(tables.class_table)
        for table in writers:
            for side, comparison in self.candidates():
                found.append(table(self.names[0], side.name, comparison))
        cost = tables.cost_table(self.sides)
        if any({*row[1:]} != {'-'} for row in cost.rows):
            found.append(cost)
        names = self.sides[0].runs[0].names
        if names:
            published = published_table(**names, iou_type=self.iou_type)
            found += [published] if published else []
        return found

    def details(self) -> list[Table]:
        """Returns the tables that are too wide for a terminal."""
        return [
            tables.interval_table(side.name, comparison)
            for side, comparison in self.candidates()
        ]

    def image_folder(self, given: str | Path | None = None) -> ImageFolder:
        """Returns the folder of the test images; see `write`."""
        from mmext.evaluation.report.pictures import find_image_folder

        configs = [side.runs[0].config for side in self.sides]
        return find_image_folder(self.truth, configs, given and Path(given))

    def write(
        self, folder: str | Path, images: str | Path | None = None
    ) -> list[Path]:
        """Writes ``report.html``, ``report.md``, and tables as CSV and TeX.

        ``images`` is the folder that the file names of the test images are
        relative to, by default the one that the configs name, or one beside
        the annotation file. Returns the files.
        """
        return self.write_files(folder, self.html(images))

    def html(self, images: str | Path | None = None) -> str:
        """Returns the report as one page; ``images`` as in :meth:`write`."""
        from mmext.evaluation.report.page import html_page

        return html_page(
            self,
            self.verdicts(),
            [*self.tables(), *self.details()],
            self.image_folder(images),
        )

    def verify(self) -> None:
        """Compares every metric of every run with pycocotools.

        Raises:
            UserError: A metric differs by more than 1e-10.
        """
        from mmext.evaluation.coco.verify import verify

        values = [self.comparisons[0].baseline]
        values += [c.candidate for c in self.comparisons]
        for side, found in zip(self.sides, values, strict=True):
            for i, preds in enumerate(side.predictions):
                metrics = {m: float(v[i]) for m, v in found.items()}
                verify(self.truth, preds, metrics)
