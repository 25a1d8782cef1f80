"""Who is here, and telling everybody what changed. Edits themselves go over HTTP."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect

_QUEUE = 256
_MOST_MESSAGE = 4096
_MOST_CLIENTS = 200


@dataclass(eq=False)
class _Client:
    socket: WebSocket
    episode: str
    user: str
    state: dict[str, Any] = field(default_factory=dict)
    queue: asyncio.Queue[str] = field(default_factory=lambda: asyncio.Queue(_QUEUE))


class Hub:
    """WebSockets of one server, grouped by episode."""

    def __init__(self) -> None:
        self._clients: set[_Client] = set()

    def people(self, episode: str) -> set[str]:
        """Who is on an episode."""
        return {client.user for client in self._clients if client.episode == episode}

    def broadcast(self, episode: str, message: dict[str, Any], to: set[str] | None = None) -> None:
        """Queue a message for everybody on an episode, or those named; on the server's loop.

        A client too slow to take it is dropped: on reconnecting it reads the state anew.
        """
        text = json.dumps(message, separators=(",", ":"))
        for client in list(self._clients):
            if client.episode == episode and (to is None or client.user in to):
                try:
                    client.queue.put_nowait(text)
                except asyncio.QueueFull:
                    self._clients.discard(client)

    async def serve(self, socket: WebSocket, episode: str, user: str) -> None:
        """Keep one connection until it ends."""
        if len(self._clients) >= _MOST_CLIENTS:
            await socket.close(1013, "too many connections")
            return
        await socket.accept()
        client = _Client(socket, episode, user)
        self._clients.add(client)
        self._tell_presence(episode)
        sender = asyncio.create_task(self._send(client))
        try:
            while client in self._clients:
                text = await socket.receive_text()
                if len(text) <= _MOST_MESSAGE:
                    self._take(client, text)
        except WebSocketDisconnect:
            pass
        finally:
            sender.cancel()
            self._clients.discard(client)
            self._tell_presence(episode)

    def _take(self, client: _Client, text: str) -> None:
        try:
            state = json.loads(text)
        except ValueError:
            return
        if isinstance(state, dict):
            client.state = {k: state[k] for k in ("t", "selection", "layer") if k in state}
            self._tell_presence(client.episode)

    def _tell_presence(self, episode: str) -> None:
        here = [c for c in self._clients if c.episode == episode]
        people = [{"user": c.user, **c.state} for c in here]
        self.broadcast(episode, {"type": "presence", "people": people})

    async def _send(self, client: _Client) -> None:
        while True:
            await client.socket.send_text(await client.queue.get())
