"""SIPp scenarios in short form: a scenario is a list of steps, and this writes them as SIPp reads them.

A caller (`Caller`) begins with INVITE; a callee (`Callee`) waits for one and remembers its Via, From and To, so that
it can answer it after other requests have come and gone. `check` maps a header to what must stand in it, `body` is a
list of patterns the whole message must match.
"""

CODECS = ((0, "PCMU/8000"), (8, "PCMA/8000"), (101, "telephone-event/8000"))


def sdp(version=1, direction="sendrecv", types=(0, 101), media="audio", port="[media_port]", address="[media_ip]", extra=""):
    names = dict(CODECS)
    lines = [
        "v=0",
        f"o=sipp 53655765 {version} IN IP[local_ip_type] [local_ip]",
        "s=-",
        f"c=IN IP[media_ip_type] {address}",
        "t=0 0",
        f"m={media} {port} RTP/AVP {' '.join(map(str, types))}",
    ]
    lines += [f"a=rtpmap:{t} {names[t]}" for t in types if t in names]
    if 101 in types:
        lines.append("a=fmtp:101 0-16")
    lines += ["a=ptime:20", f"a={direction}"]
    lines += [line for line in extra.split("\n") if line]
    return "\n".join(lines) + "\n"


ALLOW = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS, PRACK, UPDATE, REFER, NOTIFY, INFO"
ALLOW_PLAIN = "Allow: INVITE, ACK, BYE, CANCEL, OPTIONS"
CONTACT = "Contact: <sip:sipp@[local_ip]:[local_port];transport=[transport]>"
VIA = "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch="


class Party:
    def __init__(self):
        self.parts = []
        self.names = []
        self.count = 0

    def raw(self, text):
        self.parts.append(text)
        return self

    def message(self, lines, body, retrans, attributes=""):
        rows = [line for line in lines if line]
        kind = body and not any(row.lower().startswith("content-type") for row in rows)
        if kind:
            rows.append("Content-Type: application/sdp")
        if not any(row.lower().startswith(("content-length", "l:")) for row in rows):
            rows.append("Content-Length: [len]")
        text = "\n".join(rows) + "\n\n" + body
        indented = "\n".join(("      " + line) if line else "" for line in text.split("\n"))
        again = ' retrans="500"' if retrans else ""
        return self.raw(f"  <send{again}{attributes}>\n    <![CDATA[\n{indented}\n    ]]>\n  </send>")

    def recv(self, what, kind, check=None, body=(), optional=False, rrs=False, keep=None, timeout=None):
        actions = []
        for header, pattern in (check or {}).items():
            actions.append(self.ereg(pattern, f'search_in="hdr" header="{header}:"'))
        for pattern in body:
            actions.append(self.ereg(pattern, 'search_in="msg"'))
        for name, (pattern, header) in (keep or {}).items():
            where = f'search_in="hdr" header="{header}:"' if header else 'search_in="msg"'
            actions.append(f'      <ereg regexp="{escape(pattern)}" {where} check_it="true" assign_to="{name}" />')
            self.names.append(name)
        flags = (' optional="true"' if optional else "") + (' rrs="true"' if rrs else "")
        flags += f' timeout="{timeout}"' if timeout else ""
        if not actions:
            return self.raw(f'  <recv {kind}="{what}"{flags} />')
        inner = "\n".join(["    <action>", *actions, "    </action>"])
        return self.raw(f'  <recv {kind}="{what}"{flags}>\n{inner}\n  </recv>')

    def ereg(self, pattern, where):
        self.count += 1
        name = f"seen{self.count}"
        self.names.append(name)
        # What must not be there is written with a ! before it.
        verdict = 'check_it="true"'
        if pattern.startswith("!"):
            pattern, verdict = pattern[1:], 'check_it_inverse="true"'
        return f'      <ereg regexp="{escape(pattern)}" {where} {verdict} assign_to="{name}" />'

    def response(self, status, **more):
        return self.recv(status, "response", **more)

    def request_in(self, method, **more):
        return self.recv(method, "request", **more)

    def pause(self, ms):
        return self.raw(f'  <pause milliseconds="{ms}" />')

    def reply(self, status, reason="Whatever", headers="", body="", retrans=False):
        """Answers the request that came last."""
        rows = [f"SIP/2.0 {status} {reason}", "[last_Via:]", "[last_Record-Route:]", "[last_From:]", "[last_To:]"]
        rows += ["[last_Call-ID:]", "[last_CSeq:]", *headers.split("\n")]
        return self.message(rows, body, retrans)

    def answered(self, method, **more):
        """The method comes and gets 200."""
        self.request_in(method, **more)
        return self.reply(200, "OK")

    def to_xml(self, name, about):
        names = f'\n  <Reference variables="{",".join(dict.fromkeys(self.names))}" />' if self.names else ""
        return (
            f'<?xml version="1.0" encoding="UTF-8" ?>\n<!-- {about.replace("--", "-")} -->\n<scenario name="{name}">\n'
            + "\n".join(self.parts)
            + f"{names}\n</scenario>\n"
        )


class Caller(Party):
    FROM = 'From: "sipp" <sip:sipp@[local_ip]:[local_port]>;tag=[pid]SIPpTag00[call_number]'
    TO = "To: <sip:[service]@[remote_ip]:[remote_port]>"

    def __init__(self, cseq=1):
        super().__init__()
        self.cseq = cseq - 1

    def invite(self, headers="", body=None, retrans=True, uri="sip:[service]@[remote_ip]:[remote_port]", contact=CONTACT):
        """A new INVITE outside of the dialog."""
        self.cseq += 1
        rows = [
            f"INVITE {uri} SIP/2.0",
            VIA + f"z9hG4bK-[call_id]-{self.cseq}",
            self.FROM,
            self.TO,
            "Call-ID: [call_id]",
            f"CSeq: {self.cseq} INVITE",
            contact,
            "" if "Max-Forwards" in headers else "Max-Forwards: 70",
            *headers.split("\n"),
        ]
        return self.message(rows, sdp(types=(0, 8, 101)) if body is None else body, retrans)

    def ack_refusal(self):
        rows = [
            "ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0",
            VIA + f"z9hG4bK-[call_id]-{self.cseq}",
            self.FROM,
            self.TO + "[peer_tag_param]",
            "Call-ID: [call_id]",
            f"CSeq: {self.cseq} ACK",
            "Max-Forwards: 70",
        ]
        return self.message(rows, "", False)

    def request(self, method, headers="", body="", cseq=None, retrans=True, contact=True, tag="[peer_tag_param]", branch="[branch]"):
        """A request in the dialog, with the next number."""
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        rows = [
            f"{method} [next_url] SIP/2.0",
            VIA + branch,
            "[routes]",
            self.FROM,
            self.TO + tag,
            "Call-ID: [call_id]",
            f"CSeq: {cseq} {method}",
            CONTACT if contact else "",
            "Max-Forwards: 70",
            *headers.split("\n"),
        ]
        return self.message(rows, body, retrans and method != "ACK")

    def ack(self, body="", cseq=None):
        return self.request("ACK", cseq=self.cseq if cseq is None else cseq, body=body, contact=False)

    def cancel(self, cseq=None):
        number = self.cseq if cseq is None else cseq
        rows = [
            "CANCEL sip:[service]@[remote_ip]:[remote_port] SIP/2.0",
            VIA + f"z9hG4bK-[call_id]-{number}",
            self.FROM,
            self.TO,
            "Call-ID: [call_id]",
            f"CSeq: {number} CANCEL",
            "Max-Forwards: 70",
        ]
        return self.message(rows, "", True)

    def trying(self, *more):
        for status in (100, *more):
            self.response(status, optional=True)
        return self

    def call(self, headers="", body=None, early=(180, 183), ack="", **answer):
        """INVITE, 200, ACK."""
        self.invite(headers, body)
        self.trying(*early)
        self.response(200, rrs=True, **answer)
        return self.ack(ack)

    def bye(self, headers=""):
        self.request("BYE", headers, contact=False)
        return self.response(200)

    def prack(self, rseq, body="", of=1, headers=""):
        return self.request("PRACK", f"RAck: [${rseq}] {of} INVITE\n{headers}", body)


class Callee(Party):
    def __init__(self):
        super().__init__()
        self.names = ["via", "from", "to"]
        self.cseq = 0
        self.number = 1

    def invited(self, number=1, **more):
        self.number = number
        keep = {"via": (".*", "Via"), "from": (".*", "From"), "to": (".*", "To")}
        keep.update(more.pop("keep", {}))
        return self.request_in("INVITE", rrs=True, keep=keep, **more)

    def say(self, status, reason="Whatever", headers="", body="", retrans=False, tag="1", contact=CONTACT, record_route=""):
        """Answers the INVITE."""
        to = f"To: [$to];tag=[pid]SIPpTag0{tag}[call_number]" if tag else "To: [$to]"
        allow = "" if "Allow:" in headers else ALLOW
        rows = [f"SIP/2.0 {status} {reason}", "Via: [$via]", record_route, "From: [$from]", to, "Call-ID: [call_id]"]
        rows += [f"CSeq: {self.number} INVITE", contact if status < 400 else "", allow, *headers.split("\n")]
        return self.message(rows, body, retrans)

    def accept(self, body=None, **more):
        self.say(200, "OK", body=sdp() if body is None else body, retrans=True, **more)
        return self.request_in("ACK")

    def refuse(self, status, reason="Whatever", headers="", **more):
        self.say(status, reason, headers, retrans=True, **more)
        return self.request_in("ACK")

    def request(self, method, headers="", body="", cseq=None, retrans=True, tag="1", contact=True):
        if cseq is None:
            self.cseq += 1
            cseq = self.cseq
        rows = [
            f"{method} [next_url] SIP/2.0",
            VIA + "[branch]",
            "[routes]",
            f"From: [$to];tag=[pid]SIPpTag0{tag}[call_number]",
            "To: [$from]",
            "Call-ID: [call_id]",
            f"CSeq: {cseq} {method}",
            CONTACT if contact else "",
            "Max-Forwards: 70",
            *headers.split("\n"),
        ]
        return self.message(rows, body, retrans and method != "ACK")

    def ack(self, body="", cseq=None):
        return self.request("ACK", cseq=self.cseq if cseq is None else cseq, body=body, contact=False)

    def bye(self, after=300, **more):
        self.pause(after)
        self.request("BYE", contact=False, **more)
        return self.response(200)


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
