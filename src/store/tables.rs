//! Every table and column of ours, in an order in which they can be filled. For backups, and for the test
//! that both back ends have the same.

/// What a column holds, as far as copying it needs to know. All may be null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Int,
}

/// A table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// A column by which rows can be walked through; unique and never null.
    pub(super) key: &'static str,
    pub(super) columns: &'static [(&'static str, Kind)],
}

use Kind::{Int, Text};

pub(super) const TABLES: &[Table] = &[
    Table {
        name: "organizations",
        key: "id",
        columns: &[
            ("id", Text),
            ("name", Text),
            ("recording", Text),
            ("created_at", Int),
            ("updated_at", Int),
            ("daily_budget", Int),
        ],
    },
    Table {
        name: "users",
        key: "id",
        columns: &[
            ("id", Text),
            ("email", Text),
            ("name", Text),
            ("role", Text),
            ("organization", Text),
            ("created_at", Int),
            ("updated_at", Int),
        ],
    },
    Table {
        name: "assistants",
        key: "id",
        columns: &[
            ("id", Text),
            ("organization", Text),
            ("name", Text),
            ("body", Text),
            ("created_at", Int),
            ("updated_at", Int),
        ],
    },
    Table {
        name: "numbers",
        key: "id",
        columns: &[
            ("id", Text),
            ("organization", Text),
            ("number", Text),
            ("flow", Text),
            ("created_at", Int),
            ("updated_at", Int),
        ],
    },
    Table {
        name: "phones",
        key: "id",
        columns: &[
            ("id", Text),
            ("organization", Text),
            ("name", Text),
            ("realm", Text),
            ("ha1_md5", Text),
            ("ha1_sha256", Text),
            ("number", Text),
            ("trunks", Text),
            ("created_at", Int),
            ("updated_at", Int),
        ],
    },
    Table {
        name: "tools",
        key: "id",
        columns: &[
            ("id", Text),
            ("organization", Text),
            ("name", Text),
            ("body", Text),
            ("created_at", Int),
            ("updated_at", Int),
        ],
    },
    Table {
        name: "api_tokens",
        key: "id",
        columns: &[
            ("id", Text),
            ("hash", Text),
            ("label", Text),
            ("role", Text),
            ("organization", Text),
            ("created_at", Int),
            ("expires_at", Int),
            ("last_used_at", Int),
        ],
    },
    Table {
        name: "provider_keys",
        key: "id",
        columns: &[
            ("id", Text),
            ("provider", Text),
            ("organization", Text),
            ("fingerprint", Text),
            ("sealed", Text),
            ("created_at", Int),
        ],
    },
    Table {
        name: "system_events",
        key: "seq",
        columns: &[("seq", Int), ("id", Text), ("at_ms", Int), ("type", Text), ("data", Text)],
    },
    Table {
        name: "calls",
        key: "id",
        columns: &[
            ("id", Text),
            ("node", Text),
            ("organization", Text),
            ("direction", Text),
            ("from_number", Text),
            ("to_number", Text),
            ("trunk", Text),
            ("assistant", Text),
            ("provider", Text),
            ("sip_call_id", Text),
            ("phase", Text),
            ("floor", Text),
            ("codec", Text),
            ("created_at", Int),
            ("answered_at", Int),
            ("ended_at", Int),
            ("disposition", Text),
            ("ended_by", Text),
            ("sip_status", Int),
            ("reason", Text),
            ("duration_ms", Int),
            ("billable_ms", Int),
            ("last_seq", Int),
            ("quality", Text),
            ("recording", Text),
            ("verstat", Text),
            ("diversion", Text),
            ("cost", Int),
            ("currency", Text),
        ],
    },
    Table {
        name: "call_costs",
        key: "id",
        columns: &[
            ("id", Text),
            ("call_id", Text),
            ("seq", Int),
            ("part", Text),
            ("provider", Text),
            ("model", Text),
            ("what", Text),
            ("quantity", Int),
            ("unit", Text),
            ("amount", Int),
        ],
    },
    Table {
        name: "call_events",
        key: "wall_seq",
        columns: &[
            ("wall_seq", Int),
            ("call_id", Text),
            ("seq", Int),
            ("id", Text),
            ("at_ms", Int),
            ("type", Text),
            ("data", Text),
            ("organization", Text),
            ("org_seq", Int),
        ],
    },
    Table {
        name: "transcript_lines",
        key: "line_id",
        columns: &[
            ("line_id", Text),
            ("call_id", Text),
            ("seq", Int),
            ("who", Text),
            ("text", Text),
            ("start_ms", Int),
            ("end_ms", Int),
            ("heard", Text),
            ("heard_text", Text),
        ],
    },
    Table {
        name: "idempotency",
        key: "id",
        columns: &[
            ("id", Text),
            ("body_hash", Text),
            ("status", Int),
            ("response", Text),
            ("created_at", Int),
        ],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn nothing_the_database_has_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("tandem.db").display());
        Store::open(&url).await.unwrap().migrate().await.unwrap();
        let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
        let text = "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' \
                    AND m.name NOT LIKE 'sqlite_%' AND m.name NOT IN ('_sqlx_migrations', 'meta')";
        let rows: Vec<(String, String)> = sqlx::query_as(text).fetch_all(&pool).await.unwrap();
        let mut there: BTreeMap<String, Vec<String>> = BTreeMap::new();
        rows.into_iter().for_each(|(table, column)| there.entry(table).or_default().push(column));
        assert!(there.len() > 8, "{there:?}");
        for (name, columns) in there {
            let table = TABLES.iter().find(|table| table.name == name);
            let mut known: Vec<&str> = table.expect(&name).columns.iter().map(|(name, _)| *name).collect();
            let mut columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            known.sort_unstable();
            columns.sort_unstable();
            assert_eq!(known, columns, "{name}");
        }
    }
}
