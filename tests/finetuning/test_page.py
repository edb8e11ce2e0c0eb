"""The contents of the report on a fine-tuning study."""

import fake_finetuning

from moe_jax.finetuning.page import answer, make_page, paper_table, scores_table, warnings
from moe_jax.finetuning.results import summarise


def results(records=None):
    return summarise(fake_finetuning.records() if records is None else records)


def test_the_answer_has_means_intervals_and_a_verdict():
    text = answer(results())
    # Of 50, 54, 52 and their differences 0, -3, -1.5: t(0.975, 2) = 4.303.
    assert text.startswith("ec reaches 52.0 [47.0, 57.0] on the mean of 2 tasks. ")
    assert "dense minus ec: -1.5 [-5.2, 2.2] (no difference detected, p = 0.23" in text


def test_the_table_has_a_row_for_each_model_and_yardstick():
    table = scores_table(results())
    assert table.columns == ("model", "SST-2", "STS-B (pearson_corrcoef)", "mean")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["ec"] == ["82.0", "22.0", "52.0"]
    # No yardstick of STS-B, and so no mean.
    assert rows["bag of words"] == ["82.5", "-", "-"]
    assert table.rows[0][1].note == "[77.0, 87.0]"


def test_the_paper_is_shown_for_the_tasks_that_it_has():
    table = paper_table(results())
    assert table.columns[:2] == ("model", "SST-2")
    rows = {row[0].text: [cell.text for cell in row[1:]] for row in table.rows}
    assert rows["100M, 64 experts: expert choice"] == ["95.1", "95.1", "84.0"]
    without = [fake_finetuning.plan(tasks={"my_task": "accuracy"})]
    assert paper_table(results(without)) is None


def test_what_is_doubtful_is_said():
    low = [
        record
        if getattr(record, "arm", "") != "dense"
        else fake_finetuning.run("dense", record.task, record.seed, 50.0)
        for record in fake_finetuning.records()
    ]
    found = "\n".join(warnings(results(low)))
    assert "dense on SST-2 is not above the most frequent class (50.0 against 50.9)" in found
    found = "\n".join(warnings(results(fake_finetuning.records()[:-4])))
    assert "2 of 12 runs are not finished" in found
    assert warnings(results()) == ()


def test_all_sections_are_there():
    page = make_page(results())
    assert [section.heading for section in page.sections] == [
        "Beside the paper",
        "Routing",
        "Results by seed",
        "Methods",
        "Runs that are missing",
        "Commands",
        "Configuration and environment",
    ]
    assert page.question == "Does EC fine-tune better?"
