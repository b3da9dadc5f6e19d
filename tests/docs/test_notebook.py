"""The notebook of docs/ runs, and keeps its promises."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat

DOCS = Path(__file__).parents[2] / "docs"


def test_training_a_ctc_model():
    notebook = nbformat.read(DOCS / "train_ctc.ipynb", 4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(DOCS)}}).execute()
    printed = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", ()))
    assert "dropout collapse" in printed and "softmax in a hidden layer" in printed
