-- Tools that organizations declare: webhooks of theirs. body: what was declared, as JSON; secrets are not in it, only
-- the names of the environment variables that hold them.
CREATE TABLE tools (
    id           TEXT   NOT NULL PRIMARY KEY,
    organization TEXT   NOT NULL REFERENCES organizations (name),
    name         TEXT   NOT NULL,
    body         TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    updated_at   BIGINT NOT NULL,
    UNIQUE (organization, name)
);
