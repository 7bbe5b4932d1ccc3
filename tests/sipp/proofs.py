"""What SIPp, as Debian builds it, cannot say or see: broken messages, a 200 that comes twice, TLS and WebSocket."""

import base64
import os
import random
import re
import socket
import ssl
import struct
import time

SDP = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=audio 40000 RTP/AVP 0\r\n"


def word():
    return f"{random.getrandbits(48):x}"


class Phone:
    """One side of a conversation, message by message."""

    def __init__(self, send, receive, transport, at):
        self.send_octets, self.receive, self.transport, self.at = send, receive, transport, at

    def request(self, method, to, cseq, dialog, headers=(), body="", branch=None):
        name = f"sip:{self.at}" + ("" if self.transport == "UDP" else f";transport={self.transport.lower()}")
        rows = [f"{method} {to} SIP/2.0", f"Via: SIP/2.0/{self.transport} {self.at};rport;branch=z9hG4bK{branch or word()}"]
        rows += [f"From: <sip:proof@{self.at}>;tag={dialog['from']}", f"To: <{to}>" + dialog.get("to", "")]
        rows += [f"Call-ID: {dialog['id']}", f"CSeq: {cseq} {method}", f"Contact: <{name}>", "Max-Forwards: 70", *headers]
        self.say(rows, body)

    def say(self, rows, body=""):
        kind = ["Content-Type: application/sdp"] if body else []
        text = "\r\n".join([*rows, *kind, f"Content-Length: {len(body)}"]) + "\r\n\r\n" + body
        self.send_octets(text.encode())

    def answer(self, request, status, body="", tag="", headers=()):
        rows = [f"SIP/2.0 {status} Whatever"]
        for name in ("Via", "Record-Route", "From", "To", "Call-ID", "CSeq"):
            rows += [f"{name}: {value}" for value in header(request, name)]
        rows = [row + tag if row.startswith("To:") else row for row in rows]
        contact = [] if any(row.startswith("Contact") for row in headers) else [f"Contact: <sip:{self.at}>"]
        self.say([*rows, *contact, *headers], body)

    def final(self, seconds=5):
        """The next response that is none of 100-199."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            text = self.receive(max(0.05, until - time.monotonic()))
            if text is None:
                break
            if text.startswith("SIP/2.0 ") and not text.startswith("SIP/2.0 1"):
                return text
        return ""

    def hear(self, start, seconds=5):
        """The next message that begins so."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            text = self.receive(max(0.05, until - time.monotonic()))
            if text is None:
                break
            if text.startswith(start):
                return text
        return ""

    def call(self, number, server):
        """INVITE, ACK and BYE; what went wrong, if anything."""
        dialog = {"id": word(), "from": word()}
        to = f"sip:{number}@{server}"
        self.request("INVITE", to, 1, dialog, body=SDP)
        answer = self.final()
        if not answer.startswith("SIP/2.0 200"):
            return f"INVITE got {answer[:60]!r}"
        contact = re.search(r"<(.*)>", header(answer, "Contact")[0]).group(1)
        dialog["to"] = ";tag=" + header(answer, "To")[0].split("tag=")[1]
        self.request("ACK", to, 1, dialog)
        self.request("BYE", to, 2, dialog)
        answer = self.final()
        return "" if answer.startswith("SIP/2.0 200") else f"BYE to {contact} got {answer[:60]!r}"


def header(text, name):
    return [line.split(":", 1)[1].strip() for line in text.split("\r\n") if line.lower().startswith(name.lower() + ":")]


def udp(bed, address, server=None):
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(address)
    peer = [server]

    def receive(seconds):
        sock.settimeout(seconds)
        try:
            octets, source = sock.recvfrom(65535)
        except TimeoutError:
            return None
        peer[0] = peer[0] or source
        return octets.decode(errors="replace")

    at = "{}:{}".format(*sock.getsockname())
    return Phone(lambda octets: sock.sendto(octets, peer[0]), receive, "UDP", at)


def over_tls(bed, row):
    """A call over TLS, with the certificate checked."""
    context = ssl.create_default_context(cafile=str(bed.here.parent / "tls/ca.pem"))
    raw = socket.create_connection(("127.0.0.1", bed.ports[1]), source_address=("127.0.0.1", 0))
    stream = context.wrap_socket(raw, server_hostname="127.0.0.1")
    wrong = Phone(stream.sendall, stream_reader(stream), "TLS", "{}:{}".format(*stream.getsockname())).call("100", f"127.0.0.1:{bed.ports[1]}")
    stream.close()
    return not wrong, wrong


def stream_reader(stream):
    held = b""

    def receive(seconds):
        nonlocal held
        stream.settimeout(seconds)
        while True:
            head, found, rest = held.partition(b"\r\n\r\n")
            length = re.search(rb"(?im)^content-length: *(\d+)", head) if found else None
            if length and len(rest) >= int(length.group(1)):
                size = int(length.group(1))
                held = rest[size:]
                return (head + found + rest[:size]).decode(errors="replace")
            try:
                more = stream.recv(65536)
            except TimeoutError:
                return None
            if not more:
                return None
            held += more

    return receive


def over_ws(bed, row):
    """A call over WebSocket (RFC 7118); a handshake without the subprotocol is refused."""
    server = f"127.0.0.1:{bed.ports[2]}"
    _, refused = ws_connect(bed.ports[2], None)
    if refused.startswith("HTTP/1.1 101"):
        return False, "a handshake without Sec-WebSocket-Protocol was taken"
    sock, said = ws_connect(bed.ports[2], "sip")
    if not said.startswith("HTTP/1.1 101") or "sec-websocket-protocol: sip" not in said.lower():
        return False, f"the handshake got {said!r}"
    wrong = Phone(lambda octets: ws_send(sock, octets), lambda seconds: ws_receive(sock, seconds), "WS", f"{word()}.invalid").call("100", server)
    sock.close()
    return not wrong, wrong


def ws_connect(port, protocol):
    sock = socket.create_connection(("127.0.0.1", port))
    sock.settimeout(5)
    rows = ["GET / HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
    rows += ["Sec-WebSocket-Key: " + base64.b64encode(os.urandom(16)).decode()]
    rows += [f"Sec-WebSocket-Protocol: {protocol}"] if protocol else []
    sock.sendall(("\r\n".join(rows) + "\r\n\r\n").encode())
    said = b""
    try:
        while b"\r\n\r\n" not in said:
            more = sock.recv(1)
            if not more:
                break
            said += more
    except OSError:
        pass
    return sock, said.decode(errors="replace")


def ws_send(sock, octets):
    mask = os.urandom(4)
    head = bytes([0x81]) + (bytes([0x80 | len(octets)]) if len(octets) < 126 else bytes([0xFE]) + struct.pack(">H", len(octets)))
    sock.sendall(head + mask + bytes(octet ^ mask[at % 4] for at, octet in enumerate(octets)))


def ws_receive(sock, seconds):
    sock.settimeout(seconds)
    try:
        first, length = sock.recv(2, socket.MSG_WAITALL)
        if length == 126:
            (length,) = struct.unpack(">H", sock.recv(2, socket.MSG_WAITALL))
        body = sock.recv(length, socket.MSG_WAITALL)
    except (OSError, ValueError):
        return None
    return body.decode(errors="replace") if first & 0x0F in (1, 2) else ""


def broken_messages(bed, row):
    """Messages that are wrong in one thing get the answer of RFC 3261 and RFC 4475, or none."""
    server = ("127.0.0.1", bed.ports[0])
    phone = udp(bed, ("127.0.0.1", 0), server)
    uri = "sip:100@127.0.0.1:%d" % bed.ports[0]
    wrong = []

    def good(method="OPTIONS"):
        return {
            "": f"{method} {uri} SIP/2.0",
            "Via": f"SIP/2.0/UDP {phone.at};rport;branch=z9hG4bK{word()}",
            "From": f"<sip:proof@{phone.at}>;tag={word()}",
            "To": f"<{uri}>",
            "Call-ID": word(),
            "CSeq": f"1 {method}",
            "Contact": f"<sip:{phone.at}>",
            "Max-Forwards": "70",
            "Content-Length": "0",
        }

    for about, change, status in (
        ("a good one", {}, 200),
        ("lower case, compact names", {"Via": None, "v": f"sip/2.0/udp {phone.at};branch=z9hG4bK{word()};rport"}, 200),
        ("no hops left, for the last one", {"Max-Forwards": "0"}, 200),
        ("tel", {"": "OPTIONS tel:+15550100 SIP/2.0"}, 200),
        ("no To", {"To": None}, 400),
        ("no From", {"From": None}, 400),
        ("no Call-ID", {"Call-ID": None}, 400),
        ("no CSeq", {"CSeq": None}, 400),
        ("another method in CSeq", {"CSeq": "1 INVITE"}, 400),
        ("a CSeq beyond all bounds", {"CSeq": "36893488147419103232 OPTIONS"}, 400),
        ("a CSeq that is no number", {"CSeq": "x OPTIONS"}, 400),
        ("hops beyond all bounds", {"Max-Forwards": "300"}, 400),
        ("hops that are no number", {"Max-Forwards": "many"}, 400),
        ("a negative length", {"Content-Length": "-9"}, 400),
        ("a length beyond the datagram", {"Content-Length": "900"}, 400),
        ("a To that is broken", {"To": "<sip:100@127.0.0.1"}, 400),
        ("a quote that does not end", {"From": '"proof <sip:proof@127.0.0.1>;tag=1'}, 400),
        ("another version", {"": f"OPTIONS {uri} SIP/7.0"}, 505),
        ("a scheme nobody knows", {"": "OPTIONS nobodyKnowsThisScheme:x SIP/2.0"}, 416),
        ("a method nobody knows", {"": f"!interesting-Method0123456789_*+`.%indeed'~ {uri} SIP/2.0", "CSeq": "1 !interesting-Method0123456789_*+`.%indeed'~"}, 501),
        ("an extension nobody knows", {"Require": "nothingSupportsThis, nothingSupportsThisEither"}, 420),
        ("a response nobody asked for", {"": "SIP/2.0 200 OK"}, None),
        ("keep-alive", {"": None}, None),
    ):
        rows = {**good(), **change}
        first = rows.pop("")
        lines = [f"{name}: {value}" for name, value in rows.items() if value is not None]
        text = "\r\n".join([first, *lines]) + "\r\n\r\n" if first else "\r\n\r\n"
        # Refusals without state are counted, ten a second.
        time.sleep(0.12)
        phone.send_octets(text.encode())
        said = phone.final(2 if status else 0.3)
        got = int(said.split()[1]) if said else None
        if got != status:
            wrong.append(f"{about}: {got}, not {status}")
    phone.send_octets("\r\n".join(f"{n}: {v}" if n else v for n, v in good().items()).replace("\r\n", "\n").encode() + b"\n\n")
    if not phone.final(2).startswith("SIP/2.0 200"):
        wrong.append("line ends without CR are not taken")
    wrong += [f"a call after all that: {why}" for why in [phone.call("100", "127.0.0.1:%d" % bed.ports[0])] if why]
    return not wrong, "\n".join(wrong)


def answers_again(bed, row):
    """The 200 comes again though it was acknowledged: it is acknowledged again, and the call goes on."""
    phone = udp(bed, (f"127.0.5.{row.slot}", bed.ports[3]))
    dialled = bed.api("/calls", {"to": "+15550100199", "trunk": f"far-{row.slot}", "organization": "acme", "assistant": "reception"})
    invite = phone.hear("INVITE")
    for _ in range(3):
        phone.answer(invite, 200, SDP, ";tag=callee")
        if not phone.hear("ACK", 2):
            return False, "no ACK"
        time.sleep(0.2)
    number = header(invite, "Call-ID")[0]
    ours = header(invite, "From")[0]
    phone.say(["BYE sip:x SIP/2.0".replace("sip:x", re.search(r"<(.*)>", header(invite, "Contact")[0]).group(1)), f"Via: SIP/2.0/UDP {phone.at};rport;branch=z9hG4bK{word()}", f"From: {header(invite, 'To')[0]};tag=callee", f"To: {ours}", f"Call-ID: {number}", "CSeq: 1 BYE", "Max-Forwards: 70"])
    if not phone.final().startswith("SIP/2.0 200"):
        return False, "BYE was not answered"
    return closed(bed, dialled["id"], "completed", 3)


def answers_too_late(bed, row):
    """The 200 crosses our CANCEL: ACK and BYE, and the record is closed at once."""
    phone = udp(bed, (f"127.0.5.{row.slot}", bed.ports[3]))
    dialled = bed.api("/calls", {"to": "+15550100199", "trunk": f"far-{row.slot}", "organization": "acme", "assistant": "reception", "timeout_s": 1})
    invite = phone.hear("INVITE")
    phone.answer(invite, 180, tag=";tag=callee")
    cancel = phone.hear("CANCEL")
    # The record says what it will say before the callee says anything more.
    ok, why = closed(bed, dialled["id"], "no_answer", 1)
    if not (cancel and ok):
        return False, why or "no CANCEL"
    phone.answer(invite, 200, SDP, ";tag=callee")
    phone.answer(cancel, 200, tag=";tag=callee")
    if not phone.hear("ACK", 2):
        return False, "no ACK"
    bye = phone.hear("BYE", 2)
    if not bye:
        return False, "no BYE"
    phone.answer(bye, 200)
    return True, ""


def listen_first(bed, row):
    return udp(bed, (f"127.0.5.{row.slot}", bed.ports[3]))


def number_of(request):
    return int(header(request, "CSeq")[0].split()[0])


def registers(bed, row):
    """The server registers: 401, 423, a binding, and its refresh, under one Call-ID with numbers that grow."""
    phone, seen = row.state, []
    for status, headers in (
        (401, ['WWW-Authenticate: Digest realm="far", nonce="n1", algorithm=MD5, qop="auth"']),
        (423, ["Min-Expires: 14"]),
        (200, None),
        (200, None),
    ):
        register = phone.hear("REGISTER", 16)
        while register and seen and number_of(register) == seen[-1][1]:
            register = phone.hear("REGISTER", 16)
        if not register:
            return False, f"no REGISTER after {len(seen)}"
        asked = header(register, "Expires") or re.findall(r"expires=(\d+)", header(register, "Contact")[0])
        seen.append((header(register, "Call-ID")[0], number_of(register), asked[0], header(register, "Authorization")))
        granted = [f"Contact: {header(register, 'Contact')[0].split(';expires')[0]};expires=14"]
        rows = granted if headers is None else headers
        text = [f"SIP/2.0 {status} Whatever"] + [f"{n}: {v}" for n in ("Via", "From", "Call-ID", "CSeq") for v in header(register, n)]
        phone.say([*text, f"To: {header(register, 'To')[0]};tag=registrar", *rows])
    calls, numbers, asked, proof = zip(*seen)
    if len(set(calls)) != 1 or list(numbers) != sorted(set(numbers)):
        return False, f"Call-ID or CSeq do not go on: {seen}"
    if not proof[1] or 'username="carol"' not in proof[1][0]:
        return False, f"the challenge was not answered: {proof}"
    return int(asked[2]) >= 14, f"the 423 was not heeded: {asked}"


def replaces(bed, row):
    """An INVITE with Replaces takes the place of a call: 200 to the new one, BYE to the old one (RFC 3891)."""
    server = "127.0.0.1:%d" % bed.ports[0]
    to = f"sip:100@{server}"
    old, new = udp(bed, ("127.0.0.1", 0), ("127.0.0.1", bed.ports[0])), udp(bed, ("127.0.0.8", 0), ("127.0.0.1", bed.ports[0]))
    first, second = {"id": word(), "from": word()}, {"id": word(), "from": word()}
    old.request("INVITE", to, 1, first, body=SDP)
    answer = old.final()
    if not answer.startswith("SIP/2.0 200"):
        return False, f"the first INVITE got {answer[:60]!r}"
    tag = header(answer, "To")[0].split("tag=")[1]
    first["to"] = f";tag={tag}"
    old.request("ACK", to, 1, first)
    time.sleep(0.3)
    named = f"Replaces: {first['id']};to-tag={tag};from-tag={first['from']}"
    new.request("INVITE", to, 1, second, ["Require: replaces", named], SDP)
    answer = new.final()
    if not answer.startswith("SIP/2.0 200"):
        return False, f"the INVITE with Replaces got {answer[:60]!r}"
    second["to"] = ";tag=" + header(answer, "To")[0].split("tag=")[1]
    new.request("ACK", to, 1, second)
    bye = old.hear("BYE", 3)
    if not bye:
        return False, "the old call got no BYE"
    old.answer(bye, 200)
    new.request("BYE", to, 2, second)
    return new.final().startswith("SIP/2.0 200"), "the new call got no 200 to its BYE"


def dialled(bed, row, **more):
    wanted = {"to": "+15550100199", "trunk": f"far-{row.slot}", "organization": "acme", "assistant": "reception"}
    return bed.api("/calls", {**wanted, **more})


def overloaded_then_fine(bed, row):
    """A peer that was overloaded, silent or unreachable a moment ago is called again when there is no other."""
    phone = listen_first(bed, row)
    call = dialled(bed, row)
    invite = phone.hear("INVITE")
    phone.answer(invite, 503, tag=";tag=full", headers=["Retry-After: 120"])
    ok, why = closed(bed, call["id"], "failed", 3)
    if not (ok and phone.hear("ACK", 2)):
        return False, f"503: {why}"
    call = dialled(bed, row, timeout_s=2)
    silent = phone.hear("INVITE", 2)
    if not silent:
        return False, "nobody is called after the 503"
    ok, why = closed(bed, call["id"], "no_answer", 4)
    if not ok:
        return False, f"silence: {why}"
    call = dialled(bed, row)
    fresh = phone.hear("INVITE", 2)
    while fresh and header(fresh, "Call-ID") == header(silent, "Call-ID"):
        fresh = phone.hear("INVITE", 2)
    if not fresh:
        return False, "nobody is called after the silence"
    phone.answer(fresh, 486, tag=";tag=busy")
    return closed(bed, call["id"], "busy", 5)


def redirects(bed, row):
    """3xx where the trunk permits it: to its own hosts only, the best first, and no place twice."""
    phone = listen_first(bed, row)
    call = dialled(bed, row)
    first = phone.hear("INVITE")
    at = f"127.0.5.{row.slot}:{bed.ports[3]}"
    places = ["Contact: <sip:worse@%s>;q=0.1, <sip:stranger@192.0.2.9>;q=1.0, <sip:best@%s>;q=0.9" % (at, at)]
    phone.answer(first, 302, tag=";tag=moved", headers=places)
    second = phone.hear("INVITE sip:best@", 3)
    if not second:
        return False, "the best place of the trunk is not called"
    if header(second, "Call-ID") == header(first, "Call-ID"):
        return False, "the second call has the first one's Call-ID"
    phone.answer(second, 302, tag=";tag=back", headers=[f"Contact: <sip:best@{at}>"])
    again = phone.hear("INVITE sip:best@", 1)
    if again and header(again, "Call-ID") != header(second, "Call-ID"):
        return False, "a place is called twice"
    return closed(bed, call["id"], "rejected", 4)


def answers_badly(bed, row):
    """A 200 without an answer, or one that takes no audio: ACK, and then BYE."""
    phone = listen_first(bed, row)
    for about, body in (
        ("no SDP", ""),
        ("no audio", SDP.replace("40000", "0")),
        ("no codec of ours", SDP.replace("AVP 0", "AVP 97") + "a=rtpmap:97 AMR/8000\r\n"),
    ):
        call = dialled(bed, row)
        invite = phone.hear("INVITE")
        phone.answer(invite, 200, body, f";tag={word()}")
        if not phone.hear("ACK", 2):
            return False, f"{about}: no ACK"
        bye = phone.hear("BYE", 2)
        if not bye:
            return False, f"{about}: no BYE"
        phone.answer(bye, 200)
        if closed(bed, call["id"], "", 4)[1].endswith(" s"):
            return False, f"{about}: the record stays open"
    return True, ""


def closed(bed, call, disposition, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        said = bed.api(f"/calls/{call}").get("disposition")
        if said:
            return said == disposition, f"the record says {said}, not {disposition}"
        time.sleep(0.05)
    return False, f"the record is still open after {seconds} s"


PROOFS = [
    ("over_tls", over_tls, False),
    ("over_ws", over_ws, False),
    ("broken_messages", broken_messages, False),
    ("answers_again", answers_again, True),
    ("answers_too_late", answers_too_late, True),
    ("registers", registers, True, listen_first, 'register = [{{ registrar = "{far}", expires = "10s" }}]', 20),
    ("replaces", replaces, False),
    ("overloaded_then_fine", overloaded_then_fine, True),
    ("redirects", redirects, True, None, "redirects = true"),
    ("answers_badly", answers_badly, True),
]
