"""The contents of the report on a fine-tuning study, in the form of a comparison's report."""

from collections.abc import Mapping

from moe_jax.compare.report import digits, reproduction, shell
from moe_jax.compare.report.page import Page, Section
from moe_jax.compare.report.reproduction import Code
from moe_jax.compare.report.table import NO_SEEDS, ONE_SEED, Cell, Table
from moe_jax.compare.results import Estimate
from moe_jax.finetuning.paper_results import PAPER_ROWS
from moe_jax.finetuning.results import FinetuningResults
from moe_jax.finetuning.words import METHODS, interval, percent, short_task

_INTERVALS = (
    "Scores in percent: the mean over seeds of the value at each run's best evaluation, and its "
    "95% t-interval. The best evaluation is chosen on the same split that is reported, as in the "
    "papers; the table of last evaluations shows what that is worth."
)


def make_page(results: FinetuningResults) -> Page:
    """Returns the contents of the report."""
    return Page(
        question=results.plan.question,
        cannot_tell="",
        answer=answer(results),
        warnings=warnings(results),
        arms=scores_table(results),
        aa=_INTERVALS,
        sections=_sections(results),
    )


def answer(results: FinetuningResults) -> str:
    """Returns what was found in one or two sentences."""
    first, *others = results.plan.arms
    average = results.averages[first]
    tasks = len(results.plan.tasks)
    of_what = "the task" if tasks == 1 else f"the mean of {tasks} tasks"
    if average is None:
        return f"No seed of {first} has finished all tasks yet."
    text = f"{first} reaches {_estimate(average)} on {of_what}."
    for arm in others:
        found = results.differences[arm]
        if found is None:
            text += f" {arm}: no seed has finished all tasks with both."
            continue
        sign = "+" if found.value >= 0 else ""
        verdict = "a difference" if found.is_difference else "no difference detected"
        p = digits.p_value(found.p_holm)
        corrected = f" corrected for {len(others)} comparisons" if len(others) > 1 else ""
        p_text = "" if p == digits.DASH else f", p = {p}{corrected}"
        text += f" {arm} minus {first}: {sign}{_estimate(found)} ({verdict}{p_text})."
    return text


def warnings(results: FinetuningResults) -> tuple[str, ...]:
    """Returns what makes the results doubtful."""
    lines = []
    if results.missing:
        total = len(results.plan.arms) * len(results.plan.tasks) * len(results.plan.seeds)
        lines.append(
            f"{len(results.missing)} of {total} runs are not finished: averages and differences "
            "are over the seeds that have all tasks."
        )
    if len(results.plan.seeds) < 3:
        lines.append("Fewer than 3 seeds: the intervals are very wide, or there are none.")
    for arm, by_task in results.tasks.items():
        for task, found in by_task.items():
            majority = results.baselines[task].get("majority")
            metric = results.plan.tasks[task]
            if majority is None or found.score is None or metric not in majority.scores:
                continue
            if found.score.value <= majority.scores[metric]:
                lines.append(
                    f"{arm} on {short_task(task)} is not above the most frequent class "
                    f"({percent(found.score.value)} against {percent(majority.scores[metric])})."
                )
    return tuple(lines)


def scores_table(results: FinetuningResults) -> Table:
    """Returns the main table: a row for each arm and each yardstick, a column for each task."""
    rows = []
    for arm, description in results.plan.arms.items():
        cells = [_cell(results.tasks[arm][task].score) for task in results.plan.tasks]
        rows.append((Cell(arm, description), *cells, _cell(results.averages[arm])))
    for name, words in METHODS.items():
        found = {task: by_name.get(name) for task, by_name in results.baselines.items()}
        if not any(found.values()):
            continue
        values = {
            task: None if b is None else b.scores.get(results.plan.tasks[task])
            for task, b in found.items()
        }
        mean = _mean(values)
        cells = [Cell(percent(value)) for value in (*values.values(), mean)]
        rows.append((Cell(words), *cells))
    columns = ("model", *(_column(results, task) for task in results.plan.tasks), "mean")
    return Table("Scores in percent", columns, tuple(rows))


def paper_table(results: FinetuningResults) -> Table | None:
    """Returns the paper's figures for the tasks of the study; None if it has none of them."""
    tasks = [task for task in results.plan.tasks if task in PAPER_ROWS[0].scores]
    if not tasks:
        return None
    rows = []
    for row in PAPER_ROWS:
        values = {task: row.scores[task] for task in tasks}
        cells = [Cell(percent(value)) for value in (*values.values(), _mean(values))]
        rows.append((Cell(row.name), *cells, Cell(percent(row.average))))
    columns = ("model", *(short_task(task) for task in tasks), "mean of these", "of all 11")
    notes = (
        "Zhou et al. 2022, tables 2 to 4: accuracy in percent on the validation set. Their models "
        "and their pre-training are far larger: these figures are no target for a small study.",
    )
    return Table("The paper's figures", columns, tuple(rows), notes)


def _sections(results: FinetuningResults) -> tuple[Section, ...]:
    paper, environment = paper_table(results), _environment(results)
    source = results.plan.source.strip()
    codes = (Code("Configuration of the study (gin)", results.plan.source),) if source else ()
    return (
        *([Section("Beside the paper", tables=(paper,))] if paper else []),
        Section("Routing", tables=(_causal_table(results),)),
        Section("Results by seed", tables=(_seeds_table(results), _last_table(results))),
        Section("Methods", items=_method_lines(results)),
        Section(
            "Runs that are missing",
            lines=() if results.missing else ("None.",),
            items=results.missing,
        ),
        Section("Commands", codes=_commands(results)),
        Section(
            "Configuration and environment",
            tables=() if environment is None else (environment,),
            codes=codes,
        ),
    )


def _causal_table(results: FinetuningResults) -> Table:
    rows = []
    for arm, by_task in results.tasks.items():
        for task, found in by_task.items():
            causal = _cell(found.causal)
            if found.causal is None and found.score is not None:
                causal = Cell("same", "causal router")
            rows.append((Cell(f"{arm}, {short_task(task)}"), _cell(found.score), causal))
    notes = (
        "As trained, a token's experts may depend on the other examples of the batch and on later "
        "tokens; causal, on the token alone.",
    )
    return Table(
        "As trained and causal", ("model, task", "as trained", "causal"), tuple(rows), notes
    )


def _seeds_table(results: FinetuningResults) -> Table:
    rows = []
    for arm, by_task in results.tasks.items():
        for task, found in by_task.items():
            metric = results.plan.tasks[task]
            cells = [
                Cell(percent(run.scores.get(metric)), f"step {run.best_step:,}")
                if (run := found.runs.get(seed)) is not None
                else Cell(digits.DASH, "no run")
                for seed in results.plan.seeds
            ]
            rows.append((Cell(f"{arm}, {short_task(task)}"), *cells))
    columns = ("model, task", *(f"seed {seed}" for seed in results.plan.seeds))
    return Table("Best evaluation by seed", columns, tuple(rows))


def _last_table(results: FinetuningResults) -> Table:
    rows = [
        (Cell(f"{arm}, {short_task(task)}"), _cell(found.score), _cell(found.last))
        for arm, by_task in results.tasks.items()
        for task, found in by_task.items()
    ]
    return Table("Best and last evaluation", ("model, task", "best", "last"), tuple(rows))


def _method_lines(results: FinetuningResults) -> tuple[str, ...]:
    return (
        "Every run starts from the parameters of its checkpoint and trains on one task; the loss "
        "counts the tokens of the target only.",
        "A task with classes is scored by the likelihood of each class after the input, other "
        "tasks by greedy generation.",
        "Interval: mean ± t s / √n over n seeds, with s their standard deviation (divisor n - 1) "
        "and t the 97.5% quantile of Student's distribution with n - 1 degrees of freedom. It "
        "covers seeds of the fine-tuning, not of the pre-training, of which there is one.",
        "Differences of means over the tasks are paired by seed; p is corrected for the number of "
        "comparisons (Holm 1979).",
        "Most frequent class: the class with the most training examples. Bag of words: logistic "
        "regression on the counts of words and pairs of words, fitted to the same training split.",
    )


def _commands(results: FinetuningResults) -> tuple[Code, ...]:
    found = [Code("The whole study", shell.on_lines(results.plan.command))]
    for arm, by_task in results.tasks.items():
        for task, result in by_task.items():
            for seed, run in list(result.runs.items())[:1]:
                label = f"{arm} on {short_task(task)}, seed {seed}"
                found.append(Code(label, shell.on_lines(run.command)))
    return tuple(code for code in found if code.text.strip())


def _environment(results: FinetuningResults) -> Table | None:
    distinct = {repr(run.environment): run.environment for run in results.runs}
    return reproduction.environments_table(list(distinct.values()))


def _column(results: FinetuningResults, task: str) -> str:
    metric = results.plan.tasks[task]
    return short_task(task) if metric == "accuracy" else f"{short_task(task)} ({metric})"


def _cell(estimate: Estimate | None) -> Cell:
    if estimate is None:
        return Cell(digits.DASH, NO_SEEDS)
    note = interval(estimate) or (ONE_SEED if estimate.seeds < 2 else "no interval")
    return Cell(percent(estimate.value), note)


def _estimate(estimate: Estimate) -> str:
    return f"{percent(estimate.value)} {interval(estimate)}".strip()


def _mean(values: Mapping[str, float | None]) -> float | None:
    known = [value for value in values.values() if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
