"""The database behind the store: snapshots, writers that wait, what a failure says; a server that comes back."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import pytest

from jobs.spec import InputError, Unavailable
from orchestrator.store import Store, chain, engine, facts, jobs
from orchestrator.store.schema import Job
from tests.unit.orchestrator.store.test_chain import rows, said
from tests.unit.orchestrator.store.test_store import SPEC

if TYPE_CHECKING:
    from tests.postgres import Server

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone.utc)


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    opened = Store(database)
    yield opened
    opened.close()


def test_a_reader_sees_one_moment_whatever_is_written_meanwhile(store: Store) -> None:
    with store.read() as reading:
        assert list(jobs.all_jobs(reading)) == []
        with store.write() as session:
            jobs.submit(session, SPEC, NOW)
        assert list(jobs.all_jobs(reading)) == []
    with store.read() as reading:
        assert len(jobs.all_jobs(reading)) == 1


def test_chains_that_two_append_to_at_once_stay_whole(store: Store) -> None:
    def append(first: int) -> None:
        for n in range(first, first + 40, 4):
            with store.write() as session:
                facts.add_rows(session, rows(4, "a", n))
                facts.add_intensities(session, said(float(n), n))

    writers = [threading.Thread(target=append, args=(first,)) for first in (1, 101, 201)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with store.read() as session:
        found = chain.audit(session)
    assert (found.fault, found.rows, found.intensities) == (None, 120, 30)


def test_a_loss_that_is_no_number_is_kept_as_unknown(store: Store) -> None:
    with store.write() as session:
        jobs.submit(session, SPEC, NOW).metrics = {"loss": math.nan, "parts": [1.5, math.inf]}
    with store.read() as session:
        assert session.get_one(Job, "tiny").metrics == {"loss": None, "parts": [1.5, None]}


def test_what_a_worker_wrote_is_kept_whatever_its_bytes(store: Store) -> None:
    with store.write() as session:
        job = jobs.submit(session, SPEC, NOW)
        jobs.note(session, job, NOW, "torn \0 line \udcff of Größe")
    with store.read() as session:
        assert jobs.history(session, "tiny")[-1].text == "torn \\x00 line \\udcff of Größe"


@pytest.mark.parametrize(
    ("database", "says"),
    [
        ("nonsense", "database: this is no URL of a database; write postgresql://"),
        ("mysql://host/lowtide", "database: mysql is not supported; write postgresql://"),
    ],
)
def test_another_database_is_refused_with_those_that_there_are(database: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Store(database)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(Unavailable) as fault:
        Store("postgresql://me:secret@127.0.0.1:9/lowtide?password=secret")
    line = str(fault.value)
    assert line.startswith("the store postgresql://me@127.0.0.1:9/lowtide does not answer: ")
    assert "refused" in line
    assert line.endswith("start the server, or mend the site file's `database`")
    assert "secret" not in line and "\n" not in line


def test_a_database_or_user_that_is_not_there_is_said_with_the_remedy(postgres_server: Server) -> None:
    for url in (postgres_server.url("nowhere"), postgres_server.url("postgres").replace("lowtide@", "stranger@")):
        with pytest.raises(Unavailable, match="(nowhere|stranger).* does not exist; create it, as README"):
            Store(url)


def test_a_user_who_may_not_make_tables_is_told_who_may(postgres_server: Server) -> None:
    with postgres_server.database() as url:
        postgres_server.execute("CREATE ROLE guest LOGIN")
        with pytest.raises(Unavailable, match=r"make its user the database's owner"):
            Store(url.replace("lowtide@", "guest@"))


def test_a_writer_that_waits_too_long_says_so(postgres_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "BUSY_S", 0.1)
    with postgres_server.database() as url:
        store, other = Store(url), Store(url)
        with store.write() as session:
            jobs.submit(session, SPEC, NOW)
            with pytest.raises(Unavailable, match="lock timeout; another process"), other.write() as waiting:
                jobs.submit(waiting, SPEC, NOW)
        with other.write() as waiting:
            assert jobs.submit(waiting, SPEC, NOW).id == "tiny-2"
        for opened in (store, other):
            opened.close()


def test_a_server_that_restarts_loses_the_transaction_it_broke_and_nothing_else(postgres_server: Server) -> None:
    with postgres_server.database() as url:
        store = Store(url)
        with store.write() as session:
            jobs.submit(session, SPEC, NOW)
        with pytest.raises(Unavailable, match="does not answer"), store.write() as session:
            jobs.submit(session, SPEC, NOW)
            session.flush()
            postgres_server.stop()
        with pytest.raises(Unavailable, match="start the server"), store.read() as session:
            jobs.all_jobs(session)
        postgres_server.start()
        with store.read() as session:
            assert [job.id for job in jobs.all_jobs(session)] == ["tiny"]
        with store.write() as session:
            assert jobs.submit(session, SPEC, NOW).id == "tiny-2"
        store.close()
