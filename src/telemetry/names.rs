//! Every metric Tandem exposes, with its meaning.

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Prometheus name.
    pub name: &'static str,
    /// What kind it is.
    pub kind: Kind,
    /// What it counts or measures, and its labels.
    pub help: &'static str,
}

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are Prometheus's")]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

const fn counter(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, help }
}

const fn gauge(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, help }
}

/// All metrics. A test fails when the sources use one that is not listed.
pub const METRICS: &[Metric] = &[
    gauge("tandem_calls_active", "Calls that are up."),
    counter("tandem_cost_unpriced_total", "Things used for the first time in a call that have no price."),
    counter(
        "tandem_cost_limits_total",
        "Limits of cost that came near (80) or were reached (100), by per cent.",
    ),
    counter("tandem_calls_total", "Calls that began, by direction."),
    histogram("tandem_call_mos", "Estimated quality of what we heard (E-model, 1 to 4.5), per call."),
    counter("tandem_sip_commands_dropped_total", "Commands to legs lost because signalling was overloaded."),
    gauge("tandem_sip_connections", "Open SIP streams."),
    counter("tandem_sip_connections_closed_total", "SIP streams we closed, by reason."),
    gauge("tandem_sip_event_backlog", "Signalling events that wait for the calls."),
    gauge("tandem_sip_transactions", "SIP transactions in progress, by role."),
    counter("tandem_leg_queue_full_total", "Signalling events lost because a call did not take them."),
    counter(
        "tandem_barge_in_pauses_total",
        "Times the assistant held its words back because it heard the caller.",
    ),
    counter("tandem_barge_in_resumes_total", "Times it went on because that was nothing."),
    counter("tandem_barge_ins_total", "Times a caller spoke over the assistant."),
    histogram(
        "tandem_barge_in_stop_seconds",
        "From reading a speech-start event to the assistant's last frame.",
    ),
    gauge("tandem_sip_legs", "SIP legs the user agent knows."),
    counter("tandem_sip_messages_total", "SIP messages, by direction and kind."),
    counter("tandem_sip_challenges_total", "Requests that were asked for user and password."),
    counter("tandem_sip_retransmissions_total", "SIP messages sent again because no answer came."),
    counter("tandem_sip_dropped_total", "SIP messages dropped, by reason."),
    counter("tandem_sip_headers_refused_total", "SIP headers from commands that cannot be written."),
    counter("tandem_sip_commands_ignored_total", "Commands that did not fit the state of their leg."),
    counter("tandem_rtp_packets_received_total", "RTP packets received, duplicates not counted."),
    counter("tandem_rtp_packets_sent_total", "RTP packets sent."),
    counter("tandem_rtp_packets_lost_total", "RTP packets that never came."),
    counter("tandem_rtp_packets_late_total", "RTP packets that came too late to be used."),
    counter("tandem_rtp_packets_duplicate_total", "RTP packets that came twice."),
    counter("tandem_rtp_packets_foreign_total", "RTP packets from a source that is not the peer."),
    counter("tandem_rtp_foreign_sources_total", "Times a foreign source of RTP was noticed."),
    counter("tandem_rtp_concealed_ms_total", "Milliseconds of audio made up for lost packets."),
    counter("tandem_rtp_send_errors_total", "RTP packets the system did not take."),
    counter("tandem_playout_underruns_total", "Times the assistant's audio ran dry in mid-item."),
    counter("tandem_playout_late_total", "Packets sent more than 2 ms off the 20 ms grid."),
    gauge("tandem_rtp_port_pairs", "Pairs of RTP ports that calls hold."),
    gauge("tandem_media_workers", "Media worker threads."),
    gauge("tandem_media_realtime", "1 when every media worker has real-time scheduling, else 0."),
    histogram("tandem_provider_connect_seconds", "From dialling a provider to a configured session."),
    counter("tandem_provider_open_failures_total", "Provider sessions that could not be opened."),
    gauge("tandem_provider_breaker_state", "Breaker of a provider by name: 0 closed, 1 half open, 2 open."),
    counter("tandem_provider_breaker_opened_total", "Times a provider's breaker has opened, by provider."),
    counter(
        "tandem_provider_failures_total",
        "Openings and sessions a provider failed, late answers included, by provider.",
    ),
    counter(
        "tandem_provider_key_rests_total",
        "Times a provider's key was put to rest, by provider and reason.",
    ),
    counter("tandem_provider_webhooks_total", "Webhooks of services, by provider and outcome."),
    counter("tandem_provider_lost_total", "Provider sessions that died during a call."),
    counter("tandem_failovers_total", "Sessions that went on with a conversation another one had begun."),
    histogram(
        "tandem_failover_gap_seconds",
        "From the loss of a session to one that goes on; 0 for one that was renewed in time.",
    ),
    counter("tandem_fillers_total", "Times a caller who waited for an answer was told so."),
    counter(
        "tandem_calls_without_assistant_total",
        "Calls that no provider of their chain could serve, or go on with.",
    ),
    counter(
        "tandem_provider_audio_dropped_ms_total",
        "Milliseconds of caller audio a provider did not take.",
    ),
    counter("tandem_provider_unknown_events_total", "Provider events of a kind or shape we do not know."),
    counter("tandem_tool_calls_total", "Tool calls of assistants, by outcome."),
    histogram("tandem_tool_overhead_seconds", "From a tool call to its answer, without the tool's own time."),
    gauge("tandem_mcp_up", "1 while an MCP server is there, else 0, by server."),
    counter("tandem_recording_errors_total", "Recordings that could not be written."),
    counter("tandem_recording_lost_samples_total", "Samples a recording lost because the disk was slow."),
    gauge("tandem_journal_degraded", "1 while the database is away and events go to files, else 0."),
    gauge("tandem_journal_queue_depth", "Events waiting for the journal."),
    histogram("tandem_journal_batch_events", "Events written in one transaction."),
    histogram("tandem_journal_commit_seconds", "How long a transaction of the journal took."),
    counter("tandem_journal_duplicate_events_total", "Events the journal had already."),
    counter(
        "tandem_journal_overflow_events_total",
        "Events that did not fit the journal's queue and went to a file.",
    ),
    counter("tandem_journal_spilled_events_total", "Events written to files because the database was away."),
    counter("tandem_journal_replayed_events_total", "Events brought from files into the database."),
    counter("tandem_journal_rejected_events_total", "Events the database refused, kept in files."),
    counter("tandem_journal_lost_events_total", "Events that could be written nowhere."),
    gauge("tandem_feed_sockets", "Clients of the live feed."),
    counter("tandem_feed_lagged_total", "Committed events a feed socket had to fetch from the log."),
    counter("tandem_log_lines_dropped_total", "Log lines lost because standard error did not take them."),
    gauge("tandem_trunk_state", "State of a trunk by name: 0 unknown, 1 up, 2 degraded, 3 down."),
    gauge("tandem_trunk_calls", "Calls over a trunk by name, both directions."),
    gauge("tandem_trunk_registered", "Whether a registration of a trunk holds, by trunk: 0 or 1."),
    counter("tandem_trunk_attempts_total", "INVITEs sent over a trunk, by trunk and outcome."),
    gauge("tandem_sip_registrations", "Contacts registered by phones."),
    counter("tandem_sip_banned_total", "Sources banned after too many failed authentications."),
    counter(
        "tandem_sip_flood_dropped_total",
        "Requests dropped or refused because their source sent too many, by what was done.",
    ),
    counter(
        "tandem_sip_tls_reloads_total",
        "Times the certificate of tls:// listeners was read anew, by outcome.",
    ),
    gauge("tandem_bridges_active", "Calls between two people, by mode (relay or transcode)."),
    counter("tandem_srtp_failed_total", "SRTP packets that did not authenticate or were replayed."),
    counter("tandem_rtp_relayed_total", "RTP packets passed on without decoding."),
    counter("tandem_transfers_total", "Transfers, by outcome."),
    counter(
        "tandem_trace_dropped_total",
        "Signalling messages not kept for tracing because the ring was full.",
    ),
    counter(
        "tandem_hep_dropped_total",
        "Signalling messages not exported because the collector was too slow.",
    ),
    counter("tandem_dns_queries_total", "DNS queries for SIP targets, by outcome."),
    counter("tandem_audiosocket_connections_total", "Connections at the AudioSocket door, by outcome."),
    counter(
        "tandem_audiosocket_odd_messages_total",
        "AudioSocket messages passed over or taken with something missing, by kind.",
    ),
    counter(
        "tandem_audiosocket_frames_dropped_total",
        "Slots of audio an AudioSocket connection did not take.",
    ),
    gauge("tandem_ari_connected", "Whether the events of the PBX behind [ari] come."),
    counter("tandem_ari_disconnects_total", "Times they did not come, or not any more."),
    counter("tandem_ari_events_total", "Events of the PBX that concern calls."),
    counter(
        "tandem_ari_events_dropped_total",
        "Those dropped because they came too fast; the PBX is looked at instead.",
    ),
    counter("tandem_ari_requests_total", "Requests to the PBX."),
    counter(
        "tandem_ari_requests_failed_total",
        "Those that were refused or not answered; a 404 after a hang-up is common.",
    ),
    counter("tandem_ari_commands_waited_total", "Commands of legs that had to wait for room."),
    counter("tandem_ari_refused_total", "Callers refused because too many waited."),
    counter(
        "tandem_asterisk_websocket_connections_total",
        "Connections at the door for Asterisk's WebSocket channel, by outcome.",
    ),
    counter("tandem_dials_total", "Outgoing calls, by outcome."),
];
