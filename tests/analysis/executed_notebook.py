"""A notebook, run."""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

import analysis

FOLDER = Path(analysis.__file__).parent


def execute(name, folder, **environment):
    """The outputs of a notebook, as text; raises if a cell does."""
    notebook = nbformat.read(FOLDER / f'{name}.ipynb', 4)
    client = NotebookClient(notebook, timeout=300, kernel_name='python3', resources={'metadata': {'path': str(folder)}})
    root = str(FOLDER.parent)
    path = os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')]))
    client.execute(env={**os.environ, 'PYTHONPATH': path, **environment})
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    assert not [output for output in outputs if output.get('name') == 'stderr'], outputs
    assert sum('image/svg+xml' in output.get('data', {}) for output in outputs) >= 2
    return '\n'.join(output.get('text') or output.get('data', {}).get('text/html', '') for output in outputs)
