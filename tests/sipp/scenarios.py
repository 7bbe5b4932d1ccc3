"""More scenarios, in short form, and the rows that run them. Each function is one scenario; its text says what must
come of it. `calls` are made by SIPp, `dials` are taken by it, `pairs` have the server between two."""

from dsl import ALLOW_PLAIN, Callee, Caller, sdp

MADE, ROWS = [], []


def scenario(kind, *arguments, **more):
    def keep(make):
        party = Caller() if kind == "call" else Callee()
        make(party)
        MADE.append((make.__name__, make.__doc__, party))
        if kind != "part":
            ROWS.append((kind, (make.__name__, *arguments), more))
        return make

    return keep


def call(number="100", transport="u1", source="127.0.0.1", **more):
    return scenario("call", number, transport, source, **more)


def dial(disposition="completed", status=200, patience=20, trunk="far", **more):
    return scenario("dial", trunk, patience, disposition, status, **more)


def caller_part(make):
    party = Caller()
    make(party)
    MADE.append((make.__name__, make.__doc__, party))
    return make


def callee_part(make):
    return scenario("part")(make)


def pair(caller, callee, number="bridge", **more):
    ROWS.append(("pair", (caller, number, callee), more))


# Reliable provisional responses and offers before the answer, as the caller.

RELIABLE = "Require: 100rel\nSupported: 100rel"
RSEQ = {"rseq": ("[0-9]+", "RSeq")}


@call("slow")
def prack_late_offer(c):
    """An INVITE without an offer gets one in the first reliable response; the PRACK answers it, the 200 has none."""
    c.invite(RELIABLE, "").trying()
    c.response(180, rrs=True, keep=RSEQ, check={"Require": "100rel"}, body=["m=audio [0-9]+ RTP/AVP"])
    c.prack("rseq", sdp())
    c.response(200, check={"CSeq": "PRACK"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"}, body=["!m=audio"])
    c.ack(cseq=1).pause(300).bye()


@call("slow")
def prack_late_offer_unanswered(c):
    """A PRACK that forgets the answer leaves the offer to the 200, and the answer to the ACK."""
    c.invite(RELIABLE, "").trying()
    c.response(180, rrs=True, keep=RSEQ, body=["m=audio [0-9]+ RTP/AVP"])
    c.prack("rseq")
    c.response(200, check={"CSeq": "PRACK"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"}, body=["m=audio [0-9]+ RTP/AVP"])
    c.ack(sdp(), cseq=1).pause(300).bye()


@call("early")
def prack_new_offer(c):
    """The PRACK of a 183 that answered brings a new offer: its 200 answers it."""
    c.invite(RELIABLE).trying()
    c.response(183, rrs=True, keep=RSEQ, body=["m=audio [0-9]+ RTP/AVP 0"])
    c.prack("rseq", sdp(2, types=(8, 101)))
    c.response(200, check={"CSeq": "PRACK"}, body=["m=audio [0-9]+ RTP/AVP 8"])
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("early")
def update_early(c):
    """After a reliable answer an UPDATE may offer anew before the 200."""
    c.invite(RELIABLE).trying()
    c.response(183, rrs=True, keep=RSEQ, check={"Allow": "UPDATE"})
    c.prack("rseq").response(200, check={"CSeq": "PRACK"})
    c.request("UPDATE", body=sdp(2, "sendonly"))
    c.response(200, check={"CSeq": "UPDATE"}, body=["a=recvonly"])
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("slow")
def update_early_too_soon(c):
    """An UPDATE with an offer before our answer was sent: 500 with Retry-After (RFC 3311 5.2); the call goes on."""
    c.invite().trying()
    c.response(180, rrs=True)
    c.request("UPDATE", body=sdp(2))
    c.response(500, check={"Retry-After": "[0-9]+"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("slow")
def update_early_bare(c):
    """An UPDATE without SDP in an early dialog is a 200."""
    c.invite().trying()
    c.response(180, rrs=True)
    c.request("UPDATE").response(200, check={"CSeq": "UPDATE"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("slow")
def prack_wrong_number(c):
    """A PRACK of no open response is a 481; the right one still counts."""
    c.invite(RELIABLE).trying()
    c.response(180, rrs=True, keep=RSEQ)
    c.request("PRACK", "RAck: 4711 1 INVITE").response(481)
    c.prack("rseq").response(200, check={"CSeq": "PRACK"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("slow")
def prack_of_nothing(c):
    """A PRACK where nothing was sent reliably is a 481."""
    c.invite("Supported: 100rel").trying()
    c.response(180, rrs=True)
    c.request("PRACK", "RAck: 1 1 INVITE").response(481)
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call("slow", seconds=36)
def prack_never(c):
    """A reliable response that is never acknowledged is repeated, and ends the call with 504 after 64*T1."""
    c.invite(RELIABLE).trying()
    c.response(180, rrs=True, keep=RSEQ)
    c.response(504, timeout=40000).ack_refusal()


# Offers that cross.


@call()
def update_glare(c):
    """Our offer in the 200 is open: an UPDATE with another gets 491, and the ACK's answer still counts."""
    c.invite(body="").trying(180)
    c.response(200, rrs=True, body=["m=audio"])
    c.request("UPDATE", body=sdp(2)).response(491)
    c.ack(sdp(), cseq=1).pause(300).bye()


@call()
def reinvite_glare(c):
    """The same with a re-INVITE (14.2)."""
    c.invite(body="").trying(180)
    c.response(200, rrs=True, body=["m=audio"])
    c.request("INVITE", body=sdp(2), branch="z9hG4bK-[call_id]-glare").trying()
    c.response(491)
    c.request("ACK", cseq=2, branch="z9hG4bK-[call_id]-glare", contact=False)
    c.ack(sdp(), cseq=1).pause(300).bye()


@call("slow")
def reinvite_too_soon(c):
    """A re-INVITE before the first one is answered: 500 with Retry-After (14.2)."""
    c.invite().trying()
    c.response(180, rrs=True)
    c.request("INVITE", body=sdp(2), branch="z9hG4bK-[call_id]-soon")
    c.response(500, check={"Retry-After": "[0-9]+", "CSeq": "2 INVITE"})
    c.request("ACK", cseq=2, branch="z9hG4bK-[call_id]-soon", contact=False)
    c.response(200, rrs=True, check={"CSeq": "1 INVITE"})
    c.ack(cseq=1).pause(300).bye()


@call()
def reinvite_refused(c):
    """A re-INVITE to an image (T.38) is a 488; the call stays as it was."""
    c.call().pause(200)
    fax = "v=0\no=sipp 53655765 2 IN IP4 [local_ip]\ns=-\nc=IN IP4 [media_ip]\nt=0 0\nm=image [media_port] udptl t38\n"
    c.request("INVITE", body=fax, branch="z9hG4bK-[call_id]-fax").trying()
    c.response(488)
    c.request("ACK", cseq=2, branch="z9hG4bK-[call_id]-fax", contact=False)
    c.pause(200).request("OPTIONS").response(200).bye()


@call()
def reinvite_offerless_then_hold(c):
    """Both ends of a re-INVITE without SDP, answered with hold; then a re-INVITE that lifts it."""
    c.call().pause(200)
    c.request("INVITE").trying()
    c.response(200, rrs=True, body=["m=audio [0-9]+ RTP/AVP", "a=sendrecv"])
    c.ack(sdp(2, "sendonly")).pause(200)
    c.request("INVITE", body=sdp(3)).trying()
    c.response(200, rrs=True, body=["a=sendrecv"])
    c.ack().pause(200).bye()


@call()
def update_hold(c):
    """Hold and unhold by UPDATE."""
    c.call().pause(200)
    for version, direction, ours in ((2, "sendonly", "recvonly"), (3, "inactive", "inactive"), (4, "sendrecv", "sendrecv")):
        c.request("UPDATE", body=sdp(version, direction)).response(200, body=[f"a={ours}"])
    c.bye()


# Session timers.


@call(seconds=50)
def timer_we_refresh_by_update(c):
    """The refresher is the callee: UPDATE at half time; a 422 has it ask for more (RFC 4028 7.3, 9)."""
    c.call("Supported: timer\nSession-Expires: 90;refresher=uas\nAllow: INVITE, ACK, BYE, UPDATE", check={"Session-Expires": "90;refresher=uas"})
    c.request_in("UPDATE", check={"Session-Expires": "90;refresher=uac", "Supported": "timer"}, timeout=50000)
    c.reply(422, headers="Min-SE: 120")
    c.request_in("UPDATE", check={"Session-Expires": "120;refresher=uac", "Min-SE": "120"})
    c.reply(200, "OK", "Session-Expires: 120;refresher=uac\nRequire: timer")
    c.pause(200).bye()


@call(seconds=50)
def timer_we_refresh_by_reinvite(c):
    """A caller without UPDATE gets a re-INVITE with our description."""
    c.call(f"Supported: timer\nSession-Expires: 90;refresher=uas\n{ALLOW_PLAIN}")
    c.request_in("INVITE", check={"Session-Expires": "90;refresher=uac"}, body=["m=audio"], timeout=50000)
    c.reply(200, "OK", "Session-Expires: 90;refresher=uac\nRequire: timer\nContact: <sip:sipp@[local_ip]:[local_port]>", sdp())
    c.request_in("ACK").pause(200).bye()


@call()
def timer_too_small_in_the_call(c):
    """An interval below ours is a 422 with Min-SE in UPDATE and re-INVITE as well."""
    c.call("Supported: timer\nSession-Expires: 600;refresher=uac", check={"Session-Expires": "600;refresher=uac", "Require": "timer"})
    c.pause(200).request("UPDATE", "Supported: timer\nSession-Expires: 30").response(422, check={"Min-SE": "90"})
    c.request("INVITE", "Supported: timer\nSession-Expires: 30", sdp(), branch="z9hG4bK-[call_id]-small").trying()
    c.response(422, check={"Min-SE": "90"})
    c.request("ACK", cseq=3, branch="z9hG4bK-[call_id]-small", contact=False)
    c.request("UPDATE", "Supported: timer\nSession-Expires: 600;refresher=uac")
    c.response(200, check={"Session-Expires": "600;refresher=uac"})
    c.bye()


@call(seconds=65)
def timer_runs_out(c):
    """The caller promised to refresh and does not: BYE before the interval is over (RFC 4028 10)."""
    c.call("Supported: timer\nSession-Expires: 90;refresher=uac", sdp(direction="inactive"))
    c.request_in("BYE", check={"Reason": "SIP"}, timeout=70000).reply(200, "OK")


# Requests that are refused, and how.


def outside(c, method, headers=""):
    c.cseq += 1
    uri = "sip:[service]@[remote_ip]:[remote_port]"
    rows = [f"{method} {uri} SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=[branch]", c.FROM]
    rows += [f"To: <{uri}>", "Call-ID: [call_id]", f"CSeq: {c.cseq} {method}", "Max-Forwards: 70", headers]
    return c.message(rows, "", True)


@call()
def methods_outside(c):
    """What nobody asked for outside of a call."""
    for method, headers, status, check in (
        ("MESSAGE", "Content-Type: text/plain", 405, {"Allow": "INVITE"}),
        ("SUBSCRIBE", "Event: presence", 489, {"Allow-Events": "refer"}),
        ("PUBLISH", "Event: presence", 489, {}),
        ("NOTIFY", "Event: refer\nSubscription-State: active", 481, {}),
        ("REFER", "Refer-To: <sip:x@127.0.0.1>", 403, {}),
        ("UPDATE", "", 481, {}),
        ("INFO", "", 481, {}),
        ("PRACK", "RAck: 1 1 INVITE", 481, {}),
        ("DANCE", "", 501, {"Allow": "INVITE"}),
    ):
        outside(c, method, headers).response(status, check=check)


@call()
def methods_inside(c):
    """What nobody asked for inside of one; the call goes on."""
    c.call().pause(200)
    c.request("MESSAGE", "Content-Type: text/plain", "hello").response(405, check={"Allow": "INVITE"})
    c.request("SUBSCRIBE", "Event: dialog").response(489)
    c.request("NOTIFY", "Event: refer\nSubscription-State: active;expires=60\nContent-Type: message/sipfrag", "SIP/2.0 100 Trying\n")
    c.response(481)
    c.request("INFO").response(200)
    c.request("INFO", "Content-Type: text/plain", "hello").response(415, check={"Accept": "dtmf-relay"})
    c.request("INFO", "Info-Package: foo\nContent-Type: text/plain", "hello").response(469)
    c.request("PRACK", "RAck: 1 1 INVITE").response(481)
    c.request("OPTIONS", "Require: teleportation").response(420, check={"Unsupported": "teleportation"})
    c.bye()


@call()
def refer_malformed(c):
    """A transfer to nobody or to two is a 400 (RFC 3515 2.4.1); one to mail is a 416."""
    c.call().pause(200)
    c.request("REFER").response(400)
    c.request("REFER", "Refer-To: <sip:a@127.0.0.1>\nRefer-To: <sip:b@127.0.0.1>").response(400)
    c.request("REFER", "Refer-To: <mailto:a@example.com>").response(416)
    c.bye()


@call()
def replaces_nothing(c):
    """Replaces of a call nobody knows is a 481, one that cannot be read a 400 (RFC 3891 3)."""
    c.invite("Replaces: nobody@nowhere;to-tag=1;from-tag=2").trying().response(481).ack_refusal()
    c.invite("Replaces: nobody@nowhere").trying().response(400).ack_refusal()


@call()
def after_the_call(c):
    """A call that ended is unknown: 481 to whatever comes late."""
    c.call().pause(200).bye()
    c.request("INFO").response(481)
    c.request("BYE").response(481)
    c.request("INVITE", body=sdp(2), branch="z9hG4bK-[call_id]-late").trying().response(481)
    c.request("ACK", cseq=c.cseq, branch="z9hG4bK-[call_id]-late", contact=False)


@call()
def wrong_tag(c):
    """A request with another To tag is none of the call (12.2.2)."""
    c.call(keep={"tag": (";tag=[0-9a-f]+", "To")}).pause(200)
    c.request("INFO", tag=";tag=somebody-else").response(481)
    c.request("BYE", tag="[$tag]").response(200)


@call()
def no_hops_left(c):
    """An INVITE that may go no further is a 483."""
    c.invite("Max-Forwards: 0").trying().response(483).ack_refusal()


@call("ring")
def merged(c):
    """The same INVITE by another way is a 482 (8.2.2.2); the first goes on."""
    c.invite().trying().response(180)
    rows = ["INVITE sip:[service]@[remote_ip]:[remote_port] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=z9hG4bK-[call_id]-other"]
    rows += [c.FROM, c.TO, "Call-ID: [call_id]", "CSeq: 1 INVITE", "Contact: <sip:sipp@[local_ip]:[local_port]>", "Max-Forwards: 60"]
    c.message(rows, sdp(), True).response(482)
    rows[0] = "ACK sip:[service]@[remote_ip]:[remote_port] SIP/2.0"
    rows[3], rows[5], rows[6] = c.TO + "[peer_tag_param]", "CSeq: 1 ACK", ""
    c.message(rows, "", False)
    c.cancel().response(200, check={"CSeq": "CANCEL"}).response(487).ack_refusal()


@call("ring")
def cancel_at_once(c):
    """CANCEL right behind the INVITE, with a Require nobody knows: it is not refused for that (8.2.2.3)."""
    c.invite()
    c.response(100)
    rows = ["CANCEL sip:[service]@[remote_ip]:[remote_port] SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=z9hG4bK-[call_id]-1"]
    rows += [c.FROM, c.TO, "Call-ID: [call_id]", "CSeq: 1 CANCEL", "Max-Forwards: 70", "Require: teleportation", 'Reason: SIP;cause=200;text="Call completed elsewhere"']
    c.message(rows, "", True)
    c.response(180, optional=True).response(200, check={"CSeq": "CANCEL"}).response(487).ack_refusal()


@call("ring")
def expires(c):
    """An INVITE that is good for a second gets 487 after it (13.3.1)."""
    c.invite("Expires: 1").trying(180).response(487).ack_refusal()


@call("short")
def bye_crosses(c):
    """Both hang up at once: the second BYE finds no call, and nobody minds."""
    c.call()
    c.answered("BYE")
    c.request("BYE", contact=False).response(481)


@call()
def late_offer_unanswered(c):
    """An ACK without the answer to our offer ends the call with BYE (13.2.1)."""
    c.invite(body="").trying(180)
    c.response(200, rrs=True)
    c.ack().answered("BYE", check={"Reason": "SIP"})


# Shapes of messages.


def shaped(c, first="", change=lambda rows: rows, body=None, end=True):
    uri = "sip:[service]@[remote_ip]:[remote_port]"
    rows = [f"INVITE {uri} SIP/2.0", "Via: SIP/2.0/[transport] [local_ip]:[local_port];rport;branch=z9hG4bK-[call_id]-1"]
    rows += [c.FROM, c.TO, "Call-ID: [call_id]", "CSeq: 1 INVITE", "Contact: <sip:sipp@[local_ip]:[local_port]>", "Max-Forwards: 70"]
    c.cseq = 1
    c.message(change(rows), sdp() if body is None else body, True)
    if end:
        c.trying(180, 183).response(200, rrs=True)
        c.ack().pause(200).bye()


def without(name):
    return lambda rows: [row for row in rows if not row.startswith(name)]


def instead(name, *new):
    return lambda rows: [part for row in rows for part in (new if row.startswith(name) else [row])]


@call()
def shape_no_max_forwards(c):
    """Old elements leave Max-Forwards out."""
    shaped(c, change=without("Max-Forwards"))


@call()
def shape_no_tag(c):
    """A caller of RFC 2543 has no tag in From."""
    c.FROM = 'From: "sipp" <sip:sipp@[local_ip]:[local_port]>'
    shaped(c)


@call()
def shape_spaces(c):
    """White space, cases and unknown headers as RFC 4475 3.1.1.1 has them."""
    change = instead("Max-Forwards", "max-forwards :  070", "NewFangledHeader:   newfangled value", "UnknownHeaderWithUnusualValue: ;;,,;;,;")
    shaped(c, change=change)


@call()
def shape_contact_with_params(c):
    """A Contact without brackets, with header parameters."""
    shaped(c, change=instead("Contact", "Contact: sip:sipp@[local_ip]:[local_port];unknownparam=4"))


@call()
def shape_escaped_user(c):
    """Escapes in From and display names with quotes."""
    c.FROM = 'From: "A \\"quoted\\" \\\\ name, with; things" <sip:I%20have%20spaces@[local_ip]>;tag=[pid]x[call_number]'
    shaped(c)


@call()
def shape_two_bodies(c):
    """SDP inside multipart/mixed, next to something optional."""
    body = "--b\nContent-Type: application/sdp\n\n" + sdp() + "--b\nContent-Type: application/isup;version=itu\nContent-Disposition: signal;handling=optional\n\n0123\n--b--\n"
    shaped(c, change=lambda rows: [*rows, "Content-Type: multipart/mixed;boundary=b"], body=body)


@call()
def shape_long(c):
    """Three kilobytes of Identity, as an attested call has."""
    shaped(c, change=lambda rows: [*rows, "Identity: " + "eyJhbGciOiJFUzI1NiJ9" * 50 + ";info=<https://cert.example/x.pem>;alg=ES256;ppt=shaken", "X-Long: " + "y" * 1500])


@call()
def shape_timestamp(c):
    """The 100 gives the Timestamp back (8.2.6.1)."""
    shaped(c, change=lambda rows: [*rows, "Timestamp: 54.2"], end=False)
    c.response(100, check={"Timestamp": "54.2"}).response(180, optional=True).response(200, rrs=True)
    c.ack().pause(200).bye()


def refused(name, about, status, change, body=None):
    def make(c):
        shaped(c, change=change, body=body, end=False)
        c.response(100, optional=True).response(status)
        c.ack_refusal()

    make.__name__, make.__doc__ = name, about
    call()(make)


refused("bad_no_contact", "An INVITE must say where its caller is (8.1.1.8).", 400, without("Contact"))
refused("bad_two_from", "Two From.", 400, lambda rows: [*rows, "From: <sip:other@127.0.0.1>;tag=other"])
refused("bad_length", "More is promised than comes.", 400, lambda rows: [*rows, "Content-Length: 9999"])
refused("bad_length_negative", "A negative length.", 400, lambda rows: [*rows, "Content-Length: -999"])
refused("bad_max_forwards", "More hops than there may be.", 400, instead("Max-Forwards", "Max-Forwards: 999"))
refused("bad_uri", "A Request-URI in brackets with spaces.", 400, instead("INVITE", "INVITE <sip:[service]@[remote_ip]:[remote_port]> SIP/2.0"))
refused("bad_encoding", "A compressed body.", 415, lambda rows: [*rows, "Content-Encoding: gzip"])
refused("bad_sdp", "A body that is no SDP.", 400, lambda rows: rows, "this is no description\n")
refused("refused_srtp", "Encrypted media where the trunk has none.", 488, lambda rows: rows, sdp().replace("RTP/AVP", "RTP/SAVP"))
refused("refused_precondition", "Preconditions are not known here.", 420, lambda rows: [*rows, "Require: precondition"])


# Carriers.


@call("100", source="127.0.0.4")
def as_twilio(c):
    """An INVITE as Twilio shapes it: private Contact behind two Record-Routes, two Vias, no PRACK or UPDATE; hold."""
    routes = "Record-Route: <sip:[local_ip]:[local_port];lr;r2=on>\nRecord-Route: <sip:[local_ip]:[local_port];transport=udp;lr;r2=on>"
    more = f"""Via: SIP/2.0/UDP 172.25.10.217:5060;rport=5060;branch=z9hG4bK5cdada8c_c3356d0b_54-45746327
P-Asserted-Identity: <sip:+15550122@206.147.76.45:5060>
Diversion: <sip:+15550111@twilio.com>;reason=unconditional
Min-SE: 120
Allow: INVITE, ACK, CANCEL, OPTIONS, BYE, REFER, NOTIFY
Supported: timer
User-Agent: Twilio Gateway
X-Twilio-CallSid: CA00000000000000000000000000000000
X-Twilio-VerStat: TN-Validation-Passed-A
{routes}"""
    c.invite(more, contact='Contact: "+15550122" <sip:+15550122@172.25.10.217:5060;transport=udp>')
    c.trying(180, 183)
    c.response(200, rrs=True, check={"Record-Route": "r2=on"}, body=["172.25.10.217:5060;rport=5060", "m=audio [0-9]+ RTP/AVP 0 101", "a=ptime:20"])
    c.ack().pause(300)
    c.request("INVITE", body=sdp(2, "sendonly")).trying().response(200, rrs=True, body=["a=recvonly"])
    c.ack().pause(200)
    c.bye('Reason: Q.850;cause=16;text="Normal call clearing"')


@call("short", source="127.0.0.4")
def as_twilio_we_hang_up(c):
    """Our BYE goes along the route set to the Contact as it was written, however odd its host."""
    routes = "Record-Route: <sip:[local_ip]:[local_port];lr;r2=on;twnat=sip:1.2.3.4:51830>\nRecord-Route: <sip:10.1.1.1;lr>"
    c.invite(routes, contact="Contact: <sip:+172.25.16.223:5060>")
    c.trying(180, 183).response(200, rrs=True).ack()
    c.answered("BYE", check={"Route": "r2=on;twnat=sip:1.2.3.4:51830"}, body=["BYE sip:.172.25.16.223:5060 SIP/2.0"])


@call()
def as_asterisk(c):
    """As Asterisk calls: OPTIONS first, then a call that is moved, held with 0.0.0.0, taken back, and hung up."""
    outside(c, "OPTIONS", "Accept: application/sdp").response(200, check={"Allow": "INVITE", "Accept": "application/sdp"})
    c.call("Supported: 100rel, timer, replaces, norefersub\nSession-Expires: 1800\nMin-SE: 90\nUser-Agent: Asterisk PBX 20.0", check={"Session-Expires": "1800"})
    c.pause(200).request("INVITE", body=sdp(2, address="127.0.0.8")).trying().response(200, rrs=True).ack().pause(200)
    c.request("INVITE", body=sdp(3, "inactive", address="0.0.0.0")).trying().response(200, rrs=True, body=["a=inactive"]).ack().pause(200)
    c.request("INVITE", body=sdp(4)).trying().response(200, rrs=True, body=["a=sendrecv"]).ack().pause(200)
    c.bye("X-Asterisk-HangupCause: Normal Clearing\nX-Asterisk-HangupCauseCode: 16")


# Calls of ours: how they begin.


@dial()
def rings_in_many_ways(c):
    """100, 180, 181, 182, 183, 199 and a status nobody knows, before the 200."""
    c.invited()
    c.say(100, tag="")
    for status in (180, 181, 182):
        c.say(status)
    c.say(183, body=sdp())
    c.say(180).say(199, tag="2").say(145).pause(200)
    c.accept().bye()


@dial()
def forks_with_early_media(c):
    """Two early dialogs with media of their own; the second one answers, with other media than before."""
    c.invited()
    c.say(183, body=sdp(), tag="1").say(183, body=sdp(port="9998"), tag="2").pause(200)
    c.say(200, "OK", body=sdp(2), tag="2", retrans=True).request_in("ACK").bye(tag="2")


@dial()
def answers_at_once(c):
    """200 without anything before it, BYE right behind the ACK."""
    c.invited()
    c.accept().bye(0)


@dial()
def no_contact_before_the_answer(c):
    """A 180 without Contact and Allow makes an early dialog all the same."""
    c.invited()
    c.say(180, contact="").pause(100).accept().bye()


@dial()
def offers_by_update_before_the_answer(c):
    """A reliable 183 answers; an UPDATE of the callee offers anew and is answered; the 200 has no SDP."""
    c.invited(check={"Supported": "100rel"})
    c.say(183, headers="Require: 100rel\nRSeq: 100", body=sdp(), retrans=True)
    c.answered("PRACK", check={"RAck": "100 1 INVITE"})
    c.request("UPDATE", body=sdp(2, types=(8, 101))).response(200, body=["m=audio [0-9]+ RTP/AVP 8"])
    c.say(200, "OK", retrans=True).request_in("ACK").bye()


@dial()
def update_before_a_reliable_answer(c):
    """An UPDATE with an offer while ours has no reliable answer is a 491 (RFC 3311 5.2)."""
    c.invited()
    c.say(183, body=sdp())
    c.request("UPDATE", body=sdp(2)).response(491)
    c.accept().bye()


@dial()
def reliable_in_disorder(c):
    """A gap in RSeq is waited out, a repetition gets no second PRACK (RFC 3262 4)."""
    c.invited()
    c.say(180, headers="Require: 100rel\nRSeq: 5")
    c.answered("PRACK", check={"RAck": "5 1 INVITE"})
    c.say(183, headers="Require: 100rel\nRSeq: 7", body=sdp())
    c.say(180, headers="Require: 100rel\nRSeq: 5")
    c.pause(300)
    c.say(180, headers="Require: 100rel\nRSeq: 6")
    c.answered("PRACK", check={"RAck": "6 1 INVITE"})
    c.say(183, headers="Require: 100rel\nRSeq: 7", body=sdp())
    c.answered("PRACK", check={"RAck": "7 1 INVITE"})
    c.accept().bye()


# Calls of ours: refusals.


def fails(name, about, status, record, disposition, reason="Whatever", headers=""):
    def make(c):
        c.invited()
        c.say(180).refuse(status, reason, headers)

    make.__name__, make.__doc__ = name, about
    dial(disposition, record)(make)


fails("refuses_404", "Not found is final.", 404, 404, "failed")
fails("refuses_600", "Busy everywhere.", 600, 600, "busy")
fails("refuses_491", "A 491 to a first INVITE is final.", 491, 491, "rejected")
fails("refuses_unknown", "A status nobody knows counts as the x00 of its class.", 499, 499, "rejected")
fails("refuses_305", "305 is not followed.", 305, 305, "rejected", headers="Contact: <sip:127.0.0.1:9>")


@dial()
def asks_for_100rel(c):
    """421 for what we know but had not said: the INVITE again with it."""
    c.invited()
    c.refuse(421, "Extension Required", "Require: 100rel")
    c.invited(2, check={"Supported": "100rel"})
    c.accept(tag="2").bye(tag="2")


ROWS[-1][2]["profile"] = "twilio"


CHALLENGE = 'Digest realm="{0}", nonce="{1}", algorithm=MD5, qop="auth"'


@dial()
def two_realms_at_once(c):
    """401 with the challenge of the callee and that of a proxy: both are answered (22.3)."""
    c.invited()
    c.refuse(407, "Both", "WWW-Authenticate: " + CHALLENGE.format("uas", "n1") + "\nProxy-Authenticate: " + CHALLENGE.format("proxy", "n2"))
    c.invited(2, check={"Authorization": 'realm="uas"', "Proxy-Authorization": 'realm="proxy"'})
    c.accept(tag="2").bye(tag="2")


@dial()
def proxy_then_callee(c):
    """407 of a proxy, then 401 of the callee: the second INVITE with credentials brings both."""
    c.invited()
    c.refuse(407, "Proxy", "Proxy-Authenticate: " + CHALLENGE.format("proxy", "n1"))
    c.invited(2, check={"Proxy-Authorization": 'realm="proxy".*nc=00000001'})
    c.refuse(401, "Callee", "WWW-Authenticate: " + CHALLENGE.format("uas", "n2"), tag="2")
    c.invited(3, check={"Proxy-Authorization": "nc=00000002", "Authorization": 'realm="uas"'})
    c.accept(tag="3").bye(tag="3")


@dial()
def stale_nonce(c):
    """A nonce that grew old is answered once more."""
    c.invited()
    c.refuse(401, "First", "WWW-Authenticate: " + CHALLENGE.format("uas", "n1"))
    c.invited(2, check={"Authorization": 'nonce="n1"'})
    c.refuse(401, "Stale", "WWW-Authenticate: " + CHALLENGE.format("uas", "n2") + ", stale=true", tag="2")
    c.invited(3, check={"Authorization": 'nonce="n2"'})
    c.accept(tag="3").bye(tag="3")


@dial("rejected", 407)
def unknown_algorithm(c):
    """A challenge nobody can answer is the end."""
    c.invited()
    c.refuse(407, "What", 'Proxy-Authenticate: Digest realm="p", nonce="n", algorithm=SHA-1024')


# Calls of ours: once they are answered.


@dial()
def record_route(c):
    """Our ACK goes along the Record-Route of the 200 in reverse, to the Contact as its Request-URI."""
    c.invited()
    c.say(200, "OK", body=sdp(), retrans=True, contact="Contact: <sip:elsewhere@[local_ip]:[local_port];x=y>", record_route="Record-Route: <sip:10.9.9.9;lr>, <sip:[local_ip]:[local_port];lr;first=yes>")
    c.request_in("ACK", check={"Route": "first=yes"}, body=["ACK sip:elsewhere@127.0.5.[0-9]+:[0-9]+;x=y SIP/2.0"]).bye()


@dial()
def callee_holds(c):
    """The callee holds by re-INVITE, takes back by UPDATE, and asks for an offer by re-INVITE without SDP."""
    c.invited()
    c.accept().pause(200)
    c.request("INVITE", body=sdp(2, "sendonly")).response(100, optional=True).response(200, body=["a=recvonly"]).ack()
    c.request("UPDATE", body=sdp(3)).response(200, body=["a=sendrecv"])
    c.request("INVITE").response(100, optional=True).response(200, body=["m=audio"]).ack(sdp(4))
    c.request("INFO", "Content-Type: application/dtmf-relay", "Signal=5\nDuration=160\n").response(200)
    c.bye()


@dial(seconds=22)
def timer_ours_to_refresh(c):
    """The callee grants 32 s and has us refresh: UPDATE after 16, and again with more after a 422."""
    c.invited(check={"Session-Expires": "1800", "Min-SE": "90", "Supported": "timer"})
    c.accept(headers="Session-Expires: 32;refresher=uac\nRequire: timer")
    c.request_in("UPDATE", check={"Session-Expires": "32;refresher=uac"}, timeout=20000).reply(422, headers="Min-SE: 40")
    c.answered("UPDATE", check={"Session-Expires": "40;refresher=uac", "Min-SE": "90"})
    c.bye()


@dial(seconds=22)
def timer_ours_to_refresh_by_reinvite(c):
    """The same where the callee knows no UPDATE; after a 491 again in 2.1 to 4 s, for the Call-ID is ours (14.1)."""
    c.invited()
    c.accept(headers=f"Session-Expires: 32;refresher=uac\nRequire: timer\n{ALLOW_PLAIN}")
    c.request_in("INVITE", check={"Session-Expires": "32;refresher=uac"}, body=["m=audio"], timeout=20000)
    c.reply(491, "Request Pending").request_in("ACK").pause(2000)
    c.request_in("INVITE", check={"Session-Expires": "32;refresher=uac"}, body=["m=audio"], timeout=3000)
    c.reply(200, "OK", "Session-Expires: 32;refresher=uac\nContact: <sip:sipp@[local_ip]:[local_port]>", sdp())
    c.request_in("ACK").bye()


@dial(seconds=16)
def timer_theirs_to_refresh(c):
    """The callee refreshes by UPDATE and by re-INVITE."""
    c.invited()
    c.accept(headers="Session-Expires: 90;refresher=uas\nRequire: timer").pause(500)
    c.request("UPDATE", "Supported: timer\nSession-Expires: 90;refresher=uac").response(200, check={"Session-Expires": "90;refresher=uac"})
    c.request("INVITE", "Supported: timer\nSession-Expires: 90;refresher=uac", sdp()).response(100, optional=True)
    c.response(200, check={"Session-Expires": "90;refresher=uac"}).ack().bye()


@dial("failed", 408, seconds=30)
def timer_theirs_runs_out(c):
    """The callee promised to refresh and does not: BYE in time."""
    c.invited()
    c.accept(headers="Session-Expires: 36;refresher=uas\nRequire: timer")
    c.request_in("BYE", timeout=30000).reply(200, "OK")


@dial(transport="t1", peer=";transport=tcp")
def answers_over_tcp(c):
    """A trunk that is reached by TCP."""
    c.invited(check={"Via": "SIP/2.0/TCP", "Contact": "transport=tcp"})
    c.say(180).accept().bye()


@dial(transport="t1", headers=1500)
def large_invite(c):
    """An INVITE too large for a datagram comes by TCP, though the trunk says nothing of it (18.1.1)."""
    c.invited(check={"Via": "SIP/2.0/TCP"})
    c.say(180).accept().bye()


@dial(headers=1500)
def large_invite_without_tcp(c):
    """The same, to a callee that has no TCP: by UDP after all."""
    c.invited(check={"Via": "SIP/2.0/UDP"})
    c.say(180).accept().bye()


@dial(headers=1500, peer=";transport=udp")
def large_invite_by_udp(c):
    """The same, over a trunk that is for UDP alone."""
    c.invited(check={"Via": "SIP/2.0/UDP"})
    c.say(180).accept().bye()


# Between two.


@caller_part
def caller_waits(c):
    """A caller that says nothing until it hangs up."""
    c.call(early=(180, 183)).pause(7000).bye()


@caller_part
def caller_is_hung_up_on(c):
    """A caller to whom the callee's BYE is carried."""
    c.call().answered("BYE")


@caller_part
def caller_hangs_up(c):
    """A caller that hangs up soon."""
    c.call().pause(800).bye()


@callee_part
def callee_challenges_bye(c):
    """Our BYE is challenged, and comes again with credentials."""
    c.invited()
    c.accept()
    c.request_in("BYE").reply(407, headers="Proxy-Authenticate: " + CHALLENGE.format("far", "n1"))
    c.request_in("BYE", check={"Proxy-Authorization": 'username="carol"'}).reply(200, "OK")


@callee_part
def callee_hangs_up(c):
    """A callee that hangs up soon."""
    c.invited()
    c.say(180).accept().bye(800)


@caller_part
def caller_hears_404(c):
    """The callee's 404 reaches the caller."""
    c.invite().trying(180, 183).response(404).ack_refusal()


@caller_part
def caller_hears_early_media(c):
    """The callee's 183 with SDP reaches the caller as one, and then the answer."""
    c.invite().trying(180)
    c.response(183, body=["m=audio"]).response(200, rrs=True).ack().answered("BYE")


@callee_part
def callee_plays_before_the_answer(c):
    """A callee with early media."""
    c.invited()
    c.say(183, body=sdp()).pause(500).accept().bye(500)


@caller_part
def caller_refers(c):
    """REFER on a call with an assistant: 202, NOTIFY with 100 and with the end, and the call is taken over."""
    c.call().pause(300)
    c.request("REFER", "Refer-To: <sip:+15550100199@[target]>\nReferred-By: <sip:sipp@[local_ip]>").response(202)
    c.answered("NOTIFY", check={"Event": "refer", "Subscription-State": "active"}, body=["SIP/2.0 100"])
    c.answered("NOTIFY", check={"Subscription-State": "active"}, body=["SIP/2.0 180"])
    c.answered("NOTIFY", check={"Subscription-State": "terminated"}, body=["SIP/2.0 200"])
    c.answered("BYE")


@callee_part
def callee_takes_a_transfer(c):
    """Whom the transfer leads to."""
    c.invited()
    c.say(180).pause(300).accept().bye(1200)


@caller_part
def caller_requires_100rel(c):
    """A caller that requires reliable responses, in front of a callee that knows none."""
    c.invite(RELIABLE).trying()
    c.response(183, rrs=True, keep=RSEQ, body=["m=audio"])
    c.prack("rseq").response(200, check={"CSeq": "PRACK"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"})
    c.ack(cseq=1).answered("BYE")


@caller_part
def caller_offers_late(c):
    """A caller without an offer, in front of a callee with early media."""
    c.invite(body="").trying(180, 183)
    c.response(200, rrs=True, body=["m=audio"])
    c.ack(sdp()).answered("BYE")


@caller_part
def caller_offers_late_and_requires_100rel(c):
    """Both: our offer goes with the first reliable response, whatever the callee does."""
    c.invite(RELIABLE, "").trying()
    c.raw('  <recv response="180" optional="true" next="got" rrs="true"><action><ereg regexp="[0-9]+" search_in="hdr" header="RSeq:" check_it="true" assign_to="rseq" /></action></recv>')
    c.response(183, rrs=True, keep=RSEQ, body=["m=audio"])
    c.raw('  <label id="got" />')
    c.prack("rseq", sdp()).response(200, check={"CSeq": "PRACK"})
    c.response(200, rrs=True, check={"CSeq": "INVITE"}, body=["!m=audio"])
    c.ack(cseq=1).answered("BYE")


@callee_part
def callee_uses_100rel(c):
    """A callee with reliable responses of its own, behind the bridge: hops go down by one, our name is all it sees."""
    c.invited(check={"Max-Forwards": "(69|9)", "Supported": "100rel"}, body=["!127.0.0.1:50"])
    c.say(183, headers="Require: 100rel\nRSeq: 9", body=sdp())
    c.answered("PRACK").pause(300)
    c.accept().bye(800)


@caller_part
def caller_changes_its_mind(c):
    """A caller that holds and takes back while the callee does the same."""
    c.call(early=(180, 183)).pause(500)
    c.request("INVITE", body=sdp(2, "sendonly")).trying().response(200, rrs=True, body=["a=recvonly"]).ack().pause(300)
    c.request("UPDATE", body=sdp(3)).response(200, body=["a=sendrecv"])
    c.request("INFO", "Content-Type: application/dtmf-relay", "Signal=5\nDuration=160\n").response(200)
    c.answered("BYE")


@callee_part
def callee_changes_its_mind(c):
    """The other end of it."""
    c.invited()
    c.accept().pause(500)
    c.request("INVITE", body=sdp(2, "sendonly")).response(100, optional=True).response(200, body=["a=(recvonly|inactive)"]).ack().pause(300)
    c.request("INVITE", body=sdp(3)).response(100, optional=True).response(200, body=["a=sendrecv"]).ack()
    c.bye(800)


@caller_part
def caller_hears_no_answer(c):
    """The callee only rings: the caller is told in the end."""
    c.invite().trying(180, 183).response(408, check={"Reason": "Q.850;cause=102"}).ack_refusal()


@caller_part
def caller_hears_503(c):
    """A callee that has no room is no 503 of ours: the caller would leave this node alone (21.5.4)."""
    c.invite().trying(180, 183).response(500).ack_refusal()


@caller_part
def caller_hears_why(c):
    """The callee's Q.850 cause reaches the caller."""
    c.call().answered("BYE", check={"Reason": "Q.850;cause=16"})


@callee_part
def callee_says_why(c):
    """A callee that hangs up with a cause."""
    c.invited()
    c.accept().bye(600, headers='Reason: Q.850;cause=16;text="Normal call clearing"')


pair("caller_requires_100rel", "callee_plays_before_the_answer")
pair("caller_offers_late", "callee_plays_before_the_answer")
pair("caller_offers_late_and_requires_100rel", "callee_plays_before_the_answer")
pair("caller_offers_late_and_requires_100rel", "callee_uses_100rel")
pair("caller_requires_100rel", "callee_uses_100rel")
pair("caller_changes_its_mind", "callee_changes_its_mind")
pair("caller_hears_no_answer", "out_ring_timeout", timeout=2)
pair("caller_hears_503", "out_unavailable")
pair("caller_hears_why", "callee_says_why")
pair("caller_refers", "callee_takes_a_transfer", "100")
pair("caller_hangs_up", "callee_challenges_bye")
pair("caller_is_hung_up_on", "callee_hangs_up")
pair("caller_hears_404", "refuses_404")
pair("caller_hears_early_media", "callee_plays_before_the_answer")


AFTER = {"lost_ack": lambda log: (log.count("\nSIP/2.0 200 OK") >= 4, "the 200 was not repeated")}
SECONDS = {"lost_ack": 40}


def scenarios():
    return MADE


def rows():
    return ROWS
