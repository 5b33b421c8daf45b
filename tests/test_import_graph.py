"""Which file imports which: no cycles, no package that looks up, and NNI's NAS behind one door."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from nnictl_experiment import ROOT

BELOW = {
    'search_space': set(),
    'strategies': {'search_space'},
    'trials': {'search_space', 'strategies'},
    'analysis': {'search_space', 'strategies'},
}
"""Package to those that it may import, besides itself."""

BEHIND = {'nni.nas': 'search_space.nni_nas'}
"""A package of others, and the one module of ours that imports it."""


def files(*packages: str) -> dict[str, Path]:
    """Module to its file."""
    found = {}
    for package in packages:
        for file in (ROOT / package).rglob('*.py'):
            parts = file.relative_to(ROOT).with_suffix('').parts
            found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = file
    return found


FILES = files(*BELOW)
WITH_BENCHMARKS = files(*BELOW, 'benchmarks')


def imported(module: str) -> Iterator[str]:
    """Whatever ``module`` imports, anywhere in its file: by its whole name, of other projects too."""
    file = WITH_BENCHMARKS[module]
    package = module.split('.') if file.name == '__init__.py' else module.split('.')[:-1]
    for node in ast.walk(ast.parse(file.read_text('utf-8'))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = '.'.join([*above, *([node.module] if node.module else [])])
            names = [f'{source}.{alias.name}' for alias in node.names]
            yield from (name if name in FILES else source for name in names)


GRAPH = {module: {name for name in imported(module) if name in FILES and name != module} for module in FILES}


def test_no_module_imports_itself_by_way_of_others():
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f'a cycle of imports: {" <- ".join(error.args[1])}')


@pytest.mark.parametrize('package', BELOW)
def test_a_package_imports_only_what_is_below_it(package):
    own = [module for module in GRAPH if module.split('.')[0] == package]
    arrows = {(module, name) for module in own for name in GRAPH[module]}
    assert arrows
    assert {arrow for arrow in arrows if arrow[1].split('.')[0] not in {package, *BELOW[package]}} == set()


@pytest.mark.parametrize('package', BEHIND)
def test_one_module_alone_imports(package):
    importers = {
        module
        for module in WITH_BENCHMARKS
        for name in imported(module)
        if name == package or name.startswith(f'{package}.')
    }
    assert importers == {BEHIND[package]}
