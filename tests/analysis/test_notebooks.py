"""The notebooks: stored without outputs, and running from top to bottom."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import analysis

FOLDER = Path(analysis.__file__).parent
NAMES = ('compare_strategies', 'inspect_search', 'lightnl_cost')


def test_these_are_all():
    assert sorted(path.stem for path in FOLDER.glob('*.ipynb')) == sorted(NAMES)


@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_is_stored_without_what_running_it_leaves(name):
    notebook = nbformat.read(FOLDER / f'{name}.ipynb', 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith('# ')
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            assert cell.outputs == []
            assert cell.execution_count is None
        assert 'execution' not in cell.metadata
    assert set(notebook.metadata) == {'kernelspec', 'language_info'}
    assert set(notebook.metadata.language_info) == {'name'}


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


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_runs_on_the_shipped_result_set(name, tmp_path, main_job):
    shown = execute(name, tmp_path, AUTONL_EXPERIMENTS='')
    if name != 'lightnl_cost':
        assert main_job.experiments.experiment[0] in shown
