"""The tables of a calibration."""

from rich.console import Console
from rich.table import Table

from moe_jax.commands.console import line_printer
from moe_jax.runs.calibrated_run import CalibratedRun


def print_calibration(console: Console, calibrated: CalibratedRun) -> None:
    """Prints the sample, the losses, and the causal routing of every layer before and after."""
    calibration, report = calibrated.calibration, calibrated.report
    say = line_printer(console)
    setup, passes = calibrated.setup, len(calibration.passes)
    say(
        f"{setup.method.capitalize()} of step {calibrated.trained.step} for a capacity factor of "
        f"{setup.capacity_factor:g}, from {calibration.tokens:,} tokens of the split "
        f"{calibrated.sample.split!r} ({calibration.tokens_per_expert:,} for each expert)"
        + (f", in {passes} passes" if passes else "")
    )
    before, after = report.gaps
    losses = Table(title=f"Held-out text ({report.tokens:,} tokens)", title_justify="left")
    for column in ("routing", "loss (nats/token)", "above as trained", "experts/token"):
        losses.add_column(column, justify="left" if column == "routing" else "right")
    losses.add_row("as trained", f"{report.loss:.4f}", "", f"{report.mean_experts:.2f}")
    for name, gap in (("causal, before", before), ("causal, calibrated", after)):
        more = f"{gap.loss / report.loss - 1.0:+.2%}"
        losses.add_row(name, f"{gap.loss:.4f}", more, f"{gap.mean_experts:.2f}")
    console.print(losses)
    layers = Table(title="Causal routing, before -> calibrated", title_justify="left")
    columns = ("layer", "decisions flipped", "choices kept", "experts/token", "max/mean load")
    for column in columns:
        layers.add_column(column, justify="right")
    numbers = calibrated.trained.run.experiment.model.moe_layers
    for number, old, new in zip(numbers, before.layers, after.layers, strict=True):
        layers.add_row(
            str(number),
            f"{old.flipped_share:.1%} -> {new.flipped_share:.1%}",
            f"{old.kept_share:.1%} -> {new.kept_share:.1%}",
            f"{old.mean_experts:.2f} -> {new.mean_experts:.2f}",
            f"{old.max_load:.2f} -> {new.max_load:.2f}",
        )
    console.print(layers)
