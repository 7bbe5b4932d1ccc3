-- What calls cost: billionths of the currency, BIGINT. The budget is that of a day (UTC).
ALTER TABLE organizations ADD COLUMN daily_budget BIGINT;
ALTER TABLE calls ADD COLUMN cost BIGINT;
ALTER TABLE calls ADD COLUMN currency TEXT;

-- One row for each thing a call has used; amount is NULL for what has no price. id: the call and what it is.
CREATE TABLE call_costs (
    id       TEXT   NOT NULL PRIMARY KEY,
    call_id  TEXT   NOT NULL,
    seq      BIGINT NOT NULL,
    part     TEXT   NOT NULL,
    provider TEXT   NOT NULL,
    model    TEXT   NOT NULL,
    what     TEXT   NOT NULL,
    quantity BIGINT NOT NULL,
    unit     TEXT   NOT NULL,
    amount   BIGINT
);
CREATE INDEX call_costs_by_call ON call_costs (call_id);
