"""Actors that share a folder and move one system call at a time, in the order that a test draws.
In: functions, each an actor. Out: `Turns`, which lets one of them do its next call on the file system.
The tests of the fence stall and kill a segment between any two calls by it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

CALLS = ("rename", "replace", "link", "unlink", "rmdir", "mkdir", "listdir", "scandir", "fsync")


class Killed(BaseException):
    """Raised in an actor that is to do nothing more."""


class Actor(threading.Thread):
    """One of them: it waits before each call until it is its turn."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._act = act
        self._turn, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._killed = False
        self.over = False
        self.fault: BaseException | None = None

    def run(self) -> None:
        try:
            self.pause()
            self._act()
        except BaseException as fault:
            self.fault = fault
        self.over = True
        self._waits.release()

    def pause(self) -> None:
        """Wait for the turn; in the actor's thread, before a call."""
        if self._killed:
            raise Killed
        self._waits.release()
        self._turn.acquire()
        if self._killed:
            raise Killed

    def move(self) -> bool:
        """Let it do its next call, and come to the one after; False where it is over."""
        if not self.over:
            self._turn.release()
            self._waits.acquire()
        return not self.over

    def finish(self) -> None:
        """Let it go on to its end; what it raised is raised here."""
        while self.move():
            pass
        if self.fault is not None and not isinstance(self.fault, Killed):
            raise self.fault

    def kill(self) -> None:
        """Let it do nothing more."""
        self._killed = True
        while self.move():
            pass


class Turns:
    """Hooks the calls of actors; all other threads go on as ever."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        for name in CALLS:
            patch.setattr(os, name, _hooked(getattr(os, name), idle=name == "fsync"))

    def begin(self, act: Callable[[], None]) -> Actor:
        """A new actor, which has not done its first call yet."""
        actor = Actor(act)
        actor.start()
        actor._waits.acquire()
        return actor


def _hooked(call: Callable[..., Any], idle: bool) -> Callable[..., Any]:
    def hooked(*arguments: Any, **named: Any) -> Any:
        here = threading.current_thread()
        if isinstance(here, Actor):
            here.pause()
            if idle:  # what a power cut leaves is no matter here, and flushing is slow
                return None
        return call(*arguments, **named)

    return hooked
