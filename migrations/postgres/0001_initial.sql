-- Ids and names are TEXT, moments are milliseconds since 1970-01-01 UTC, JSON is TEXT: the same columns
-- as in ../sqlite, so that one set of queries serves both.

CREATE TABLE meta (
    key   TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE organizations (
    id         TEXT   NOT NULL PRIMARY KEY,
    name       TEXT   NOT NULL UNIQUE,
    recording  TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

CREATE TABLE users (
    id           TEXT   NOT NULL PRIMARY KEY,
    email        TEXT   NOT NULL UNIQUE,
    name         TEXT   NOT NULL,
    role         TEXT   NOT NULL,
    organization TEXT   REFERENCES organizations (name),
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
CREATE INDEX users_by_organization ON users (organization);

-- body: everything of the assistant but its organization and name, as JSON.
CREATE TABLE assistants (
    id           TEXT   NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    name         TEXT   NOT NULL,
    body         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    UNIQUE (organization, name)
);

-- A number belongs to one organization; '*' takes calls to every number without an entry.
CREATE TABLE numbers (
    id           TEXT   NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    number       TEXT   NOT NULL UNIQUE,
    flow         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
CREATE INDEX numbers_by_organization ON numbers (organization);

-- hash: SHA-256 of the secret, in hexadecimal. The secret itself is shown once and kept nowhere.
CREATE TABLE api_tokens (
    id           TEXT   NOT NULL PRIMARY KEY,
    hash         TEXT   NOT NULL UNIQUE,
    label        TEXT   NOT NULL,
    role         TEXT   NOT NULL,
    organization TEXT   REFERENCES organizations (name),
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT
);

-- One row per call, written when the call begins and closed when it ends (ended_at). The organization is
-- no foreign key: a call's record must never be refused.
CREATE TABLE calls (
    id           TEXT   NOT NULL PRIMARY KEY,
    node         TEXT   NOT NULL,
    organization TEXT,
    direction    TEXT   NOT NULL,
    from_number  TEXT   NOT NULL,
    to_number    TEXT   NOT NULL,
    trunk        TEXT,
    assistant    TEXT,
    provider     TEXT,
    sip_call_id  TEXT,
    phase        TEXT   NOT NULL,
    floor        TEXT   NOT NULL,
    codec        TEXT,
    created_at   BIGINT NOT NULL,
    answered_at  BIGINT,
    ended_at     BIGINT,
    disposition  TEXT,
    ended_by     TEXT,
    sip_status   BIGINT,
    reason       TEXT,
    duration_ms  BIGINT,
    billable_ms  BIGINT,
    last_seq     BIGINT NOT NULL,
    quality      TEXT,
    recording    TEXT
);
CREATE INDEX calls_by_creation ON calls (created_at DESC, id DESC);
CREATE INDEX calls_by_organization ON calls (organization, created_at DESC, id DESC);
CREATE INDEX calls_open ON calls (node) WHERE ended_at IS NULL;

-- Every durable event. seq counts per call, wall_seq over all calls, org_seq per organization; each
-- without gaps. data: JSON.
CREATE TABLE call_events (
    wall_seq     BIGINT NOT NULL PRIMARY KEY,
    call_id      TEXT   NOT NULL,
    seq          BIGINT NOT NULL,
    id           TEXT   NOT NULL,
    at_ms        BIGINT NOT NULL,
    type         TEXT   NOT NULL,
    data         TEXT   NOT NULL,
    organization TEXT,
    org_seq      BIGINT,
    UNIQUE (call_id, seq)
);
CREATE UNIQUE INDEX call_events_by_organization ON call_events (organization, org_seq)
    WHERE organization IS NOT NULL;

CREATE TABLE transcript_lines (
    line_id    TEXT   NOT NULL PRIMARY KEY,
    call_id    TEXT   NOT NULL,
    seq        BIGINT NOT NULL,
    who        TEXT   NOT NULL,
    text       TEXT   NOT NULL,
    start_ms   BIGINT NOT NULL,
    end_ms     BIGINT NOT NULL,
    heard      TEXT   NOT NULL,
    heard_text TEXT
);
CREATE INDEX transcript_lines_by_call ON transcript_lines (call_id, seq);
