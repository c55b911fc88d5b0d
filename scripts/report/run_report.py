"""The paper's figures and tables of a run, as PNG files and as one page that opens offline.

    instanas report --run runs/demo

From files alone; no network is run. What a run has not got is left out, and the page names the command
that would make it. Reads results.json and images.safetensors (`instanas evaluate`), history.jsonl of the
searches beneath the run (`instanas search`), and the record of a latency table.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instanas_env.build import shipped
from instanas_env.storage import load_json, write_atomic
from scripts.comparison.image_record import ImageRecord
from scripts.comparison.names import first_seeds, learned_rows
from scripts.comparison.over_seeds import HEAD as HEAD_OF_SEEDS
from scripts.comparison.over_seeds import gains_told, seed_table
from scripts.comparison.policy_table import HEAD, table_rows
from scripts.comparison.results_file import evaluate_command, facts
from scripts.report import page, svg_charts
from scripts.report.architecture_map import architecture_maps
from scripts.report.figures import draw_estimate, draw_figures, draw_table, pyplot
from scripts.report.figures_by_image import choices_of, draw_by_image, widest_of_each_group
from scripts.report.figures_search import draw_searches, load_search_history
from scripts.report.page import Section


@dataclass(frozen=True)
class Options:
    """Which run, and where to."""

    run: Path
    """Directory of `instanas demo`, `instanas evaluate` or `instanas search`."""
    out: Path | None = None
    """The page, by default report.html of the run; the PNG files go beside it."""
    searches: tuple[Path, ...] = ()
    """Directories of searches; by default the run and those in it."""
    latency_table: Path | None = None
    """By default latency.json of the run, or else the shipped table."""


CONTROLS = (
    "Latency is the mean over images, the controller's own included. Points of accuracy over the best fixed"
    " mask on the same meta-graph that is no slower, the controller's time aside: 0 means that one network"
    " for all would have done. Points lost when the same networks are exchanged between the images: 0 means"
    " that it does not matter which image gets which. In brackets 95 % intervals over images. The oracle"
    " picks for each image among the networks that the controller uses most: so much there would be to win."
)


class Report:
    """Draws into ``folder`` what the files of a run allow; each method gives sections of the page."""

    def __init__(self, options: Options, folder: Path):
        self.options = options
        self.folder = folder
        results, images = options.run / "results.json", options.run / "images.safetensors"
        self.results = results if results.exists() else None
        content = load_json(results) if self.results else {}
        self.facts = facts(content)
        self.evaluate = evaluate_command(options.run, content.get("options", {}))
        self.rows: list[dict[str, Any]] = content.get("policies", [])
        self.seeds: list[dict[str, Any]] = content.get("seeds", [])
        self.first = first_seeds(self.rows)
        self.learned = learned_rows(self.first)
        self.record = ImageRecord.load(images) if images.exists() else None

    def comparison(self) -> list[Section]:
        """The table, accuracy against latency, and what can be said of controllers from their networks."""
        titles = {
            "frontier": "Accuracy against latency (Figures 5 and 6)",
            "table": "All policies (Tables 1 to 3)",
            "latency": "Latency of the chosen networks (Figure 1)",
            "modules": "Modules by depth",
        }
        if self.results is None or not self.rows:
            missing = f"{self.options.run} has no results.json with policies in it."
            return [Section(n, t, "", None, missing, self.evaluate) for n, t in titles.items()]
        drawn = {path.stem.removeprefix("figure_"): path for path in draw_figures(self.results, self.folder)}
        draw_table(self.rows, self.folder / "figure_table.png")
        sections = [
            Section(
                "frontier",
                titles["frontier"],
                "Bars are 95 % intervals over images. Static masks, and the settings of one controller's"
                " dial, are joined by lines. Latency is from the table, the controller's own included."
                " Hover over or touch a point for its numbers.",
                svg_charts.frontier(self.first),
            ),
            Section(
                "table",
                titles["table"],
                CONTROLS,
                page.table(HEAD, table_rows(self.rows)),
            ),
        ]
        captions = {
            "latency": "How many images got a network of which latency. The controller's own is not in it.",
            "modules": "Share of the images for which each module of each cell is switched on.",
        }
        for name, caption in captions.items():
            body = page.image(drawn[name], f"{titles[name]}. {caption}") if name in drawn else None
            sections.append(
                Section(name, titles[name], caption, body, "no controller was compared.", self.evaluate)
            )
        return sections

    def over_seeds(self) -> list[Section]:
        """Means over seeds; no section where every policy was made once."""
        if not self.seeds:
            return []
        caption = (
            "Means over seeds, in brackets 95 % intervals over seeds (Student's t); differences in points of"
            " accuracy. The static mask is the best one found on the policy's own meta-graph."
        )
        told = "".join(f"<p>{page.escape(sentence)}</p>" for sentence in gains_told(self.seeds))
        body = page.table(HEAD_OF_SEEDS, seed_table(self.seeds)) + told
        return [Section("seeds", "Over seeds", caption, body)]

    def by_image(self) -> list[Section]:
        """Figure 7 of each search."""
        title = "From easy to hard (Figure 7)"
        if self.record is None or not self.learned:
            missing = f"{self.options.run} has no images.safetensors with controllers in it."
            return [Section("images", title, "", None, missing, self.evaluate)]
        parts = []
        widest = widest_of_each_group(self.learned)
        for place, row in enumerate(widest):
            choices = choices_of(row, self.record)
            if choices is None:
                missing = "images.safetensors is of another comparison than results.json."
                return [Section("images", title, "", None, missing, self.evaluate)]
            path = self.folder / f"figure_images_{place + 1}.png"
            draw_by_image(row, choices, self.record, path)
            parts.append(page.image(path, f"{row['name']}: images of each class ordered by latency"))
        one = {row["group"] for row in self.learned} - {row["group"] for row in widest}
        if one:
            parts.append(f'<p class="soft">{page.escape(", ".join(sorted(one)))}: one network for all.</p>')
        caption = (
            "Images of a sample, in the order of the latency that the controller gives them, relative to the"
            " mean over all images of their class; red where the answer was wrong. Of each search the"
            " setting with most networks."
        )
        return [Section("images", title, caption, "".join(parts))]

    def architectures(self) -> list[Section]:
        """Figure 8 of each policy that has more than one network."""
        title = "Map of the architectures (Figure 8)"
        mapped = [row for row in self.learned if len(row["networks"]) > 1]
        if not mapped:
            missing = "no controller with more than one network was compared."
            return [Section("map", title, "", None, missing, self.evaluate)]
        caption = (
            "A dot is a network, its size the number of images that got it; near dots share modules (UMAP"
            " where umap-learn is installed, otherwise principal components)."
        )
        if self.record is not None:
            caption += " Outlined dots show images of a sample that got them when you hover or touch."
        return [Section("map", title, caption, architecture_maps(mapped, self.record))]

    def searches(self) -> list[Section]:
        """Reward bounds and validation over the epochs of each search."""
        title = "Course of the search (section 3.3)"
        run = self.options.run
        folders = self.options.searches or (run, *sorted(path.parent for path in run.glob("*/history.jsonl")))
        names = [folder.resolve().name for folder in folders]
        files = {
            name if names.count(name) == 1 else str(folder): folder / "history.jsonl"
            for name, folder in zip(names, folders, strict=True)
        }
        histories = {name: load_search_history(path) for name, path in files.items() if path.exists()}
        histories = {name: rows for name, rows in histories.items() if rows}
        if not histories:
            missing, command = (
                "no history.jsonl of a search.",
                f"instanas search --out {run / 'search'}",
            )
            return [Section("search", title, "", None, missing, command)]
        path = self.folder / "figure_search.png"
        draw_searches(histories, path)
        caption = (
            "The window outside which the latency reward is 0, the mean latency of what was explored and of"
            " the deterministic policy on the validation split; its accuracy, with masks exchanged between"
            " images as the control; and how many networks it uses. Where validation has a thousand images,"
            " two points of accuracy are chance."
        )
        alt = f"Epochs of {', '.join(histories)}: window and latency, accuracy, number of networks"
        return [Section("search", title, caption, page.image(path, alt))]

    def estimate(self) -> list[Section]:
        """Figure 4."""
        title = "Estimated against real latency (Figure 4)"
        own = self.options.run / "latency.json"
        file = self.options.latency_table or (own if own.exists() else shipped("latency.json"))
        record = load_json(file)["record"] if file.exists() else {}
        if "estimate" not in record:
            missing = f"{file} has no record of real children."
            return [Section("estimate", title, "", None, missing, f"instanas profile --out {own}")]
        path = self.folder / "figure_estimate.png"
        draw_estimate(file, path)
        found = record["estimate"]
        caption = (
            f"{found['children']:,} random children, each measured as a network of its own, against the sum"
            f" over its modules in the table: r = {found['correlation']:.4f}, median error"
            f" {100 * found['median_relative_error']:.0f} %."
        )
        if file == shipped("latency.json"):
            caption += " The shipped table."
        return [Section("estimate", title, caption, page.image(path, f"{title}. {caption}"))]


def write_report(options: Options) -> Path:
    """Draw everything, write the page; gives its path.

    Raises:
        FileNotFoundError: no such run.
        ImportError: matplotlib is missing.
    """
    if not options.run.is_dir():
        raise FileNotFoundError(
            f"run: {options.run} is no directory; `instanas demo` or `instanas evaluate` makes one"
        )
    pyplot()  # before anything is written
    out = options.out or options.run / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    report = Report(options, out.parent)
    sections = [
        *report.comparison(),
        *report.over_seeds(),
        *report.by_image(),
        *report.architectures(),
        *report.searches(),
        *report.estimate(),
    ]
    thumbnails = "" if report.record is None else page.sprite(report.record.thumbnails.numpy())
    title = f"InstaNAS: {options.run.resolve().name}"
    write_atomic(out, page.page(title, report.facts, sections, thumbnails).encode())
    return out


def main(options: Options) -> None:
    """Write the report and say where."""
    print(f"wrote {write_report(options)}, and its figures beside it")
