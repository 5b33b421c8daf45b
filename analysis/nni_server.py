"""NNI's manager asked over HTTP: of a machine that may be anybody's, so within bounds of time and size."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from typing import Any
from urllib.parse import urlsplit

from search_space.read_file import parse_json
from search_space.rules import one_line

__all__ = ['NniServer', 'Silent']

SILENCE_SECONDS = 20.0
"""That a server may say nothing."""

LARGEST_ANSWER = 2**27
"""Bytes: a hundred thousand trials have a quarter of it."""


class Silent(ValueError):
    """What is there gave no whole answer in time: it may be busy."""


class NniServer:
    """What answers at the URL of NNI's web UI, ``http://HOST:PORT[/PREFIX]``.

    Redirects are not followed, and no proxy is asked. Messages name host and port only: a prefix is a lock, and a URL
    may have a password in it.

    Args:
        url: of the web UI.
        seconds: that an answer may take in all; one that drips in is cut off then.

    Raises:
        ValueError: it is no such URL.
    """

    def __init__(self, url: str, seconds: float = 120.0):
        try:
            parts = urlsplit(url)
            self._host, self._port = parts.hostname, parts.port
        except ValueError:
            self._host = None
        if not self._host or parts.scheme not in ('http', 'https') or not url.isprintable() or ' ' in url:
            raise ValueError("this is not the URL of NNI's web UI, http://HOST:PORT/PREFIX")
        self._seconds, self._path = seconds, parts.path.rstrip('/')
        self._connection = http.client.HTTPSConnection if parts.scheme == 'https' else http.client.HTTPConnection
        host = f'[{self._host}]' if ':' in self._host else self._host
        self.name = f'{parts.scheme}://{host}' + (f':{self._port}' if self._port else '')

    def json(self, path: str) -> Any:
        """What NNI's REST API has at ``path``.

        Raises:
            Silent: what is there gives no whole answer in time.
            ValueError: nothing is there, or no experiment of NNI.
        """
        try:
            return parse_json(self.content(path), self.name)
        except UnicodeDecodeError:
            raise self._no_experiment() from None
        except Silent:
            raise
        except ValueError as error:
            raise (self._no_experiment() if 'not JSON' in str(error) else error) from None

    def _no_experiment(self) -> ValueError:
        return ValueError(f'{self.name}: what answers there is not an experiment of NNI')

    def content(self, path: str) -> bytes:
        """As :meth:`json`, the bytes."""
        connection = self._connection(self._host, self._port, timeout=SILENCE_SECONDS)
        over, sockets = threading.Event(), []

        def cut_off():
            over.set()
            for opened in sockets:
                with contextlib.suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._seconds, cut_off)
        timer.daemon = True
        timer.start()
        try:
            connection.connect()
            sockets.append(connection.sock)  # the connection itself forgets it once it has an answer
            connection.request('GET', f'{self._path}/api/v1/nni/{path}', headers={'Connection': 'close'})
            response = connection.getresponse()
            content = response.read(LARGEST_ANSWER + 1)
        except TimeoutError:
            raise Silent(f'{self.name}: no answer within {SILENCE_SECONDS:g} seconds; is it busy?') from None
        except (OSError, http.client.HTTPException, ValueError):
            if not over.is_set():
                raise ValueError(
                    f'{self.name}: nothing answers there as NNI does; is the experiment running, at this port?'
                ) from None
        finally:
            timer.cancel()
            connection.close()
        if over.is_set():
            raise Silent(f'{self.name}: its answer took longer than {self._seconds:g} seconds')
        if response.status != 200:
            raise ValueError(
                f'{self.name}: no experiment answers there (HTTP {response.status}); does its URL have a prefix?'
            )
        if len(content) > LARGEST_ANSWER:
            raise ValueError(f'{self.name}: its answer is larger than {LARGEST_ANSWER:,} bytes')
        return content


def shown_url(url: str) -> str:
    """A URL without what is nobody's business: user, password, path and query."""
    try:
        return NniServer(url).name
    except ValueError:
        return one_line(url.partition('://')[0], 20) + '://...'
