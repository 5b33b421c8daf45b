"""A page in headless Chromium, asked over its DevTools protocol what is wrong with it."""

import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.sync.client import connect

EXECUTABLE = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)

needs_chromium = pytest.mark.skipif(
    EXECUTABLE is None, reason='there is no Chromium on this machine; on Debian: apt-get install chromium'
)


class Tab:
    """The one page of a browser; ``events`` are all that were sent of it."""

    def __init__(self, socket):
        self._socket, self._number, self.events = socket, 0, []

    def ask(self, method: str, **parameters) -> dict:
        self._number += 1
        self._socket.send(json.dumps({'id': self._number, 'method': method, 'params': parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get('id') == self._number:
                assert 'error' not in answer, answer
                return answer['result']
            self.events.append(answer)

    def _until(self, method: str, since: int) -> None:
        while not any(event['method'] == method for event in self.events[since:]):
            self.events.append(json.loads(self._socket.recv(timeout=60)))

    def value(self, expression: str):
        return self.ask('Runtime.evaluate', expression=expression, returnByValue=True, awaitPromise=True)['result'][
            'value'
        ]

    def open(self, path: Path, width: int) -> None:
        """Load a file at this width, in CSS pixels, and wait until its pictures are there."""
        for domain in ('Page', 'Runtime', 'Log', 'Network'):
            self.ask(f'{domain}.enable')
        metrics = {'width': width, 'height': 800, 'deviceScaleFactor': 1, 'mobile': width < 600}
        self.ask('Emulation.setDeviceMetricsOverride', **metrics)
        since = len(self.events)
        self.ask('Page.navigate', url=path.absolute().as_uri())
        self._until('Page.loadEventFired', since)
        self.value('Promise.all([...document.images].map(image => image.decode().catch(() => 0))).then(() => 1)')

    def mistakes(self) -> list[dict]:
        """Errors and warnings on its console, and exceptions of its scripts."""
        return [
            event
            for event in self.events
            if event['method'] == 'Runtime.exceptionThrown'
            or (event['method'] == 'Runtime.consoleAPICalled' and event['params']['type'] in ('error', 'warning'))
            or (event['method'] == 'Log.entryAdded' and event['params']['entry']['level'] in ('error', 'warning'))
        ]

    def requests(self) -> list[str]:
        """The addresses that it asked for."""
        return [e['params']['request']['url'] for e in self.events if e['method'] == 'Network.requestWillBeSent']

    def broken_images(self) -> list[str]:
        return self.value('[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.alt)')


@contextmanager
def tab(profile: Path):
    """An empty page in a browser of its own."""
    options = ['--headless=new', '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking']
    browser = subprocess.Popen(
        [EXECUTABLE, *options, '--remote-debugging-port=0', f'--user-data-dir={profile}', 'about:blank'],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(profile / 'DevToolsActivePort', browser)
        import requests

        pages = requests.get(f'http://127.0.0.1:{port}/json/list', timeout=60).json()
        address = next(page['webSocketDebuggerUrl'] for page in pages if page['type'] == 'page')
        with connect(address, max_size=None) as socket:
            yield Tab(socket)
    finally:
        browser.terminate()
        browser.wait(timeout=60)


def _port(file: Path, browser: subprocess.Popen) -> int:
    for _ in range(600):
        if file.is_file() and file.read_text().count('\n'):
            return int(file.read_text().splitlines()[0])
        assert browser.poll() is None, 'Chromium ended by itself'
        time.sleep(0.1)
    raise AssertionError('Chromium did not open its DevTools port')
