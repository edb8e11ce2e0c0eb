"""The notebook runs from its first cell to its last, and its outputs are what its text says."""

import os
from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parent.parent.parent / "examples" / "first_steps.ipynb"


def outputs(cell):
    """Returns the texts and the kinds of a cell's outputs."""
    texts = "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "")
        for output in cell.outputs
    )
    kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
    return texts, kinds


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    """In a process of its own, as Jupyter runs it; fewer steps than a reader takes."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "clear the outputs"
    for cell in notebook.cells:
        cell.source = cell.source.replace('"STEPS=60"', '"STEPS=12"')
    client = nbclient.NotebookClient(
        notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "True"})
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    train, figures, route, picture, shares, router, check, other = map(outputs, code)
    assert "step 12" in train[0]
    assert "bits per byte) routed as trained" in figures[0]
    assert route[0].splitlines()[0].split() == ["token", "layer", "1", "layer", "2"]
    assert picture[1] >= {"image/png"}
    assert shares[1] >= {"image/png"}
    assert router == check == ("", set())
    assert "expert choice: loss" in other[0]
    assert "top-p:         loss" in other[0]
