"""The W&B workspace and report of a project: ``python -m benchmarks wandb workspace ENTITY/PROJECT``.

Nothing is clicked by hand.
"""

import argparse
from pathlib import Path
from typing import Any

from benchmarks.tracking.content import AXIS, STEP_LOSS, reason
from benchmarks.tracking.wandb_run import connect

NAME = "Compute and accuracy"
VIEW = "nw-computeaccuracy-v"  # fixed, so that it is found again
BY_NETWORK = "config.name"
OF_TRAINING = "Metric('JobType') = 'train'"  # not the reports of sweeps
TASKS = {
    "Classification": ("val/top1_err", "test/top1_err", "top-1 error (%)"),
    "Segmentation": ("val/dice_err", "test/dice_err", "100 − Dice (%)"),
    "Detection, boxes": ("val/box_ap_err", "test/box_ap_err", "100 − box AP (%)"),
    "Detection, masks": ("val/mask_ap_err", "test/mask_ap_err", "100 − mask AP (%)"),
}
RUNS_SHOWN = 100
REPORT_TEXT = (
    "Validation error against the FLOPs spent on training, and test error against the multiply-adds of one image. "
    "A line is the mean of all shown runs of a network's name, in a band of one standard deviation: of its seeds where the "
    "shown runs are of one data set and recipe. Made by `python -m benchmarks wandb workspace`; "
    "means with intervals are in the runs of type report."
)


def save_workspace(entity: str, project: str) -> str:
    """Create or update the workspace of a project, and return its address."""
    import wandb_workspaces.workspaces as ws

    sections = [ws.Section(name=name, panels=panels) for name, panels in _panels().items()]
    sections[0].is_open = True
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=sections,
        settings=ws.WorkspaceSettings(x_axis=AXIS, smoothing_type="none", max_runs=RUNS_SHOWN),
        runset_settings=ws.RunsetSettings(groupby=[ws.Config("data.name"), ws.Config("name")], filters=OF_TRAINING),
    )
    workspace._internal_name = VIEW
    try:
        workspace._internal_id = ws.internal.View.from_name(entity, project, VIEW).id
    except ValueError as error:
        if not str(error).startswith("Workspace"):  # there is no such project
            raise
    return str(workspace.save().url)


def save_report(entity: str, project: str) -> str:
    """Create or update the report of a project, and return its address."""
    import wandb
    import wandb_workspaces.reports.v2 as wr

    groupby = ["config.data.name", BY_NETWORK]
    runset = wr.Runset(entity=entity, project=project, name="runs", groupby=groupby, filters=OF_TRAINING)
    blocks: list[Any] = [wr.P(REPORT_TEXT)]
    for title, panels in _panels().items():
        blocks += [wr.H2(title), wr.PanelGrid(runsets=[runset], panels=panels)]
    report = wr.Report(entity=entity, project=project, title=NAME, description=REPORT_TEXT, blocks=blocks)
    existing = [known for known in wandb.Api().reports(f"{entity}/{project}") if known.display_name == NAME]
    if existing:
        report.id = existing[0].id
    return str(report.save().url)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command ``wandb workspace``."""
    parser.description = "Create, or bring up to date, a workspace and a report with the right panels in a W&B project."
    parser.add_argument("project", metavar="ENTITY/PROJECT")


def run(arguments: argparse.Namespace) -> None:
    """Save the workspace and the report. Raises ValueError where there is no ENTITY/PROJECT, wandb-workspaces is not installed,
    or the server refuses."""
    entity, _, project = arguments.project.partition("/")
    if not entity or not project or "/" in project:
        raise ValueError(f"ENTITY/PROJECT is needed, as in my-team/compute-accuracy, got {arguments.project!r}")
    try:
        import wandb_workspaces.reports.v2
        import wandb_workspaces.workspaces  # noqa: F401
    except ImportError:
        raise ValueError("wandb-workspaces is not installed: pip install -e '.[workspace]'") from None
    connect(Path("."))
    try:
        print(f"workspace  {save_workspace(entity, project)}")
        print(f"report     {save_report(entity, project)}")
    except Exception as error:  # of the client or the network: of many classes
        raise ValueError(f"{entity}/{project}: {reason(error)}") from error


def _panels() -> dict[str, list[Any]]:
    """Return panels by the title of their section."""
    import wandb_workspaces.reports.v2 as wr

    grouped: dict[str, Any] = {"groupby": BY_NETWORK, "groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    grouped["max_runs_to_show"] = RUNS_SHOWN

    curves: dict[str, Any] = {
        "x": AXIS,
        "log_x": True,
        "title_x": "training FLOPs",
        "smoothing_type": "none",
        **grouped,
    }

    sections: dict[str, list[Any]] = {}
    for task, (val, test, label) in TASKS.items():  # first, as on the page, the test result over MACs
        sections[task] = [
            wr.ScatterPlot(
                title=f"test {label} over MACs of one image",
                x=wr.SummaryMetric("model/macs"),
                y=wr.SummaryMetric(test),
                log_x=True,
                running_ymin=True,
                regression=False,
            ),
            wr.LinePlot(title=f"validation {label} over training FLOPs", y=[val], **curves),
            wr.LinePlot(title="training loss over training FLOPs", y=["train/loss"], **curves),
        ]
    costs = {
        "training images per second": "images_per_s",
        "peak memory (bytes)": "peak_memory_bytes",
        "training time (s)": "train_s",
        "energy (J)": "energy_j",
    }
    sections["Training, every 50 steps"] = [
        wr.LinePlot(title="training loss", y=[STEP_LOSS], **curves),
        wr.LinePlot(title="learning rate", y=["lr"], **curves),
    ]
    sections["Cost"] = [
        wr.BarPlot(title=title, metrics=[f"compute/{name}"], **grouped) for title, name in costs.items()
    ]
    sections["Runs compared"] = [wr.RunComparer(diff_only="split")]
    return sections
