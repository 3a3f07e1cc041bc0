"""A grid on loopback: a server that speaks the Electricity Maps API (v3 and v4) and replays traces in real time.
In: a replay for each zone. Out: HTTP answers, labelled as a replay, until it is stopped.
The electricity_maps provider asks it as it asks the real one: demos, tests and trials run on it.
"""

from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from jobs.spec import Unavailable
from orchestrator.grid_answers import ANSWERS, Ask, Refused, access
from orchestrator.replay import Replay

_START_S = 10.0


def make_app(replays: Mapping[str, Replay], token: str | None = None) -> FastAPI:
    """The server for zones by name; where `token` is given, every question about intensity must carry it."""
    app = FastAPI(title="lowtide grid", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(Refused)
    async def refused(request: Request, fault: Refused) -> JSONResponse:
        return JSONResponse({"error": fault.text}, fault.status)

    @app.exception_handler(HTTPException)
    async def no_route(request: Request, fault: HTTPException) -> JSONResponse:
        return JSONResponse({"message": "no Route matched with those values"}, fault.status_code)

    @app.get("/health")
    async def health() -> dict[str, Any]:
        slots = {zone: {"slot_s": replay.slot_s, "speed": replay.speed} for zone, replay in replays.items()}
        return {"status": "ok", "_disclaimer": "replayed trace, not live data", "zones": slots}

    @app.get("/{version}/zones")
    async def zones(version: str) -> dict[str, Any]:
        _check_version(version)
        return {
            zone: {"zoneName": f"{zone} ({replay.trace.note})", "zoneKey": zone, "access": access(replay)}
            for zone, replay in replays.items()
        }

    @app.get("/{version}/{signal}/{what}")
    async def signal(version: str, signal: str, what: str, request: Request) -> JSONResponse:
        _check_version(version)
        if signal not in ANSWERS:
            raise HTTPException(404)
        answers = ANSWERS[signal]
        if what not in answers:
            raise Refused(404, f"Expected one of {', '.join(answers)}")
        given = request.headers.get("auth-token", "")
        if token is not None and not secrets.compare_digest(given.encode(), token.encode()):
            raise Refused(401, "Invalid auth-token")
        zone = request.query_params.get("zone") or request.query_params.get("zoneKey")
        if zone is None:
            raise Refused(400, 'Missing parameter "zone"')
        if zone not in replays:
            raise Refused(404, f'Zone "{zone}" does not exist; this server replays {", ".join(replays)}')
        now = datetime.now(timezone.utc)
        envelope = {"zone": zone, **answers[what](Ask(zone, replays[zone], request.query_params, now))}
        envelope["_disclaimer"] = replays[zone].trace.note
        return JSONResponse(envelope, headers={"Cache-Control": f"max-age={_left_s(replays[zone], now)}"})

    return app


def _check_version(version: str) -> None:
    if version not in {"v3", "v4"}:
        raise HTTPException(404)


def _left_s(replay: Replay, now: datetime) -> int:
    return int(replay.slot_s - now.timestamp() % replay.slot_s)


@dataclass
class GridServer:
    """A server that runs in a thread of this process; `with` stops it."""

    url: str
    """The address to give as providers.electricity_maps.base_url."""
    _server: Any
    _thread: threading.Thread
    _socket: socket.socket = field(repr=False)

    def stop(self) -> None:
        """Stop serving and wait for the thread; a second call does nothing."""
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> GridServer:
        return self

    def __exit__(self, *fault: object) -> None:
        self.stop()


def start(
    replays: Mapping[str, Replay], host: str = "127.0.0.1", port: int = 0, token: str | None = None
) -> GridServer:
    """Serve in a thread and return once it answers; port 0 takes a free one. Unavailable where the port is taken."""
    bound = _bind(host, port)
    server = _server(make_app(replays, token))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="lowtide-grid", daemon=True)
    thread.start()
    grid = GridServer(_url(bound), server, thread, bound)
    waited = threading.Event()
    for _ in range(int(_START_S / 0.02)):
        if server.started or not thread.is_alive():
            break
        waited.wait(0.02)
    if not server.started:
        grid.stop()
        raise Unavailable(f"the grid server did not start on {grid.url}; try another port")
    return grid


def serve(replays: Mapping[str, Replay], host: str = "127.0.0.1", port: int = 8700, token: str | None = None) -> None:
    """Serve in the foreground until interrupted. Unavailable where the port is taken."""
    with _bind(host, port) as bound:
        _server(make_app(replays, token)).run(sockets=[bound])


def _server(app: FastAPI) -> Any:
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off"))


def _bind(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as fault:
        raise Unavailable(f"the grid server cannot listen on {host}:{port} ({fault}); choose another --port") from None


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}/v4" if ":" in host else f"http://{host}:{port}/v4"
