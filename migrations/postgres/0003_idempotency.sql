-- Answers to requests that must not be carried out twice: one row per Idempotency-Key, kept for a day.
-- `status` 0: the first of them is still being carried out.
CREATE TABLE idempotency (
    id         TEXT   NOT NULL PRIMARY KEY,
    body_hash  TEXT   NOT NULL,
    status     BIGINT NOT NULL,
    response   TEXT   NOT NULL,
    created_at BIGINT NOT NULL
);
CREATE INDEX idempotency_by_age ON idempotency (created_at);
