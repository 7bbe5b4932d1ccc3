-- Phones that register with us. realm, ha1_md5, ha1_sha256: hashes of user, realm and password (RFC 7616 section
-- 3.4.2) in hexadecimal; the password itself is kept nowhere. number: what its calls come from. trunks: names of
-- those it may call out over, as a JSON list.
CREATE TABLE phones (
    id           TEXT   NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    name         TEXT   NOT NULL UNIQUE,
    realm        TEXT   NOT NULL,
    ha1_md5      TEXT   NOT NULL,
    ha1_sha256   TEXT   NOT NULL,
    number       TEXT,
    trunks       TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL
);
CREATE INDEX phones_by_organization ON phones (organization);
