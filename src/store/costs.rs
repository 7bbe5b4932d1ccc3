//! What calls have cost: one call's details, and sums over many.

use serde::Serialize;

use super::Store;
use super::error::StoreError;
use super::row::{reading, row, unsigned, word};
use crate::config::MONEY_SCALE;
use crate::event::{CostItem, CostParts};
use crate::id::CallId;
use crate::time::UnixMs;

const OF_CALL: &str = "SELECT part, provider, model, what, quantity, unit, amount FROM call_costs \
     WHERE call_id = $1 ORDER BY part, provider, model, what";
const SPENT: &str = "SELECT organization, CAST(SUM(cost) AS BIGINT) AS amount FROM calls \
     WHERE created_at >= $1 AND cost IS NOT NULL GROUP BY organization";

/// Sums over calls; `{key}` is what they are grouped by. Calls without any cost count as calls.
macro_rules! sums {
    ($key:literal, $from:literal, $amount:literal, $unpriced:literal) => {
        concat!(
            "SELECT ",
            $key,
            " AS name, COALESCE(calls.currency, '') AS currency, \
             COUNT(DISTINCT calls.id) AS calls, CAST(COALESCE(SUM(",
            $amount,
            "), 0) AS BIGINT) AS amount, \
             CAST(",
            $unpriced,
            " AS BIGINT) AS unpriced FROM ",
            $from,
            " WHERE calls.created_at >= $1 AND calls.created_at < $2 \
             AND (CAST($3 AS TEXT) IS NULL OR calls.organization = $3) AND calls.currency IS NOT NULL \
             GROUP BY 1, 2 ORDER BY 1, 2"
        )
    };
}
const UNPRICED_CALLS: &str = "SELECT COUNT(DISTINCT calls.id) FROM calls JOIN call_costs ON call_costs.call_id = calls.id \
     WHERE call_costs.amount IS NULL AND calls.created_at >= $1 AND calls.created_at < $2 \
     AND (CAST($3 AS TEXT) IS NULL OR calls.organization = $3)";
const BY_ORGANIZATION: &str = sums!("COALESCE(calls.organization, '')", "calls", "calls.cost", "0");
const BY_ASSISTANT: &str = sums!("COALESCE(calls.assistant, '')", "calls", "calls.cost", "0");
const BY_DAY: &str = sums!("CAST(calls.created_at / 86400000 AS TEXT)", "calls", "calls.cost", "0");
const BY_PROVIDER: &str = sums!(
    "call_costs.provider",
    "calls JOIN call_costs ON call_costs.call_id = calls.id",
    "call_costs.amount",
    "SUM(CASE WHEN call_costs.amount IS NULL THEN 1 ELSE 0 END)"
);
const BY_MODEL: &str = sums!(
    "call_costs.provider || '/' || call_costs.model",
    "calls JOIN call_costs ON call_costs.call_id = calls.id",
    "call_costs.amount",
    "SUM(CASE WHEN call_costs.amount IS NULL THEN 1 ELSE 0 END)"
);

/// An amount of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// ISO 4217.
    pub currency: String,
    /// Decimal places of the amount.
    pub scale: u8,
    /// In 10⁻ˢᶜᵃˡᵉ units of the currency.
    pub total: u64,
}

impl Amount {
    pub(super) fn read(nanos: Option<i64>, currency: Option<String>) -> Option<Self> {
        Some(Self { currency: currency?, scale: MONEY_SCALE, total: unsigned(nanos?) })
    }
}

/// What one call has cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallCost {
    /// ISO 4217; `None` while nothing was used.
    pub currency: Option<String>,
    /// Decimal places of every amount.
    pub scale: u8,
    /// Of everything that has a price.
    pub total: u64,
    /// The same, by what it was for.
    pub by: CostParts,
    /// Whether something was used that has no price: the sum is then too low.
    pub unpriced: bool,
    /// Each thing used.
    pub items: Vec<CostItem>,
}

/// What sums are grouped by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CostBy {
    /// Owner of the call.
    Organization,
    /// Assistant of the call.
    Assistant,
    /// UTC day on which the call began.
    Day,
    /// Provider or trunk.
    Provider,
    /// Provider and model.
    Model,
}

/// One sum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CostRow {
    /// What it is of; empty for calls of nobody.
    pub name: String,
    /// ISO 4217.
    pub currency: String,
    /// Decimal places of the sum.
    pub scale: u8,
    /// Calls in it.
    pub calls: u64,
    /// The sum.
    pub total: u64,
    /// Things in it that have no price; counted by provider and by model only.
    pub unpriced: u64,
}

impl Store {
    /// What a call has cost so far.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn call_cost(&self, call: CallId) -> Result<CallCost, StoreError> {
        let id = call.to_string();
        let rows: Vec<ItemRow> =
            reading!(self, pool => sqlx::query_as(OF_CALL).bind(id).fetch_all(pool).await)?;
        let record = self.call(call).await?;
        let items: Vec<CostItem> = rows.into_iter().map(ItemRow::read).collect::<Result<_, _>>()?;
        let mut by = CostParts::default();
        for item in &items {
            *by.part(item.part) += item.amount.unwrap_or(0);
        }
        let cost = record.and_then(|record| record.cost);
        Ok(CallCost {
            total: cost.as_ref().map_or(0, |cost| cost.total),
            currency: cost.map(|cost| cost.currency),
            scale: MONEY_SCALE,
            by,
            unpriced: items.iter().any(|item| item.amount.is_none()),
            items,
        })
    }

    /// What the calls that began since this moment have cost, by organization, in billionths.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn spent_since(&self, since: UnixMs) -> Result<Vec<(Option<String>, u64)>, StoreError> {
        let rows: Vec<SpentRow> =
            reading!(self, pool => sqlx::query_as(SPENT).bind(since.get()).fetch_all(pool).await)?;
        Ok(rows.into_iter().map(|row| (row.organization, unsigned(row.amount))).collect())
    }

    /// Sums over the calls that began within `from..to`, of one organization or of all.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn costs(
        &self,
        by: CostBy,
        from: UnixMs,
        to: UnixMs,
        organization: Option<&str>,
    ) -> Result<Vec<CostRow>, StoreError> {
        let query = match by {
            CostBy::Organization => BY_ORGANIZATION,
            CostBy::Assistant => BY_ASSISTANT,
            CostBy::Day => BY_DAY,
            CostBy::Provider => BY_PROVIDER,
            CostBy::Model => BY_MODEL,
        };
        let rows: Vec<SumRow> = reading!(self, pool => {
            sqlx::query_as(query)
                .bind(from.get())
                .bind(to.get())
                .bind(organization)
                .fetch_all(pool)
                .await
        })?;
        Ok(rows.into_iter().map(|row| row.read(by)).collect())
    }

    /// How many of those calls have used something that has no price.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub async fn unpriced_calls(
        &self,
        from: UnixMs,
        to: UnixMs,
        organization: Option<&str>,
    ) -> Result<u64, StoreError> {
        let count: i64 = reading!(self, pool => {
            sqlx::query_scalar(UNPRICED_CALLS)
                .bind(from.get())
                .bind(to.get())
                .bind(organization)
                .fetch_one(pool)
                .await
        })?;
        Ok(unsigned(count))
    }
}

row! {
    struct ItemRow {
        part: String,
        provider: String,
        model: String,
        what: String,
        quantity: i64,
        unit: String,
        amount: Option<i64>,
    }
}

impl ItemRow {
    fn read(self) -> Result<CostItem, StoreError> {
        Ok(CostItem {
            part: word("call_costs", self.part)?,
            provider: self.provider,
            model: self.model,
            what: self.what,
            quantity: unsigned(self.quantity),
            unit: self.unit,
            amount: self.amount.map(unsigned),
        })
    }
}

row! {
    struct SpentRow { organization: Option<String>, amount: i64 }
}

row! {
    struct SumRow { name: String, currency: String, calls: i64, amount: i64, unpriced: i64 }
}

impl SumRow {
    fn read(self, by: CostBy) -> CostRow {
        // A day comes as the number of days since 1970.
        let day = (by == CostBy::Day).then(|| self.name.parse::<i64>().ok()).flatten();
        let date = day.map(|day| UnixMs::new(day * DAY_MS).to_rfc3339()[..10].to_owned());
        CostRow {
            name: date.unwrap_or(self.name),
            currency: self.currency,
            scale: MONEY_SCALE,
            calls: unsigned(self.calls),
            total: unsigned(self.amount),
            unpriced: unsigned(self.unpriced),
        }
    }
}

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
