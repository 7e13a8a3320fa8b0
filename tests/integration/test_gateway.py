"""The Socket.IO gateway, driven by the stock Python client: subscriptions, identities, refusals, ends."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import jwt
import orjson
import pytest
import socketio
from aiohttp import ClientSession, TCPConnector, web

from tests.support.driving import JobDriver, check_sequence, read_log
from tests.support.timing import scaled
from tidings.protocol import Position, new_job_id
from tidings_server.auth import Authenticator
from tidings_server.gateway import Gateway
from tidings_server.relay import Relay
from tidings_server.sockets import wire
from tidings_tasks.settings import Settings
from tidings_tasks.store import Keyspace, Store, Tenant, Verb

SECRET = "gateway-test-secret-gateway-test-secret"
TRANSPORTS = [["websocket"], ["polling"], ["polling", "websocket"]]


def token(sub: str = "alice", *, ttl_s: float = 3600, **claims: Any) -> str:
    """Make a token."""
    now = time.time()
    return jwt.encode({"sub": sub, "iat": int(now), "exp": now + ttl_s, **claims}, SECRET, "HS256")


@dataclass
class Client:
    """The stock client with a record of what it was sent."""

    sio: socketio.AsyncClient
    got: list[tuple[str, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[list[tuple[str, Any]]], bool]) -> None:
        """Wait until what was received satisfies the condition."""
        async with asyncio.timeout(scaled(20)):
            while not condition(self.got):
                self.changed.clear()
                await self.changed.wait()

    async def until_event(self, name: str) -> Any:
        """Wait for an event of this name and return its data."""
        await self.until(lambda got: any(event == name for event, _ in got))
        return next(data for event, data in self.got if event == name)

    def envelopes(self, job_id: str) -> list[bytes]:
        """The job's live events, as JSON."""
        return [
            orjson.dumps(data)
            for event, data in self.got
            if event.startswith("job:") and data["job_id"] == job_id
        ]

    async def call(self, name: str, body: Any) -> Any:
        """Make a call and return its acknowledgement."""
        return await self.sio.call(name, body, timeout=scaled(15))


class Harness:
    """A gateway on a real port."""

    def __init__(self, gateway: Gateway, relay: Relay, store: Store, port: int) -> None:
        self.gateway = gateway
        self.relay = relay
        self.store = store
        self.url = f"http://127.0.0.1:{port}"
        self._clients: list[Client] = []

    async def connect(self, auth: Any, *, transports: list[str] | None = None) -> Client:
        """Connect a stock client."""
        client = Client(socketio.AsyncClient(reconnection=False))
        self._clients.append(client)

        async def record(event: str, data: Any = None) -> None:
            client.got.append((event, data))
            client.changed.set()

        async def record_end(*_: Any) -> None:
            await record("disconnect")

        async def record_refusal(problem: Any) -> None:
            await record("connect_error", problem)

        client.sio.on("*", record)
        client.sio.on("disconnect", record_end)
        client.sio.on("connect_error", record_refusal)
        await client.sio.connect(self.url, auth=auth, transports=transports or ["websocket"])
        return client

    async def aclose(self) -> None:
        for client in self._clients:
            await client.sio.disconnect()
            await client.sio.shutdown()


@pytest.fixture
def settings() -> Settings:
    """Settings with small bounds."""
    return Settings(jwt_secret=SECRET, send_buffer_bytes=524_288, max_subscriptions=5)  # type: ignore[arg-type]


@pytest.fixture
async def harness(valkey_url: str, keyspace: Keyspace, settings: Settings) -> AsyncIterator[Harness]:
    """A gateway with its relay and store."""
    store = Store(valkey_url, keyspace)
    relay = Relay(store, check_every_s=0.5)
    await relay.start()
    gateway = Gateway(settings, store, relay, Authenticator(settings))
    app = web.Application()
    gateway.attach(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    harness = Harness(gateway, relay, store, runner.addresses[0][1])
    yield harness
    await harness.aclose()
    await gateway.aclose()
    await relay.aclose()
    await runner.cleanup()
    await store.aclose()


@pytest.fixture
def driver(harness: Harness) -> JobDriver:
    """A worker's hands."""
    return JobDriver(harness.store)


@pytest.mark.parametrize("transports", TRANSPORTS, ids="+".join)
async def test_a_watcher_gets_every_event_once_on_each_transport(
    harness: Harness, driver: JobDriver, transports: list[str]
) -> None:
    """From event 1 over WebSocket, polling, and a polling connection that upgrades."""
    claim = await driver.start()
    client = await harness.connect({"token": token()}, transports=transports)
    assert (await client.until_event("hello"))["server"] == harness.gateway.server_id
    ack = await client.call("subscribe", {"job_id": claim.id, "after": "0"})
    assert ack["ok"] is True
    for n in range(40):
        await driver.write(claim, (Verb.PROGRESS, {"percent": n}), (Verb.LOG, {"message": str(n)}))
    await driver.complete(claim, {"answer": 42})
    await client.until_event("job:completed")
    texts = [*map(orjson.dumps, ack["events"]), *client.envelopes(claim.id)]
    events = check_sequence(texts, head=83)
    assert events[-1].data["result"] == {"answer": 42}
    assert harness.relay.watched == 0


async def test_without_a_position_comes_the_job_and_no_events(harness: Harness, driver: JobDriver) -> None:
    """A snapshot at the head; live events follow it directly."""
    claim = await driver.start()
    await driver.progress(claim, 10, 20)
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"job_id": claim.id})
    assert ack["events"] == []
    assert "reset" not in ack
    assert (ack["job"]["status"], ack["job"]["progress"]) == ("running", {"percent": 20})
    assert ack["job"]["position"] == ack["position"]
    await driver.complete(claim)
    await client.until_event("job:completed")
    check_sequence(client.envelopes(claim.id), after=4, head=5)


async def test_a_position_from_before_resumes_right_behind_it(harness: Harness, driver: JobDriver) -> None:
    """The position of one connection continues on another."""
    claim = await driver.start()
    await driver.log(claim, "a", "b", "c")
    client = await harness.connect({"token": token()})
    position = Position.parse((await client.call("subscribe", {"job_id": claim.id}))["position"])
    await client.sio.disconnect()
    await driver.log(claim, "d", "e")
    other = await harness.connect({"token": token()})
    ack = await other.call("subscribe", {"job_id": claim.id, "after": str(position)})
    assert [event["data"]["message"] for event in ack["events"]] == ["d", "e"]
    await driver.complete(claim)
    await other.until_event("job:completed")
    check_sequence([*map(orjson.dumps, ack["events"]), *other.envelopes(claim.id)], after=5, head=8)


async def test_an_unknown_position_is_answered_with_reset(harness: Harness, driver: JobDriver) -> None:
    """A finished job's terminal event is among what applies after the snapshot."""
    claim = await driver.start()
    await driver.complete(claim, "done")
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"job_id": claim.id, "after": "gone:7"})
    assert ack["reset"] is True
    assert ack["job"]["status"] == "completed"
    assert [event["kind"] for event in ack["events"]] == ["completed"]


async def test_a_long_log_overflows_the_ack_and_follows_in_order(harness: Harness, driver: JobDriver) -> None:
    """At most 1,000 events in an ack; the rest follows before anything newer."""
    claim = await driver.start()
    for start in range(0, 2500, 500):
        await driver.log(claim, *(f"{n}" for n in range(start, start + 500)))
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"job_id": claim.id, "after": "0"})
    assert len(ack["events"]) == 1000
    await driver.log(claim, "live")
    await driver.complete(claim)
    await client.until_event("job:completed")
    check_sequence([*map(orjson.dumps, ack["events"]), *client.envelopes(claim.id)], head=2504)


async def test_a_second_ack_comes_behind_what_the_first_subscription_sent(
    harness: Harness, driver: JobDriver
) -> None:
    """A replaced subscription sends nothing any more once the new one is acknowledged, however slow the client."""
    claim = await driver.start()
    for _ in range(3):
        await driver.log(claim, *("x" * 1000 for _ in range(500)))
    await driver.complete(claim)
    call = f'["subscribe",{{"job_id":"{claim.id}","after":"0"}}]'
    other = await harness.connect({"token": token()})
    async with ClientSession(connector=TCPConnector(socket_factory=small_socket)) as session:
        url = harness.url + "/socket.io/?EIO=4&transport=websocket"
        async with asyncio.timeout(scaled(20)), session.ws_connect(url) as wired:
            await wired.send_str(f'40{{"token":"{token()}"}}')
            await wired.send_str("420" + call)
            while not any(connection._backlog for connection in harness.gateway._connections.values()):
                await other.call("unsubscribe", {"feed": "mine"})
            await wired.send_str("421" + call)
            acks, seqs = 0, [0]
            while acks < 2 or seqs[-1] < 1503:
                text = await wired.receive_str()
                if text.startswith("43"):
                    acks, seqs = acks + 1, [event["seq"] for event in orjson.loads(text[3:])[0]["events"]]
                elif text.startswith('42["job:'):
                    assert orjson.loads(text[2:])[1]["seq"] == seqs[-1] + 1
                    seqs.append(seqs[-1] + 1)


def small_socket(info: tuple[Any, ...]) -> socket.socket:
    """A socket that takes little before its reader does, so that the server's side fills up."""
    made = socket.socket(info[0], info[1], info[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return made


async def test_calls_do_not_outrun_a_client_that_reads_nothing(harness: Harness, driver: JobDriver) -> None:
    """Answers are held in bounded memory: behind them, the next calls wait in the client's own connection."""
    claim = await driver.start()
    for _ in range(5):
        await driver.log(claim, *("x" * 10_000 for _ in range(5)))
    _, writer = await asyncio.open_connection("127.0.0.1", int(harness.url.rpartition(":")[2]), limit=1024)
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    writer.write(frame(f'40{{"token":"{token()}"}}'))
    call = f'["subscribe",{{"job_id":"{claim.id}","after":"0"}}]'
    writer.writelines(frame(f"42{number}{call}") for number in range(300))
    other = await harness.connect({"token": token()})
    waiting = 0
    for _ in range(100):
        assert (await other.call("subscribe", {"feed": "mine"}))["ok"] is True
        sockets = harness.gateway._server.eio.sockets.values()
        waiting = max(waiting, *(sum(len(p.data or "") for p in s.queue._queue) for s in sockets))
    assert 0 < waiting <= 2 * 262_144 + 256_000
    writer.transport.abort()
    async with asyncio.timeout(scaled(10)):
        while harness.gateway.connections == 2:
            await other.call("unsubscribe", {"feed": "mine"})


async def test_an_ack_is_bounded_in_bytes(harness: Harness, driver: JobDriver) -> None:
    """Large events make a shorter ack."""
    claim = await driver.start()
    for _ in range(30):
        await driver.write(claim, (Verb.OUTPUT, {"chunk": "x" * 30_000, "stream": "default"}))
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"job_id": claim.id, "after": "0"})
    assert len(orjson.dumps(ack["events"])) <= 257_000
    await driver.complete(claim)
    await client.until_event("job:completed")
    check_sequence([*map(orjson.dumps, ack["events"]), *client.envelopes(claim.id)], head=33)


async def test_a_second_subscribe_replaces_the_first(harness: Harness, driver: JobDriver) -> None:
    """No event comes twice afterwards."""
    claim = await driver.start()
    client = await harness.connect({"token": token()})
    await client.call("subscribe", {"job_id": claim.id})
    ack = await client.call("subscribe", {"job_id": claim.id})
    await driver.complete(claim)
    await client.until_event("job:completed")
    check_sequence(client.envelopes(claim.id), after=Position.parse(ack["position"]).seq, head=3)


async def test_unsubscribe_stops_the_events(harness: Harness, driver: JobDriver) -> None:
    """Nothing comes behind the ack, and the channel is given up."""
    claim = await driver.start()
    other = await driver.start()
    client = await harness.connect({"token": token()})
    for job_id in (claim.id, other.id):
        await client.call("subscribe", {"job_id": job_id})
    assert await client.call("unsubscribe", {"job_id": claim.id}) == {"ok": True}
    await driver.complete(claim)
    await driver.complete(other)
    await client.until_event("job:completed")
    assert client.envelopes(claim.id) == []
    assert harness.relay.watched == 0


async def test_nobody_but_the_owner_may_watch(harness: Harness, driver: JobDriver) -> None:
    """Somebody else's job looks as if it did not exist; org readers and admins may."""
    job_id = await driver.enqueue(Tenant("alice", "acme"))
    missing = new_job_id(0)
    for claims in (
        {"sub": "bob", "org": "acme"},
        {"sub": "alice"},
        {"sub": "alice", "org": "other", "scope": "org:read"},
    ):
        client = await harness.connect({"token": token(**claims)})
        refusals = [await client.call("subscribe", {"job_id": wanted}) for wanted in (job_id, missing)]
        assert refusals[0] == refusals[1]
        assert refusals[0]["error"]["code"] == "job_not_found"
    for claims in (
        {"sub": "alice", "org": "acme"},
        {"sub": "bob", "org": "acme", "scope": "org:read"},
        {"sub": "x", "scope": "admin"},
    ):
        client = await harness.connect({"token": token(**claims)})
        assert (await client.call("subscribe", {"job_id": job_id}))["ok"] is True


@pytest.mark.parametrize(
    ("call", "body", "code", "named"),
    [
        ("subscribe", {"job_id": "nonsense"}, "invalid_input", "job_id"),
        ("subscribe", {"job_id": 7}, "invalid_input", "job_id"),
        ("subscribe", {}, "invalid_input", "job_id"),
        ("subscribe", {"job_id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks99"}, "job_not_found", ""),
        ("subscribe", {"job_id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "after": "x"}, "invalid_input", "after"),
        ("subscribe", {"job_id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "after": 5}, "invalid_input", "after"),
        ("subscribe", {"job_id": "01JD8Z5T6N8Q4W3E2R1T0Y9V8Ks0", "since": "0"}, "invalid_input", "since"),
        ("subscribe", {"feed": "theirs"}, "invalid_input", "feed"),
        ("subscribe", {"feed": ["mine"]}, "invalid_input", "feed"),
        ("subscribe", {"feed": "org"}, "forbidden", "org:read"),
        ("subscribe", {"feed": "all"}, "forbidden", "admin"),
        ("subscribe", {"feed": "mine", "job_id": "x"}, "invalid_input", "feed"),
        ("subscribe", "text", "invalid_input", "object"),
        ("subscribe", None, "invalid_input", "object"),
        ("unsubscribe", {"job_id": 3}, "invalid_input", "job_id"),
        ("authenticate", {"token": 3}, "invalid_input", "token"),
        ("authenticate", {"token": "abc"}, "unauthenticated", ""),
        ("emit_to_all", {"x": 1}, "bad_request", "emit_to_all"),
    ],
)
async def test_a_bad_call_is_refused_and_named(
    harness: Harness, call: str, body: Any, code: str, named: str
) -> None:
    """The refusal says which field and what would be accepted; the connection stays."""
    client = await harness.connect({"token": token()})
    answer = await client.call(call, body)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert named in answer["error"]["detail"]
    assert (await client.call("subscribe", {"feed": "mine"}))["ok"] is True


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        (None, "unauthenticated"),
        ({}, "unauthenticated"),
        ({"token": 5}, "unauthenticated"),
        ({"token": "a.b.c"}, "unauthenticated"),
        ({"token": token(ttl_s=-5)}, "token_expired"),
        ({"token": jwt.encode({"sub": "a", "iat": 1, "exp": 9e9}, "", "none")}, "unauthenticated"),
        ({"token": jwt.encode({"sub": "a", "iat": 1, "exp": 9e9}, "o" * 40, "HS256")}, "unauthenticated"),
    ],
)
async def test_a_connect_without_a_good_token_is_refused_with_its_code(
    harness: Harness, auth: Any, code: str
) -> None:
    """CONNECT_ERROR carries the code as message and the problem as data."""
    with pytest.raises(socketio.exceptions.ConnectionError):
        await harness.connect(auth)
    (client,) = harness._clients
    refusal = await client.until_event("connect_error")
    assert refusal["message"] == code
    assert (refusal["data"]["code"], refusal["data"]["status"]) == (code, 401)
    assert harness.gateway.connections == 0


async def test_a_token_ends_with_a_warning_and_a_word(harness: Harness) -> None:
    """A connection lives no longer than its token."""
    client = await harness.connect({"token": token(ttl_s=1.5)})
    assert (await client.until_event("token:expiring"))["expires_in_s"] <= 1.5
    assert await client.until_event("bye") == {"code": "token_expired"}
    await client.until_event("disconnect")


async def test_a_fresh_token_keeps_the_connection(harness: Harness, driver: JobDriver) -> None:
    """The live connection and its subscriptions go on under the new token."""
    claim = await driver.start()
    client = await harness.connect({"token": token(ttl_s=1.5)})
    await client.call("subscribe", {"job_id": claim.id})
    assert await client.call("authenticate", {"token": token()}) == {"ok": True}
    refused = await client.call("authenticate", {"token": token("bob")})
    assert refused["error"]["code"] == "forbidden"
    other = await harness.connect({"token": token(ttl_s=2)})
    await other.until_event("bye")
    await driver.complete(claim)
    await client.until_event("job:completed")
    assert not any(event == "bye" for event, _ in client.got)


async def test_a_token_with_less_scope_ends_what_it_does_not_allow(
    harness: Harness, driver: JobDriver
) -> None:
    """What was watched by scope alone is watched no more."""
    theirs = await driver.start(Tenant("bob", "acme"))
    mine = await driver.start(Tenant("alice", "acme"))
    client = await harness.connect({"token": token(org="acme", scope="org:read")})
    for body in ({"job_id": theirs.id}, {"job_id": mine.id}, {"feed": "org"}):
        assert (await client.call("subscribe", body))["ok"] is True
    assert await client.call("authenticate", {"token": token(org="acme")}) == {"ok": True}
    await driver.complete(theirs)
    await driver.complete(mine)
    await client.until(
        lambda got: any(data["job_id"] == mine.id for event, data in got if event == "job:completed")
    )
    assert client.envelopes(theirs.id) == []
    assert not any(event == "feed:event" for event, _ in client.got)


async def test_a_feed_gives_open_jobs_and_what_changes(harness: Harness, driver: JobDriver) -> None:
    """Lifecycle events are numbered; progress is thinned out and has no position."""
    claim = await driver.start()
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"feed": "mine"})
    assert [job["id"] for job in ack["jobs"]] == [claim.id]
    for n in range(100):
        await driver.progress(claim, n)
    await client.until_event("feed:event")
    await driver.complete(claim)
    await client.until(
        lambda got: any(d["event"]["kind"] == "completed" for e, d in got if e == "feed:event")
    )
    sent = [data for event, data in client.got if event == "feed:event"]
    assert all(data["feed"] == "mine" for data in sent)
    assert len(sent) < 20
    numbered = [data for data in sent if data["position"] is not None]
    assert [data["event"]["kind"] for data in numbered] == ["completed"]
    resumed = await client.call("subscribe", {"feed": "mine", "after": ack["position"]})
    assert resumed["events"] == numbered
    assert resumed["jobs"] == []


async def test_subscriptions_are_bounded(harness: Harness, driver: JobDriver) -> None:
    """One connection can't watch without end; giving one up makes room."""
    ids = [await driver.enqueue() for _ in range(6)]
    client = await harness.connect({"token": token()})
    answers = [await client.call("subscribe", {"job_id": job_id}) for job_id in ids]
    assert [answer["ok"] for answer in answers] == [True] * 5 + [False]
    assert answers[5]["error"]["code"] == "rate_limited"
    await client.call("unsubscribe", {"job_id": ids[0]})
    assert (await client.call("subscribe", {"job_id": ids[5]}))["ok"] is True


async def test_a_draining_server_says_so_and_takes_nobody_new(harness: Harness) -> None:
    """Clients are told when to reconnect, then closed; a new connect is refused."""
    client = await harness.connect({"token": token()})
    await harness.gateway.drain(grace_s=0.2)
    assert (await client.until_event("server:draining"))["reconnect_in_ms"] > 0
    assert await client.until_event("bye") == {"code": "server_draining"}
    await client.until_event("disconnect")
    with pytest.raises(socketio.exceptions.ConnectionError):
        await harness.connect({"token": token()})
    assert (await harness._clients[-1].until_event("connect_error"))["message"] == "server_draining"


async def test_the_log_and_the_socket_agree(harness: Harness, driver: JobDriver) -> None:
    """A live watcher's events are the log's, but for folded progress."""
    claim = await driver.start()
    client = await harness.connect({"token": token()})
    ack = await client.call("subscribe", {"job_id": claim.id, "after": "0"})
    await driver.progress(claim, 1, 2, 3)
    await driver.log(claim, "x")
    await driver.complete(claim)
    await client.until_event("job:completed")
    live = check_sequence([*map(orjson.dumps, ack["events"]), *client.envelopes(claim.id)], head=7)
    by_seq = {event.seq: event for event in live}
    for event in await read_log(harness.store, claim.id):
        assert event.model_copy(update={"prev": None}) == by_seq[event.seq]


def test_the_seams_we_use_exist() -> None:
    """The installed versions have what the gateway overrides."""
    wire.check_seams()


async def test_a_client_that_reads_nothing_is_cut_off_and_nobody_else_notices(
    harness: Harness, driver: JobDriver
) -> None:
    """What waits for it is bounded; then it is closed, and the others have every event."""
    claim = await driver.start()
    good = await harness.connect({"token": token()})
    await good.call("subscribe", {"job_id": claim.id})
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", int(harness.url.rpartition(":")[2]), limit=1024
    )
    try:
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        writer.write(
            frame(f'40{{"token":"{token()}"}}') + frame(f'420["subscribe",{{"job_id":"{claim.id}"}}]')
        )
        async with asyncio.timeout(scaled(10)):
            while b'430[{"ok":true' not in await reader.read(1000):
                pass
        assert harness.gateway.connections == 2
        waiting = 0
        while harness.gateway.connections == 2:
            await driver.write(claim, *[(Verb.OUTPUT, {"chunk": "x" * 60_000, "stream": "s"})] * 5)
            waiting = max(waiting, *(c._backlog_bytes for c in harness.gateway._connections.values()))
        assert waiting <= 524_288 + 70_000
        await driver.complete(claim)
        await good.until_event("job:completed")
        assert (
            len(good.envelopes(claim.id))
            == Position.parse((await read_log(harness.store, claim.id))[-1].position).seq - 2
        )
    finally:
        writer.close()


@pytest.mark.parametrize(
    "packet",
    [
        '451-["x",{"_placeholder":true,"num":0}]',
        "4",
        "49",
        "42",
        "42{",
        "42[]",
        "42[1]",
        "4\x00",
        "42" + "[" * 30_000,
        "40/x" * 9,
        "9",
        "x",
        "b####",
    ],
    ids=lambda text: repr(text[:12]),
)
async def test_a_hostile_packet_ends_at_most_its_own_connection(harness: Harness, packet: str) -> None:
    """Whatever is sent, before or after CONNECT, the server goes on serving."""
    port = int(harness.url.rpartition(":")[2])
    for connect in (b"", frame(f'40{{"token":"{token()}"}}')):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        writer.write(connect + frame(packet))
        await writer.drain()
        client = await harness.connect({"token": token()})
        assert (await client.call("subscribe", {"feed": "mine"}))["ok"] is True
        await client.sio.disconnect()
        writer.close()


async def test_a_connection_that_never_connects_is_closed(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An open socket without CONNECT has a deadline."""
    monkeypatch.setattr(wire, "CONNECT_DEADLINE_S", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(harness.url.rpartition(":")[2]))
    writer.write(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    async with asyncio.timeout(scaled(10)):
        while chunk := await reader.read(1000):
            if chunk.endswith(b"\x88\x02\x03\xe8"):
                break
    writer.close()


@pytest.mark.parametrize("packet", ['420["disconnect"]', '420["connect",{},{"token":"x"}]', "9", "x"])
async def test_a_client_that_breaks_the_protocol_is_forgotten(harness: Harness, packet: str) -> None:
    """Forged connects and disconnects, and packets of no type, end the connection before the client sees it close."""
    async with ClientSession() as session:
        url = harness.url + "/socket.io/?EIO=4&transport=websocket"
        async with asyncio.timeout(scaled(10)), session.ws_connect(url) as wired:
            await wired.send_str(f'40{{"token":"{token()}"}}')
            await wired.send_str('421["subscribe",{"feed":"mine"}]')
            while not (await wired.receive_str()).startswith("431"):
                pass
            assert harness.gateway.connections == 1
            await wired.send_str(packet)
            while not (await wired.receive()).type.name.startswith("CLOS"):
                pass
    assert harness.gateway.connections == 0


async def test_a_client_that_left_without_closing_has_the_deadline_again(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DISCONNECT frees the connection's place, so the transport below may not stay open for nothing."""
    monkeypatch.setattr(wire, "CONNECT_DEADLINE_S", 0.2)
    async with ClientSession() as session:
        url = harness.url + "/socket.io/?EIO=4&transport=websocket"
        async with asyncio.timeout(scaled(10)), session.ws_connect(url) as wired:
            await wired.send_str(f'40{{"token":"{token()}"}}')
            while not (await wired.receive_str()).startswith('42["hello"'):
                pass
            await wired.send_str("41")
            while not (await wired.receive()).type.name.startswith("CLOS"):
                pass


async def test_another_sites_page_may_not_connect(harness: Harness) -> None:
    """The Origin header is checked before anything else."""
    async with ClientSession() as session:
        url = harness.url + "/socket.io/?EIO=4&transport=polling"
        async with session.get(url, headers={"Origin": "https://evil.example"}) as answer:
            assert answer.status == 400
        async with session.get(url, headers={"Origin": harness.url}) as answer:
            assert answer.status == 200


def frame(text: str) -> bytes:
    """A masked text frame (RFC 6455), with a mask of zeros."""
    data = text.encode()
    length = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + data


async def test_a_refused_second_subscribe_leaves_the_first_alone(harness: Harness, driver: JobDriver) -> None:
    """Only a subscription that succeeds replaces another one."""
    claim = await driver.start()
    client = await harness.connect({"token": token()})
    await client.call("subscribe", {"job_id": claim.id})
    assert (await client.call("subscribe", {"job_id": claim.id, "after": "x"}))["ok"] is False
    await driver.complete(claim)
    await client.until_event("job:completed")
    check_sequence(client.envelopes(claim.id), after=2, head=3)


async def test_a_live_watcher_of_lost_history_is_told_to_begin_anew(
    harness: Harness, driver: JobDriver, keyspace: Keyspace
) -> None:
    """The position of `job:reset` is the one on which the events behind it follow."""
    claim = await driver.start()
    client = await harness.connect({"token": token()})
    key = f"{keyspace.shard(0)}:j:{claim.id}"
    names = (key, key.replace(":j:", ":e:"))
    before = {name: await harness.store._redis.dump(name) for name in names}
    await client.call("subscribe", {"job_id": claim.id})
    await driver.log(claim, "lost", "lost too")
    await client.until(lambda got: sum(event == "job:log" for event, _ in got) == 2)
    for name in names:
        if before[name] is None:
            await harness.store._redis.delete(name)
        else:
            await harness.store._redis.restore(name, 0, before[name], replace=True)
    # The numbers of the lost writes are free again for the store, not for this worker.
    await driver.complete(claim, "after")
    reset = await client.until_event("job:reset")
    await client.until_event("job:completed")
    at = Position.parse(reset["position"]).seq
    check_sequence(client.envelopes(claim.id)[-1:], after=at, head=3)
    assert reset["job"]["status"] == "completed"
