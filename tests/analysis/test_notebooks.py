"""The notebooks: stored without outputs, and running from top to bottom."""

import nbformat
import pytest
from executed_notebook import FOLDER, execute

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


@pytest.mark.slow
@pytest.mark.parametrize('name', NAMES)
def test_a_notebook_runs_on_the_shipped_result_set(name, tmp_path, main_job):
    shown = execute(name, tmp_path, AUTONL_EXPERIMENTS='')
    if name != 'lightnl_cost':
        assert main_job.experiments.experiment[0] in shown
