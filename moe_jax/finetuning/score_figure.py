"""The figure of the scores: one row per task, a marker with its interval for every arm."""

from moe_jax.compare.report.figures import canvas
from moe_jax.finetuning.results import FinetuningResults
from moe_jax.finetuning.words import METHODS, interval, percent, short_task

NAME = "scores"
TITLE = "Scores by task"
# The place of the yardsticks' marks, by the name of the method.
_MARKS = {"majority": "|", "bag_of_words": "x"}


def draw(results: FinetuningResults) -> canvas.Figure | None:
    """Returns the figure; None without a finished run."""
    arms = list(results.plan.arms)
    tasks = [
        task
        for task in results.plan.tasks
        if any(_is_shown(results, arm, task) for arm in arms) or results.baselines[task]
    ]
    if not tasks or not results.runs:
        return None
    step = 0.7 / max(len(arms), 1)
    with canvas.styled(NAME):
        drawing, axes = canvas.axes_of(1.3 + (0.3 + 0.17 * len(arms)) * len(tasks))
        handles, names = [], []
        for number, arm in enumerate(arms):
            colour = canvas.arm_style(number)["color"]
            marker = canvas.MARKERS[number % len(canvas.MARKERS)]
            (handle,) = axes.plot([], [], marker, color=colour, ms=6)
            handles.append(handle)
            names.append(arm)
            for place, task in enumerate(reversed(tasks)):
                if not _is_shown(results, arm, task):
                    continue
                score = results.tasks[arm][task].score
                assert score is not None
                height = place + step * ((len(arms) - 1) / 2 - number)
                if canvas.finite(score.low, score.high):
                    axes.plot([score.low, score.high], [height] * 2, color=colour, linewidth=1.6)
                axes.plot([score.value], [height], marker, color=colour, ms=6)
        for method, mark in _MARKS.items():
            points = [
                (found.scores[results.plan.tasks[task]], place)
                for place, task in enumerate(reversed(tasks))
                if (found := results.baselines[task].get(method)) is not None
                and results.plan.tasks[task] in found.scores
            ]
            if points:
                values, places = zip(*points, strict=True)
                (handle,) = axes.plot(
                    values, places, mark, color=canvas.INK, ms=9, linestyle="none"
                )
                handles.append(handle)
                names.append(METHODS[method])
        axes.set_yticks(range(len(tasks)), [short_task(task) for task in reversed(tasks)])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_ylim(-0.6, len(tasks) - 0.4)
        axes.set_xlabel("score (%)")
        canvas.legend(drawing, handles, names)
        return canvas.save(drawing, NAME, TITLE, _describe(results, tasks))


def _is_shown(results: FinetuningResults, arm: str, task: str) -> bool:
    found = results.tasks[arm][task].score
    return found is not None and canvas.finite(found.value)


def _describe(results: FinetuningResults, tasks: list[str]) -> tuple[str, str]:
    parts = []
    for task in tasks:
        values = [
            f"{arm} {percent(found.value)} {interval(found)}".strip()
            for arm in results.plan.arms
            if (found := results.tasks[arm][task].score) is not None
        ]
        parts.append(f"{short_task(task)}: {', '.join(values) or 'no run'}")
    description = (
        "Markers: mean over seeds at the best evaluation; lines: 95% intervals. Bar: the most "
        "frequent class; cross: a bag of words."
    )
    return description, f"Values: {'; '.join(parts)}."
