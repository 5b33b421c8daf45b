"""Two hosts to run trials on: network namespaces of this machine, each with an SSH server and a home of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NETWORK = '198.18.77'
"""Of the addresses that are kept for tests of networks (RFC 2544)."""

SSHD = '/usr/sbin/sshd'


@dataclass(frozen=True)
class Host:
    """A host that can be reached over SSH."""

    name: str
    address: str
    port: int
    home: Path
    key: Path

    def cut_off(self) -> None:
        """Take its network down, as a cable that is pulled: nobody is told."""
        _run('ip', 'link', 'set', _switch_port(self.name), 'down')

    def join(self) -> None:
        """Bring its network up again."""
        _run('ip', 'link', 'set', _switch_port(self.name), 'up')

    def machine(self) -> dict:
        """It, as an entry of NNI's ``machineList``."""
        return {'host': self.address, 'port': self.port, 'user': 'root', 'sshKeyFile': str(self.key)}


@dataclass(frozen=True)
class Network:
    """The hosts, and the address of this machine among them."""

    address: str
    hosts: tuple[Host, Host]


def why_not() -> str | None:
    """What this machine lacks for :func:`two_hosts`; None where it has it all."""
    if os.geteuid() != 0:
        return 'network namespaces need root'
    for program in ('ip', 'unshare', 'ssh', 'ssh-keygen', SSHD):
        if shutil.which(program) is None:
            return f'there is no {program} (Debian: iproute2, util-linux, openssh-client, openssh-server)'
    tried = subprocess.run(['ip', 'netns', 'add', _namespace('try')], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f'network namespaces are not to be had: {tried.stderr.strip()}'
    _run('ip', 'netns', 'delete', _namespace('try'))
    return None


@contextmanager
def two_hosts(folder: Path) -> Iterator[Network]:
    """Two hosts and a switch, which are gone again after it, with every process that was started on them.

    Args:
        folder: empty; for keys, configurations and the hosts' homes.
    """
    _remove_what_was_left()
    key, switch = folder / 'id_rsa', f'nas{os.getpid()}'
    # NNI 3.0 reads its key with ssh2 1.x, which wants the PEM form.
    _run('ssh-keygen', '-q', '-t', 'rsa', '-b', '2048', '-m', 'PEM', '-N', '', '-f', str(key))
    with ExitStack() as stack:
        _run('ip', 'link', 'add', switch, 'type', 'bridge')
        stack.callback(_run, 'ip', 'link', 'delete', switch)
        _run('ip', 'address', 'add', f'{NETWORK}.1/24', 'dev', switch)
        _run('ip', 'link', 'set', switch, 'up')
        hosts = [stack.enter_context(_host(name, i, switch, folder, key)) for i, name in enumerate('ab', start=2)]
        yield Network(f'{NETWORK}.1', tuple(hosts))


@contextmanager
def _host(name: str, number: int, switch: str, folder: Path, key: Path) -> Iterator[Host]:
    namespace, port = _namespace(name), _switch_port(name)
    home = folder / name
    host = Host(name, f'{NETWORK}.{number}', 2200 + number, home, key)
    _prepare(host)
    with ExitStack() as stack:
        _run('ip', 'netns', 'add', namespace)
        stack.callback(_remove, namespace)
        _run('ip', 'link', 'add', port, 'type', 'veth', 'peer', 'name', 'eth0', 'netns', namespace)
        # Not left to the namespace, which stays until its last connection has given up.
        stack.callback(_run, 'ip', 'link', 'delete', port)
        _run('ip', 'link', 'set', port, 'master', switch, 'up')
        inside = ('ip', '-n', namespace)
        _run(*inside, 'address', 'add', f'{host.address}/24', 'dev', 'eth0')
        _run(*inside, 'link', 'set', 'eth0', 'up')
        _run(*inside, 'link', 'set', 'lo', 'up')
        serve = f'hostname {namespace} && exec {SSHD} -D -f "$0" -E "$1"'
        arguments = ('sh', '-c', serve, str(home / 'sshd_config'), str(home / 'sshd.log'))
        server = subprocess.Popen(['ip', 'netns', 'exec', namespace, 'unshare', '--uts', *arguments])
        stack.callback(server.wait)
        stack.callback(server.terminate)
        login = ('ssh', '-i', str(key), '-p', str(host.port), '-o', 'StrictHostKeyChecking=no')
        login += ('-o', 'UserKnownHostsFile=/dev/null', f'root@{host.address}', 'true')
        for _ in range(100):
            if subprocess.run(login, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.2)
        else:
            raise RuntimeError(f'no SSH server on {name}: {(home / "sshd.log").read_text()}')
        yield host


def _prepare(host: Host) -> None:
    """The home of a host, and what its SSH server reads."""
    host.home.mkdir()
    host_key = host.home / 'host_key'
    _run('ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', str(host_key))
    # NNI installs itself on every host with pip. It is there, and a host of a test has no package index to ask.
    (host.home / 'pip.conf').write_text('[global]\nno-index = true\n')
    (host.home / 'sshd_config').write_text(
        f'Port {host.port}\n'
        f'ListenAddress {host.address}\n'
        f'HostKey {host_key}\n'
        f'AuthorizedKeysFile {host.key}.pub\n'
        f'SetEnv HOME={host.home} PIP_CONFIG_FILE={host.home}/pip.conf OMP_NUM_THREADS=1\n'
        'PidFile none\n'
        'StrictModes no\n'
        'PermitRootLogin prohibit-password\n'
        'PasswordAuthentication no\n'
        'UsePAM no\n'
        'Subsystem sftp internal-sftp\n'
    )
    Path('/run/sshd').mkdir(exist_ok=True)  # which the server wants there, empty


def _remove_what_was_left() -> None:
    """The hosts and switches of a process that was killed, and could not remove them itself."""
    for line in _run('ip', 'netns', 'list').splitlines():
        if _is_left(name := line.split()[0]):
            _remove(name)
    for line in _run('ip', '-brief', 'link').splitlines():
        if _is_left(name := line.split()[0].partition('@')[0]):
            subprocess.run(['ip', 'link', 'delete', name], capture_output=True, check=False)  # or it is going already


def _is_left(name: str) -> bool:
    made = re.fullmatch(r'nas(\d+)[a-z]*', name)
    return made is not None and not Path('/proc', made[1]).exists()


def _remove(namespace: str) -> None:
    for process in _run('ip', 'netns', 'pids', namespace).split():
        subprocess.run(['kill', '-KILL', process], capture_output=True, check=False)  # it may have ended
    _run('ip', 'netns', 'delete', namespace)


def _namespace(host: str) -> str:
    return f'nas{os.getpid()}{host}'


def _switch_port(host: str) -> str:
    return f'{_namespace(host)}p'


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f'{" ".join(command)}: {done.stderr.strip()}')
    return done.stdout
