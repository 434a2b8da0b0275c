"""Real servers on loopback, for tests: nothing outside a temporary folder is touched."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of the loopback interface that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class PostgreSQL:
    """A PostgreSQL server of its own cluster, which can be stopped and started again.

    Raises:
        FileNotFoundError: If PostgreSQL is not installed.
    """

    def __init__(self) -> None:
        self._programs = _postgresql_programs()
        # The server refuses to run as root.
        self._user: dict[str, Any] = {}
        if os.getuid() == 0:
            self._user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        # Not below pytest's folder, which other users cannot enter.
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
        self._port = free_port()
        self._databases = 0
        if self._user:
            shutil.chown(self._folder, "postgres", "postgres")
        self._run("initdb", "--username=optnas", "--auth=trust", "--no-sync", "--encoding=UTF8")
        self.start()

    def start(self) -> None:
        """Start the server, on the same port as before, and wait until it answers."""
        settings = f"-p {self._port} -k {self._folder} -c listen_addresses=127.0.0.1 -F"
        # The server inherits what it is given, and would hold a pipe open.
        log = str(self._folder / "log")
        self._run("pg_ctl", "--wait", f"--log={log}", f"--options={settings}", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` cuts connections off, ``immediate`` is a crash."""
        self._run("pg_ctl", "--wait", f"--mode={mode}", "stop")

    @property
    def pid(self) -> int:
        """The number of the process whose children all others of the server are."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        import psycopg

        self._databases += 1
        name, server = f"optnas{self._databases}", f"optnas@127.0.0.1:{self._port}"
        with psycopg.connect(f"postgresql://{server}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://{server}/{name}"

    def remove(self) -> None:
        """Stop the server and delete everything."""
        with contextlib.suppress(subprocess.CalledProcessError):  # It may be stopped.
            self.stop("immediate")
        shutil.rmtree(self._folder)

    def _run(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, f"--pgdata={self._folder / 'data'}", *arguments]
        subprocess.run(
            command,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._folder,
            **self._user,
        )


class MariaDB:
    """A MariaDB server of its own, which can be stopped and started again.

    Raises:
        FileNotFoundError: If MariaDB is not installed.
    """

    def __init__(self) -> None:
        found = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
        if found is None:
            raise FileNotFoundError("MariaDB is not installed")
        self._program = Path(found)
        self._folder = Path(tempfile.mkdtemp(prefix="mariadb-"))
        self._port = free_port()
        self._databases = 0
        base = self._program.parents[1]
        self._common = [f"--datadir={self._folder / 'data'}", f"--basedir={base}"]
        self._common += [f"--user={getpass.getuser()}"]
        install = [base / "bin" / "mariadb-install-db", "--no-defaults", *self._common]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
        self.start()

    def start(self) -> None:
        """Start the server, on the same port as before, and wait until it answers."""
        places = [f"--port={self._port}", f"--socket={self._folder / 'socket'}"]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    self._program,
                    "--no-defaults",
                    *self._common,
                    *places,
                    "--bind-address=127.0.0.1",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "log").read_text()
            time.sleep(0.1)

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: ``fast`` cuts connections off, ``immediate`` is a crash."""
        if mode == "fast":
            self._process.terminate()
        else:
            self._process.kill()
        self._process.wait()

    def new_database(self) -> str:
        """The URL of a new, empty database."""
        import pymysql

        self._databases += 1
        name = f"optnas{self._databases}"
        with pymysql.connect(host="127.0.0.1", port=self._port, user="root") as connection:
            connection.cursor().execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://root@127.0.0.1:{self._port}/{name}"

    def remove(self) -> None:
        """Stop the server and delete everything."""
        self.stop("immediate")
        shutil.rmtree(self._folder)

    def _answers(self) -> bool:
        import pymysql

        try:
            pymysql.connect(host="127.0.0.1", port=self._port, user="root").close()
        except pymysql.OperationalError:
            return False
        return True


def _postgresql_programs() -> Path:
    """Where the newest installed server's programs are; Debian does not put them on the path."""
    folders = Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")
    newest = max(folders, key=lambda path: int(path.parts[4]), default=None)
    found = newest or shutil.which("pg_ctl")
    if found is None:
        raise FileNotFoundError("PostgreSQL is not installed")
    return Path(found).resolve().parent
