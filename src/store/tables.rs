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
