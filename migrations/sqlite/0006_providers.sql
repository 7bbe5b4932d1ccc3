-- API keys of providers, sealed with the installation's master key (AES-256-GCM). organization NULL: every
-- organization without keys of its own. fingerprint: the first eight hexadecimal digits of the key's SHA-256.
-- sealed: version, name of the master key, nonce and ciphertext.
CREATE TABLE provider_keys (
    id           TEXT   NOT NULL PRIMARY KEY,
    provider     TEXT   NOT NULL,
    organization TEXT   REFERENCES organizations (name),
    fingerprint  TEXT   NOT NULL,
    sealed       TEXT   NOT NULL,
    created_at   BIGINT NOT NULL
);
CREATE UNIQUE INDEX provider_keys_once ON provider_keys (provider, COALESCE(organization, ''), fingerprint);

-- What happened to the installation itself: the feed's system topic. seq counts without gaps; the oldest rows
-- are deleted. data: JSON.
CREATE TABLE system_events (
    seq   INTEGER NOT NULL PRIMARY KEY,
    id    TEXT   NOT NULL,
    at_ms BIGINT NOT NULL,
    type  TEXT   NOT NULL,
    data  TEXT   NOT NULL
);
